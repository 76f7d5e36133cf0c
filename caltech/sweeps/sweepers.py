"""Hydra's sweeper of grids, thin: jobs are checked and written down before they are launched."""

import logging
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from hydra._internal.core_plugins.basic_launcher import BasicLauncher
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.types import Override, ValueType
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from caltech.errors import CaltechError, InputError
from caltech.overrides import name_of
from caltech.sweeps import lists, records
from caltech.sweeps.composed import ComposedOnce
from caltech.sweeps.killed import launched
from caltech.sweeps.place import sweep
from caltech.sweeps.processes import gave_up, tie
from caltech.waiting import counting

log = logging.getLogger(__name__)

MOST_KEPT = 20_000  # configs of jobs, packed: 120 MB
MANY = 20  # jobs whose composing takes seconds, so that it is told
PLACES = ("output", "study", "cache", "storage")
GRID = "caltech.sweeps.sweepers.Grid"


def refuse_half_typed(arguments: Sequence[str]) -> None:
    """Raise InputError for a search's options without the search, which Hydra does not understand.

    Args:
        arguments: of the command line.
    """
    if any(word.startswith(("hydra/sweeper=", "sweep=")) for word in arguments):
        return
    for word in arguments:
        if word.lstrip("+").startswith(("hydra.sweeper.", "hydra/sweeper/")):
            if word.startswith(("hydra.sweeper.max_batch_size=", "hydra.sweeper.params")):
                continue
            raise InputError(
                f"{word} is for a search. Type --multirun hydra/sweeper=optuna (or sweep=NAME), "
                "too, or leave it out."
            )


class Grid(BasicSweeper):
    """Every combination of the values that were typed; its jobs are known at launch."""

    def setup(self, *, config: DictConfig, hydra_context: HydraContext, **others: Any) -> None:
        super().setup(config=config, hydra_context=hydra_context, **others)
        is_here = isinstance(self.launcher, BasicLauncher)  # others compose in other processes
        composed = ComposedOnce(hydra_context.config_loader, config, MOST_KEPT if is_here else 0)
        if is_here:
            self.launcher.hydra_context = replace(hydra_context, config_loader=composed)
        tie(self.launcher)
        self.launcher = Announcing(self.launcher, composed)

    @staticmethod
    def split_arguments(overrides: list[Override], max_batch_size: int | None) -> list[list]:
        """Raise InputError for what has no values; a glob finds options in folders, too."""
        for override in overrides:
            if override.value_type is ValueType.GLOB_CHOICE_SWEEP:
                override.config_loader = Nested(override.config_loader)
            if not override.is_sweep_override():
                continue
            if not override.is_discrete_sweep():
                raise InputError(
                    f"{override.input_line} is no list of values. Type values, for example "
                    "lr=1e-1,1e-2, or hydra/sweeper=optuna to search in it."
                )
            if not [*override.sweep_string_iterator()]:
                raise InputError(_no_values(override))
            _require_no_place(override.key_or_group, override.input_line)
        for name, values in lists.columns().items():
            if len(values) > 1:
                _require_no_place(name, f"{name}={','.join(values)}")
        if max_batch_size is not None and max_batch_size < 1:
            raise InputError(
                f"hydra.sweeper.max_batch_size={max_batch_size} launches nothing. Type null or 1."
            )
        batches = BasicSweeper.split_arguments(overrides, max_batch_size)
        if not lists.jobs():
            return batches
        every = [[*job, *line] for batch in batches for job in batch for line in lists.jobs()]
        size = max_batch_size or len(every)
        return [every[start : start + size] for start in range(0, len(every), size)]

    def validate_batch_is_legal(self, batch: Sequence[Sequence[str]]) -> None:
        """The launcher composes each job before any of them starts."""

    def get_job_batch(self) -> Sequence[Sequence[str]]:
        self.launcher.total = sum(map(len, self.overrides))
        if self.launcher.total == 1 and self.config.seeds is None:
            log.warning("No key has several values: one run. Type values, as lr=1e-1,1e-2.")
        return super().get_job_batch()


def _require_no_place(name: str, typed: str) -> None:
    """Raise InputError for a sweep over where it is kept: its jobs and its table have one place."""
    if name in PLACES or name.partition(".")[0] == "tracking":
        raise InputError(
            f"{typed} is several places, and a sweep is kept in one. Type its command once for "
            f"each value of {name}."
        )


def require_launcher(launcher: DictConfig) -> None:
    """Raise InputError for one that runs no job at a time, or is not of this machine."""
    if str(launcher._target_).endswith(".SlurmLauncher") and shutil.which("srun") is None:
        raise InputError(
            "hydra/launcher=slurm needs SLURM's srun, which this machine does not have. Type it on "
            "a machine of the cluster, or hydra/launcher=parallel."
        )
    if launcher.get("n_jobs") == 0:
        raise InputError(
            "hydra.launcher.n_jobs=0 launches nothing. Type how many jobs run at a time, or -1."
        )


