"""A worker: one of any number of processes that compute the trials of one study.

Whoever asks for a trial holds the study's lock meanwhile, in the sweep's folder. So a key is begun
once, and a trial is taken up by one. Whoever computes a trial holds a lock of its own: if the study
has a trial as running and nobody holds its lock, its worker is dead, and another goes on with it.
"""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import optuna
from filelock import FileLock, Timeout
from hydra.core.utils import JobReturn
from omegaconf import DictConfig
from optuna.trial import FrozenTrial, TrialState

from caltech.amounts import counted
from caltech.errors import CaltechError
from caltech.files import acquire
from caltech.sweeps import records
from caltech.sweeps.records import Record
from caltech.sweeps.study import origin, proposals, storage, trials
from caltech.sweeps.study.space import Space

log = logging.getLogger(__name__)

UNIT = "trial"
POLL_SECONDS = 1.0  # between looks at the others' trials, once there is none to begin
ASKING, FIRST, TRIAL = "asking.lock", "first.lock", "{key}.trial.lock"


@dataclass(frozen=True)
class Claim:
    """A trial that is this worker's while it holds the lock."""

    number: int  # of the job: its key's place among those of the study
    key: str
    overrides: Sequence[str]
    lock: FileLock


@dataclass(frozen=True)
class Worker:
    """A process's part in a study.

    Attributes:
        sampler: as hydra/sweeper/sampler has it.
        total: how many trials the study is to have.
        most_failed: share of the ended trials that may have failed.
        folder: of the sweep, the same for all workers.
        describe: makes the record of a job from its overrides.
        launch: computes the job with these overrides and this number.
    """

    study: optuna.Study
    space: Space
    sampler: DictConfig
    total: int
    most_failed: float
    folder: Path
    describe: Callable[[Sequence[str]], Record]
    launch: Callable[[Sequence[str], int], JobReturn]

    def work(self) -> None:
        """Compute trials until the study has all of them.

        Raises:
            CaltechError: too many failed, or the storage has not answered for minutes.
        """
        with _first(self.folder) as is_first:
            if is_first:
                self._ask_again()
            while (claim := self._next()) is not None:
                try:
                    jobs = self._settled(claim, self.launch(claim.overrides, claim.number))
                finally:  # an interrupted trial still runs in the study: the next takes it up
                    claim.lock.release()
                self._require_few_failures(jobs.values())

    def _ask_again(self) -> None:
        """Every job that has ended, as a grid that is typed again does.

        What is finished is answered at once, what is lost is computed again, what failed is tried.
        """
        with acquire(self.folder / ASKING):
            jobs = enumerate(self.jobs().values())
            last = {number: each[-1] for number, each in jobs if _has_ended(each)}
            ended = {number: self.space.overrides(each.params) for number, each in last.items()}
            known = records.plan(self.folder).jobs
            new = {n: self.describe(words) for n, words in ended.items() if n not in known}
            if new:  # of a search of earlier code
                records.announce(self.folder, new, self.total, unit=UNIT)
        for number, overrides in ended.items():
            self.launch(overrides, number)

    def is_complete(self) -> bool:
        """Whether the study has all of its trials, and none of them runs."""
        jobs = self.jobs()
        states = {trial.state for each in jobs.values() for trial in each}
        return len(jobs) >= self.total and states <= trials.ENDED

    def is_completed_by_others(self) -> bool:
        """Wait while workers compute, wherever they are; whether the study is complete by then."""
        quiet = 0  # looks at which nobody worked: a worker holds no lock for a moment between two
        while not self.is_complete():
            is_alive = records.is_alive(self.folder, [ASKING, TRIAL.format(key="*")])
            quiet = 0 if is_alive else quiet + 1
            if quiet == 3:
                return False
            time.sleep(POLL_SECONDS)
        return True

    def jobs(self) -> dict[str, list[FrozenTrial]]:
        """The study's trials by key."""
        return storage.patiently(trials.of_keys, self.study)

    def _next(self) -> Claim | None:
        """A trial to go on with or to begin, as soon as there is one; None when all have ended."""
        barren = -1  # of how many jobs nothing followed
        while True:
            with acquire(self.folder / ASKING):
                storage.patiently(origin.require_here, self.study, self.folder)
                jobs = self.jobs()
                running = [key for key, each in jobs.items() if not _has_ended(each)]
                claim = self._take_up(jobs, running)
                if claim is None and len(jobs) < self.total and len(jobs) != barren:
                    claim, barren = self._begin(jobs), len(jobs)
                    if claim is None:
                        log.warning(
                            "The space has no point left that is a run of its own: the study ends "
                            "with %s of %d.", counted(len(jobs), "trial"), self.total,
                        )  # fmt: skip
                if claim is None and not running:  # nobody needs a trial's lock any more
                    for path in self.folder.glob(TRIAL.format(key="*")):
                        path.unlink()
            if claim is not None or not running:
                return claim
            time.sleep(POLL_SECONDS)

    def _take_up(
        self, jobs: Mapping[str, Sequence[FrozenTrial]], running: list[str]
    ) -> Claim | None:
        """A trial whose worker is dead."""
        for number, key in enumerate(jobs):
            if key not in running or (lock := _locked(self.folder, key)) is None:
                continue
            if _has_ended(self.jobs()[key]):  # between the look and the lock
                lock.release()
                continue
            overrides = self.space.overrides(jobs[key][-1].params)
            log.info("taking up trial %d (%s), whose worker is gone", number + 1, key)
            self._announce(number, self.describe(overrides))
            return Claim(number, key, overrides, lock)
        return None

    def _begin(self, jobs: Mapping[str, Sequence[FrozenTrial]]) -> Claim | None:
        """A trial of a key that the study has not; None if no proposal has one."""
        number = len(jobs)
        for proposed in proposals.proposals(self.study, self.space, self.sampler, number):
            overrides = self.space.overrides(proposed["params"])
            job = self.describe(overrides)
            if job.key in jobs:
                continue  # its result is in the study already
            if (lock := _locked(self.folder, job.key)) is None:
                continue  # somebody computes it for another study
            self._announce(number, job)
            if storage.patiently(proposals.begin, self.study, self.space, proposed, job.key):
                return Claim(number, job.key, overrides, lock)
            lock.release()  # somebody began it whom our locks do not reach
        return None

    def _announce(self, number: int, job: Record) -> None:
        records.announce(self.folder, {number: job}, self.total, unit=UNIT)

    def _settled(self, claim: Claim, answer: JobReturn) -> Mapping[str, Sequence[FrozenTrial]]:
        """The study's jobs; one that failed before it came to its trial has not closed it.

        Raises:
            OutageError: the job could not tell how it ended.
            DiskError: there was no room for it here; another machine may have some.
        """
        if isinstance(answer._return_value, trials.OF_MACHINE):  # others are told by the job
            raise answer._return_value
        jobs = self.jobs()
        open_still = [t.number for t in jobs[claim.key] if t.state == TrialState.RUNNING]
        for number in open_still:
            failed = {"state": TrialState.FAIL, "skip_if_finished": True}
            storage.patiently(self.study.tell, number, **failed)
        return self.jobs() if open_still else jobs

    def _require_few_failures(self, jobs: Iterable[Sequence[FrozenTrial]]) -> None:
        ended = [each for each in jobs if _has_ended(each)]
        failed = [each for each in ended if each[-1].state == TrialState.FAIL]
        if len(failed) > self.most_failed * len(ended):
            raise CaltechError(
                f"{len(failed)} of {counted(len(ended), 'trial')} failed, and "
                f"hydra.sweeper.max_failure_rate={self.most_failed} allows fewer."
            )


def _has_ended(of_key: Sequence[FrozenTrial]) -> bool:
    return all(trial.state in trials.ENDED for trial in of_key)


def _locked(folder: Path, key: str) -> FileLock | None:
    """The lock of a key's trial, held; None if another worker has it."""
    try:
        lock = FileLock(folder / TRIAL.format(key=key), fallback_to_soft=False)
        lock.acquire(timeout=0)
        return lock
    except Timeout:
        return None


@contextmanager
def _first(folder: Path) -> Iterator[bool]:
    """Whether no other worker that lives was here before."""
    lock = FileLock(folder / FIRST, fallback_to_soft=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        yield False
        return
    with lock:
        yield True
