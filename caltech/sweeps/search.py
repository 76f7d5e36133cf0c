"""hydra/sweeper=optuna: this process is a worker of a study, or starts its workers.

Spaces and samplers are those of hydra-optuna-sweeper. Its loop over batches is not used.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import optuna
from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from hydra_plugins.hydra_joblib_launcher.joblib_launcher import JoblibLauncher
from hydra_plugins.hydra_optuna_sweeper.optuna_sweeper import OptunaSweeper
from omegaconf import DictConfig, OmegaConf, read_write

from caltech.amounts import counted
from caltech.errors import CaltechError, InputError
from caltech.files import acquire, explaining_disk, write_bytes
from caltech.settings import require_fixed
from caltech.sweeps import line, records
from caltech.sweeps.composed import ComposedOnce
from caltech.sweeps.place import sweep
from caltech.sweeps.processes import gave_up, said, tie
from caltech.sweeps.study import origin, proposals, storage, trials
from caltech.sweeps.study.space import Space
from caltech.sweeps.study.workers import Worker
from caltech.sweeps.sweepers import Grid
from caltech.training.device import choose_device
from caltech.words import Word

log = logging.getLogger(__name__)

BEST = "optimization_results.yaml"  # in the study's folder, as the official sweeper has it
BASIC = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"


def register() -> None:
    """Make our sweepers known to Hydra; calling it again changes nothing."""
    for sweeper in (Grid, Search):
        Plugins.instance().register(sweeper)


class Search(OptunaSweeper):
    """Points that Optuna chooses; a trial is a job."""

    def setup(self, **parts: Any) -> None:
        self.parts = parts  # config, hydra_context, task_function

    def sweep(self, arguments: list[str]) -> None:
        """Work on the study until it has all of its trials.

        Raises:
            CaltechError: no trial came to a value, or the launcher gave up.
        """
        config, worker = self.parts["config"], worker_of(**self.parts)
        if config.hydra.launcher._target_ == BASIC:
            _work(worker, config)
        else:
            launch_workers(worker, **self.parts)
        conclude(worker, Path(config.hydra.sweep.dir))


def prepare(config: DictConfig, sweeps: Path) -> Path:
    """Folder of a search among those of its study's `sweeps`: one for all who work on it.

    Args:
        config: composed without the values that are searched.

    Raises:
        InputError: it cannot be a search, or not go on with what its study has.
    """
    space = Space.of(config)
    _require_space(space, config)
    require_fixed(config, space.searched)
    with explaining_disk(sweeps):
        sweeps.mkdir(parents=True, exist_ok=True)
    with acquire(sweeps / "search.lock"):  # of a fresh database, one creates the tables
        name = trials.name_of(config, space)
        known = storage.names(config.storage)
        study = storage.study(name, config.storage)
        storage.patiently(_require_total, study, config.hydra.sweeper.n_trials)
        others = [
            each for each in known if re.fullmatch(f"{re.escape(config.study)}-[0-9a-f]{{8}}", each)
        ]
        if others and name not in known:
            print(
                "This search is a new one: its space or what is fixed is not that of "
                f"{', '.join(sorted(others))} in the same storage. Those stay as they are."
            )
        mark = name.rpartition("-")[2]
        folder = _folder_of(study, sweeps, mark)
        folder.mkdir(exist_ok=True)
        origin.mark(folder)
        storage.patiently(origin.require_same, study, config, space, folder)
        trials.note(folder, name, space, is_search=True)
    return folder


def _folder_of(study: optuna.Study, sweeps: Path, mark: str) -> Path:
    """Where a search's workers meet: the study's own folder, if there are several, or a new one."""
    found = sorted(sweeps.glob(f"*-{mark}/"), key=partial(origin.is_met_in, study), reverse=True)
    is_lost = not study.user_attrs and not study.trials and any(map(records.rows, found))
    if is_lost:
        print(
            f"The study whose trials are in {found[0]} is not in the storage any more. This search "
            "begins anew, in a folder of its own. Runs that it comes to again answer at once."
        )
    if found and not is_lost:
        return found[0]
    return sweeps / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{mark}"


def _require_space(space: Space, config: DictConfig) -> None:
    if not space.searched:
        raise InputError(
            "Nothing is searched: no value is left open. Type a space, for example "
            "'lr=tag(log, interval(1e-3, 1))', or leave hydra/sweeper=optuna out."
        )
    sampler = config.hydra.sweeper.sampler
    if sampler._target_.endswith("GridSampler"):
        space.require_choices()
    proposals.require_sampler(space, sampler)


def _require_total(study: optuna.Study, total: int) -> None:
    """Raise InputError for a total that the study is past."""
    if (known := len(trials.of_keys(study))) > total:
        raise InputError(
            f"hydra.sweeper.n_trials={total}: this study has {counted(known, 'trial')} already, "
            f"and none is taken back. Type hydra.sweeper.n_trials={known} for its table, or more "
            "to go on."
        )


@dataclass(frozen=True)
class Remote:
    """What a launcher's job does for a search: it is a worker."""

    parts: Mapping[str, Any]

    def __call__(self, cfg: DictConfig) -> None:
        worker, config = worker_of(**self.parts), self.parts["config"]
        study, space, folder = worker.study, worker.space, worker.folder
        storage.patiently(origin.require_same, study, config, space, folder)  # on this machine
        _work(worker, config)


