"""A sweep's study in Optuna: its jobs report into it, a pruner stops them by it.

A search and a sweep with a pruner have one, which is named by what their command sweeps over: the
command typed again, and the same command typed elsewhere, go on in it. The trials of a search are
begun by its workers (workers.py), those of a grid with a pruner by its jobs.
"""

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from omegaconf import DictConfig
from optuna import pruners
from optuna.trial import FrozenTrial, TrialState, create_trial

from caltech.config import build
from caltech.errors import DamagedError, DiskError, InputError
from caltech.files import write_json
from caltech.keys import former_key, run_key
from caltech.runs.result import FINISHED, PRUNED
from caltech.sweeps.study import proposals, storage
from caltech.sweeps.study.space import Space, point
from caltech.training.fit import NOBODY, Observer

log = logging.getLogger(__name__)

CURVE = "val/accuracy"  # attribute of a trial without a pruner: its epochs
NOTE = "study.json"  # in a sweep's folder: where its jobs find the study
STATES = {FINISHED: TrialState.COMPLETE, PRUNED: TrialState.PRUNED}
OF_MACHINE = (DiskError, storage.OutageError)  # no failure of a trial: the next would fail, too
ENDED = {TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL}


class Trial(Observer):
    """A job's trial. With a pruner it is told of every epoch, else of all once it has ended."""

    def __init__(
        self, study: optuna.Study, point: Mapping[str, Any], key: str, is_of_search: bool
    ) -> None:
        self.study, self.point, self.key, self.is_of_search = study, point, key, is_of_search
        self.prunes = not isinstance(study.pruner, pruners.NopPruner)
        self.live = self._start_or_continue()
        self.history: Sequence[Mapping[str, float]] = ()

    def epoch(self, history: Sequence[Mapping[str, float]]) -> bool:
        """Tell the validation accuracies of the epochs so far; whether the run is to stop now.

        A storage that does not answer stops nothing: the run goes on, and is told of at its end.
        """
        self.history = history
        if self.live is None or not self.prunes or not history:
            return False
        try:
            self._report()
            return self.live.should_prune()
        except storage.OUTAGES as error:
            log.warning("The study's storage does not answer (%s): this job is not pruned now.",
                storage.first_line(error))  # fmt: skip
            return False

    def end(self, status: str, value: float | None) -> None:
        """Close the trial as finished, pruned or failed, unless it was in an earlier sweep."""
        storage.patiently(self._end, STATES.get(status, TrialState.FAIL), value)

    def _end(self, state: TrialState, value: float | None) -> None:
        states = {trial.state for trial in self._trials()}
        curve = {epoch["epoch"]: epoch["val/accuracy"] for epoch in self.history}
        if self.live is not None and TrialState.RUNNING in states:
            if self.prunes:
                self._report()
            elif curve:  # thirty reports take a second, one attribute as long as one of them
                self.live.set_user_attr(CURVE, curve)
            self.study.tell(self.live, value if state == TrialState.COMPLETE else None, state)
        elif state not in states:
            self._add(state, value=value, intermediate_values=curve)

    def _report(self) -> None:
        told = self.study.get_trials(deepcopy=False)[self.live.number].intermediate_values
        for epoch in self.history:
            if epoch["epoch"] not in told:
                self.live.report(epoch["val/accuracy"], epoch["epoch"])

    def _start_or_continue(self) -> optuna.Trial | None:
        """A killed job goes on with its own trial, so that its pruner decides as it would have."""
        running = [trial for trial in self._trials() if trial.state == TrialState.RUNNING]
        if not running:
            ended = {trial.state for trial in self._trials()} & {*STATES.values()}
            if ended or not self.prunes or self.is_of_search:  # in an earlier sweep
                return None
            self._add(TrialState.RUNNING)  # ask() would give another point
            running = [trial for trial in self._trials() if trial.state == TrialState.RUNNING]
        return optuna.Trial(self.study, running[-1]._trial_id)

    def _trials(self) -> list[FrozenTrial]:
        return of_keys(self.study).get(self.key, [])

    def _add(self, state: TrialState, **told: Any) -> None:
        own = {"user_attrs": {"key": self.key}, **self.point}
        self.study.add_trial(create_trial(state=state, **own, **told))


def of_keys(study: optuna.Study) -> dict[str, list[FrozenTrial]]:
    """The trials of each key, in the order in which the keys came to the study.

    A key has one; a second if it was pruned or failed once, and was finished later.
    """
    found: dict[str, list[FrozenTrial]] = {}
    for trial in study.get_trials(deepcopy=False):
        if (key := trial.user_attrs.get("key")) and proposals.DOUBLE not in trial.user_attrs:
            found.setdefault(key, []).append(trial)
    return found


def name_of(config: DictConfig, space: Space) -> str:
    """Of the study of a command that sweeps over `space`: its own, or the one it began earlier.

    Raises:
        InputError: the storage cannot be opened.
    """
    known, names = [], []  # as it is, and as it was when keys still told 0 and 0.0 apart
    for key in (run_key(config), former_key(config)):
        identity = json.dumps([key, config.seeds, space.plain()], sort_keys=True)
        names.append(f"{config.study}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}")
    Path(config.output, config.study).mkdir(parents=True, exist_ok=True)  # the default's place
    known = storage.names(config.storage)
    return next((name for name in names if name in known), names[0])


def prepare(config: DictConfig, folder: Path) -> None:
    """Create the study of a grid that is about to start, and note in its folder where it is.

    `config` is composed without the values that are swept over; Hydra has them as overrides.
    """
    space = Space.of(config)
    name = name_of(config, space)
    storage.study(name, config.storage)
    note(folder, name, space, is_search=False)


def note(folder: Path, name: str, space: Space, is_search: bool) -> None:
    """The storage's address may hold a password: every job has it in its own config."""
    write_json(folder / NOTE, {"name": name, "space": space.plain(), "search": is_search})


@contextmanager
def trial(
    cfg: DictConfig, record: Any, overrides: Sequence[str], folder: Path | None
) -> Iterator[Observer]:
    """The trial of a job of the sweep in `folder`; it ends as the job's record says by then.

    An interrupted job's trial stays open, for the same job to go on with; as does a search's that
    this machine had no room for.

    Raises:
        InputError: a pruner, and no sweep whose jobs it could compare.
    """
    pruner = build(cfg.pruner)
    if folder is None and not isinstance(pruner, pruners.NopPruner):
        raise InputError(
            "A pruner compares the jobs of a sweep, and this is a single run. Type pruner=none, "
            "or --multirun and values to sweep over, for example lr=1e-1,1e-2,1e-3."
        )
    noted = None if folder is None else noted_in(folder)
    if noted is None:
        yield NOBODY
        return
    study = storage.patiently(storage.study, noted["name"], cfg.storage, pruner)
    place = point(noted["space"], overrides)
    job = storage.patiently(Trial, study, place, cfg.key, noted["search"])
    try:
        yield job
    except Exception as error:
        if not (job.is_of_search and isinstance(error, OF_MACHINE)):
            job.end("failed", None)
        raise
    job.end(record.status, record.value)


def noted_in(folder: Path) -> dict[str, Any] | None:
    """Name and space of a sweep's study; None if it has none.

    Raises:
        DamagedError: the note is not what was written.
    """
    path = folder / NOTE
    try:
        noted = json.loads(path.read_bytes())
        named = {"name": str(noted["name"]), "space": dict(noted["space"])}
        return named | {"search": noted.get("search") is True}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DamagedError(
            f"{path} was cut short or changed: {error}. Type the sweep's command again."
        ) from error
