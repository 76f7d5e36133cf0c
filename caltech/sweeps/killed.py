"""Jobs side by side of which one's process is killed: the others are computed all the same.

joblib gives up its processes if one of them ends. Which of the jobs that ran was it? Nobody knows,
so each of them is computed again, by itself; what none had begun goes on side by side.
"""

import logging
import re
from collections.abc import Callable, Sequence

from hydra.core.utils import JobReturn, JobStatus

from caltech.errors import CaltechError
from caltech.sweeps import records
from caltech.sweeps.place import sweep

log = logging.getLogger(__name__)

Launch = Callable[[Sequence[Sequence[str]], int], Sequence[JobReturn]]

DEATHS = ("TerminatedWorkerError", "BrokenProcessPool")  # of joblib's loky, and of Python's
LOST = (records.MISSING, records.INTERRUPTED)  # what was running, and is not


def launched(launch: Launch, jobs: Sequence[Sequence[str]], first: int) -> Sequence[JobReturn]:
    """What launch(jobs, first) gives, also if a job ends its process.

    Such a job is a failed one. Jobs of a search are no concern of this: its workers are started
    again by search.py.
    """
    numbered = dict(enumerate(jobs, first))
    results: dict[int, JobReturn] = {}
    waiting, alone = [*numbered], []
    while waiting:
        group = _stretch(waiting)
        del waiting[: len(group)]
        if (death := _attempt(launch, numbered, group, results)) is None:
            continue
        states = records.numbered(sweep())
        lost = [number for number in group if states[number].status in LOST]
        if not lost:  # it was no job's
            raise death
        left = [number for number in group if states[number].status == records.WAITING]
        for number in {*group} - {*lost, *left}:
            results[number] = _answer(numbered[number], states[number].status, death)
        log.warning(
            "A process was killed; it computed one of these: %s. Each is computed alone, later.",
            "; ".join(states[number].overrides for number in lost),
        )
        waiting, alone = left + waiting, alone + lost
    for number in alone:
        if (death := _attempt(launch, numbered, [number], results)) is not None:
            record = records.numbered(sweep())[number]
            if record.status not in LOST:  # its process ended after it
                results[number] = _answer(numbered[number], record.status, death)
                continue
            reason = _reason(death)
            records.fail(sweep(), number, record, reason)
            log.error("FAILED %s (%s)\n  %s", record.overrides, record.directory, reason)
            results[number] = _answer(numbered[number], "failed", CaltechError(reason))
    return [results[number] for number in numbered]


def _stretch(numbers: Sequence[int]) -> list[int]:
    """The first of them that follow one another: a launcher counts on from the first."""
    return [number for place, number in enumerate(numbers) if number == numbers[0] + place]


def _attempt(
    launch: Launch,
    jobs: dict[int, Sequence[str]],
    numbers: Sequence[int],
    results: dict[int, JobReturn],
) -> Exception | None:
    """Launch these, and put what they gave into results; the error if a process was killed."""
    try:
        found = launch([jobs[number] for number in numbers], numbers[0])
    except Exception as error:
        if type(error).__name__ in DEATHS:
            return error
        raise
    results.update(zip(numbers, found, strict=True))
    return None


def _reason(death: Exception) -> str:
    codes = re.search(r"exit codes of the workers are \{(.*)\}", str(death))
    return (
        f"its process was killed{f' ({codes[1]})' if codes else ''}. Most often the system does "
        "it for want of memory: type micro_batch=, or fewer jobs at a time."
    )


def _answer(overrides: Sequence[str], status: str, error: Exception) -> JobReturn:
    """Of a job whose own was lost with its process."""
    if status == "failed":
        return JobReturn(overrides=overrides, status=JobStatus.FAILED, _return_value=error)
    return JobReturn(overrides=overrides, status=JobStatus.COMPLETED)