def require_workers(config: DictConfig) -> None:
    """Raise InputError for workers that nothing would start, or a number that is not theirs."""
    choices = config.hydra.runtime.choices
    searches = choices["hydra/sweeper"] == "optuna"
    if not searches and config.workers > 1:
        raise InputError(
            f"workers={config.workers} is for a search, and this is none. Leave it out; how many "
            "jobs of a grid run at a time is the launcher's: hydra/launcher=parallel "
            f"hydra.launcher.n_jobs={config.workers}."
        )
    of_grid = [w for w in config.hydra.overrides.hydra if w.startswith("hydra.launcher.n_jobs=")]
    if searches and of_grid:
        raise InputError(
            f"{of_grid[-1]} is how many jobs of a grid run at a time, and this is a search. How "
            f"many processes work on it is workers={of_grid[-1].partition('=')[2]}."
        )
    if searches and choices["hydra/launcher"] == "basic" and config.hydra.sweeper.n_jobs != 1:
        raise InputError(
            f"workers={config.hydra.sweeper.n_jobs} need somebody who starts them. Add "
            "hydra/launcher=parallel (on this machine), slurm or ray_cluster; or type the command "
            "without workers= so many times: all of them work on one study."
        )


def require_search(sweeper: DictConfig) -> None:
    """Raise InputError for what a search by Optuna cannot do with jobs of ours."""
    direction = sweeper.direction
    if direction != "maximize":
        raise InputError(
            f"hydra.sweeper.direction={direction}: a search has one objective, the best validation "
            "accuracy, and maximises it. Type hydra.sweeper.direction=maximize, or leave it out."
        )
    counts = {"n_trials": "trials the study is to have", "n_jobs": "workers there are (workers=)"}
    for name, what in counts.items():
        value = sweeper[name]
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise InputError(
                f"hydra.sweeper.{name}={value} is not allowed: it is how many {what}, at least 1, "
                f"for example hydra.sweeper.{name}=20."
            )
    rate = sweeper.max_failure_rate
    if not isinstance(rate, int | float) or not 0 <= rate <= 1:
        raise InputError(
            f"hydra.sweeper.max_failure_rate={rate} is not allowed: it is a share, from 0 to 1 "
            "(go on whatever fails)."
        )
    for name in ("storage", "study_name", "custom_search_space"):
        if sweeper[name] is not None:
            raise InputError(
                f"hydra.sweeper.{name} is not for searches here: a search typed again would add "
                "its points once more. Its study is kept in storage=; leave the other out."
            )


class Announcing(Launcher):
    """A launcher whose jobs are checked and written down before the first of them starts."""

    total = 0  # jobs that the sweep will have

    def __init__(self, launcher: Launcher, composed: ComposedOnce) -> None:
        self.launcher, self.composed = launcher, composed

    def setup(self, **kwargs: Any) -> None:
        """The other one is set up already."""

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Launch jobs.

        Raises:
            InputError: they would not have a place of their own.
            CaltechError: the launcher gave up, as it does for a job that a scheduler cancelled.
        """
        jobs, count = {}, len(job_overrides)
        if count >= MANY:
            log.info("%d jobs: the config of each is composed before the first starts", count)
        told = counting(job_overrides, count, "composing configs", "jobs")
        for number, overrides in enumerate(told, initial_job_idx):
            jobs[number] = self.composed.describe(overrides)
        require_places_of_their_own(jobs)
        repeated = [_seeds(overrides) for overrides in job_overrides]
        same = Counter(zip((job.key for job in jobs.values()), repeated, strict=True))
        for (key, _), number in same.items():
            if number > 1:
                log.warning("%d jobs are the same run, %s: it is computed once.", number, key)
        records.announce(sweep(), jobs, max(self.total, len(jobs)))
        try:
            results = launched(self.launcher.launch, job_overrides, initial_job_idx)
        except (CaltechError, HydraException, OmegaConfBaseException):
            raise
        except Exception as error:
            raise gave_up(error) from error
        failed = [each for each in results if each.status is JobStatus.FAILED]
        if failed and isinstance(error := failed[0]._return_value, CaltechError):
            raise error  # Hydra would print a line of its own before it raises the first
        return results


def _seeds(overrides: Sequence[str]) -> str:
    """What was typed of seeds=N, which is no part of a key; the last word counts."""
    return ([word for word in overrides if name_of(word) == "seeds"] or [""])[-1]


def require_places_of_their_own(jobs: Mapping[int, records.Record]) -> None:
    """Raise InputError if two different runs would have one directory."""
    keys: dict[str, str] = {}
    for job in jobs.values():
        if keys.setdefault(job.directory, job.key) != job.key:
            raise InputError(
                f"directory={job.directory} is one place for several runs. Leave it out, and type "
                "output=FOLDER or study=NAME to say where they go."
            )


class Nested:
    """A config loader to whom an option in a folder of a group is an option of the group."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def get_group_options(self, group: str, results_filter: ObjectType | None = None) -> list[str]:
        return sorted(self._options(group, ""))

    def _options(self, group: str, prefix: str) -> Iterator[str]:
        for name in self.loader.get_group_options(
            f"{group}/{prefix}".rstrip("/"), ObjectType.CONFIG
        ):
            yield prefix + name
        for name in self.loader.get_group_options(
            f"{group}/{prefix}".rstrip("/"), ObjectType.GROUP
        ):
            yield from self._options(group, f"{prefix}{name}/")


def _no_values(override: Override) -> str:
    said = f"{override.input_line} has no value: there is nothing to launch."
    if override.value_type is ValueType.GLOB_CHOICE_SWEEP:
        known = Nested(override.config_loader).get_group_options(override.key_or_group)
        return f"{said} Options of {override.key_or_group} are {', '.join(known) or 'none'}."
    return f"{said} Type values, for example lr=1e-1,1e-2."