def _work(worker: Worker, config: DictConfig) -> None:
    """Take the device before a trial, which would fail for want of one, and the next one with it.

    Raises:
        InputError: there is no such device, or no room on it.
    """
    choose_device(config.device, config.gpu_share, config.workers)
    worker.work()


def worker_of(config: DictConfig, hydra_context: HydraContext, task_function: Any) -> Worker:
    """A worker whose jobs run in this process, one after the other.

    Raises:
        OutageError: the storage, which the command has opened before, has not answered for minutes.
    """
    launcher, folder, space = BasicLauncher(), sweep(), Space.of(config)
    line.quieten()
    composed = ComposedOnce(hydra_context.config_loader, config, most=1)
    context = replace(hydra_context, config_loader=composed)
    launcher.setup(config=config, hydra_context=context, task_function=task_function)
    sampler, total = config.hydra.sweeper.sampler, config.hydra.sweeper.n_trials
    points, name = space.points(), trials.noted_in(folder)["name"]
    return Worker(
        study=storage.patiently(storage.study, name, config.storage),
        space=space,
        sampler=sampler,
        total=total if points is None else min(total, len(points)),
        most_failed=config.hydra.sweeper.max_failure_rate,
        folder=folder,
        describe=composed.describe,
        launch=lambda overrides, number: launcher.launch([overrides], number)[0],
    )


def launch_workers(
    worker: Worker, config: DictConfig, hydra_context: HydraContext, task_function: Any
) -> None:
    """Have the launcher's jobs work on the study, until it has all of its trials.

    Joblib ends all of its processes if one is killed: then they are started again.

    Raises:
        CaltechError: the launcher gave up, or every worker failed, and the study is not complete.
    """
    parts = {"config": config, "hydra_context": hydra_context, "task_function": task_function}
    count, own = config.hydra.sweeper.n_jobs, _for_workers(config, worker.folder)
    launcher = Plugins.instance().instantiate_launcher(
        config=own, hydra_context=hydra_context, task_function=Remote(parts)
    )
    tie(launcher)
    if isinstance(launcher, JoblibLauncher):  # all of them at once, and the cores divided
        launcher.joblib = {**launcher.joblib, "n_jobs": count}
    # Of what was typed all that is the same for every trial: a worker is a job with a config, too.
    fixed = [w for w in config.hydra.overrides.task if Word.of(w).key not in worker.space.searched]
    answers = _answers(launcher, [fixed] * count, worker)
    failed = [answer for answer in answers if answer.status is JobStatus.FAILED]
    for answer in failed:
        log.warning("A worker ended before the study: %s", str(answer._return_value).split("\n")[0])
    if failed and not worker.is_complete():
        raise failed[0]._return_value  # Hydra would print a line of its own before


def _answers(
    launcher: Launcher, jobs: Sequence[Sequence[str]], worker: Worker
) -> Sequence[JobReturn]:
    """Those of the workers; none if the launcher lost one, and the others completed the study."""
    while True:
        before = _progress(worker)
        try:
            return launcher.launch(jobs, 0)
        except CaltechError:
            raise
        except Exception as error:
            if isinstance(error, BrokenProcessPool) and _progress(worker) != before:
                log.warning("A worker was killed, and with it the others. Starting them again.")
                continue
            told = gave_up(error)
            if isinstance(told, InputError):  # none has begun
                raise told from error
            log.warning("A worker was lost: %s. Others are waited for.", said(error))
            if not worker.is_completed_by_others():
                raise told from error
            return []


def _for_workers(config: DictConfig, folder: Path) -> DictConfig:
    """A worker's own log is in the sweep's folder."""
    own = config.copy()
    with read_write(own.hydra):
        own.hydra.overrides.hydra.append(f"hydra.sweep.subdir=sweeps/{folder.name}")
    return own


def _progress(worker: Worker) -> list[Any]:
    """What changes while any worker gets on."""
    return [[trial.state for trial in each] for each in worker.jobs().values()]


def conclude(worker: Worker, folder: Path) -> None:
    """Tell the best trial, and keep it in the study's folder.

    Raises:
        CaltechError: no trial has a value.
    """
    trials = [trial for each in worker.jobs().values() for trial in each]
    # A pruned one has the last value that it told, of an epoch before its last: for want of others.
    found = [trial for trial in trials if trial.state is optuna.trial.TrialState.COMPLETE]
    found = found or [trial for trial in trials if trial.value is not None]
    if not found:
        jobs = records.rows(worker.folder)
        reasons = [job.reason for job in jobs if job.reason] or ["none has ended"]
        raise CaltechError(f"None of {counted(len(jobs), 'trial')} has a value: {reasons[-1]}")
    best = max(found, key=lambda trial: trial.value)
    log.info("Best parameters: %s", best.params)
    log.info("Best value: %s", best.value)
    told = {"name": "optuna", "best_params": best.params, "best_value": best.value}
    write_bytes(folder / BEST, OmegaConf.to_yaml(OmegaConf.create(told)).encode())
