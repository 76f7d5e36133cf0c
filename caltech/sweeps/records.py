"""A sweep's folder: the jobs that were asked for, and what became of each.

`jobs.json` is written before a job starts. Each job keeps a record, a file of its own, so that jobs
on other machines need no agreement; while it lives it holds a lock beside it, and the command that
launched the sweep holds `sweep.lock`. Locks say what runs: the system lets go of a dead process's.
"""

import fcntl
import json
import logging
import math
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from caltech.errors import DamagedError
from caltech.files import explaining_disk, write_json
from caltech.runs.directory import RunDirectory

log = logging.getLogger(__name__)

JOBS, LOCK = "jobs.json", "sweep.lock"
NAME = re.compile(r"(?P<key>.+)-(?P<number>\d+)\.json")  # of a record
RUNNING, WAITING, MISSING, UNREADABLE = "running", "waiting", "missing", "unreadable"
INTERRUPTED = "interrupted"  # it has a checkpoint, from which the same command goes on
OPEN = (RUNNING, WAITING, MISSING)  # these jobs have not ended


@dataclass
class Record:
    """One job; `value` is its objective, the best validation accuracy (mean over seeds).

    `seconds` are those of all processes that computed it in this sweep, but for killed ones, which
    could not tell theirs.
    """

    key: str
    directory: str
    overrides: str
    status: str = RUNNING
    value: float | None = None
    seconds: float = 0.0
    reason: str = ""
    deviation: float | None = None  # over seeds, of the sample
    host: str = ""
    test: float | None = None  # accuracy of the best epoch's weights (mean over seeds)


@dataclass(frozen=True)
class Plan:
    """The jobs of a sweep as far as they are known, by number; `total` of them there will be."""

    jobs: Mapping[int, Record]
    total: int
    begun: float  # seconds since 1970
    unit: str = "job"  # what one of them is called


def announce(folder: Path, jobs: Mapping[int, Record], total: int, unit: str = "job") -> None:
    """Write down jobs that are about to be launched, beside those of before."""
    known = plan(folder)
    known = replace(known, jobs={**known.jobs, **jobs}, total=total)
    told = {"total": known.total, "begun": known.begun, "unit": unit}
    plain = [
        {"number": n, "key": job.key, "directory": job.directory, "overrides": job.overrides}
        for n, job in sorted(known.jobs.items())
    ]
    write_json(folder / JOBS, {**told, "jobs": plain})


def plan(folder: Path) -> Plan:
    """What was written down; nothing of a sweep of earlier code, or if it was harmed, with a note.

    The records then are all that is known.
    """
    path = folder / JOBS
    if not path.is_file():
        return Plan({}, 0, time.time())
    try:
        told = json.loads(path.read_bytes())
        jobs = {}
        for job in told["jobs"]:
            number = job.pop("number")
            jobs[_expect(number, int)] = _record({**job, "status": WAITING})
        unit = _expect(told.get("unit", "job"), str)
        return Plan(jobs, _expect(told["total"], int), _expect(told["begun"], float), unit)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        log.warning("%s was cut short or changed (%s): jobs without a record are unknown.",
            path, error)  # fmt: skip
        return Plan({}, 0, time.time())


@contextmanager
def kept(folder: Path, number: int, record: Record) -> Iterator[None]:
    """Keep a job's record from now, when it runs, to its end, as it is by then.

    A job of a search that has ended before and is only answered keeps the seconds that it took. To
    those of one that goes on, as when SLURM has queued it again, the earlier ones are added.
    """
    path, before = folder / f"{record.key}-{number}.json", None
    with _holding(path.with_suffix(".lock")):
        with suppress(DamagedError):
            before = read(path)
        goes_on = before is None or before.status in (*OPEN, INTERRUPTED)
        earlier = before.seconds if before and goes_on else 0.0
        if goes_on:
            write_json(path, asdict(replace(record, seconds=earlier)))
        try:
            yield
        finally:
            record.seconds += earlier
            if not goes_on and (before.status, before.value) == (record.status, record.value):
                record.seconds = before.seconds
            write_json(path, asdict(record))


@contextmanager
def launching(folder: Path) -> Iterator[None]:
    """While jobs of the sweep may be launched, those without a record wait.

    One of the processes that work on a search holds the lock.
    """
    with explaining_disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with _holding(folder / LOCK, seconds=0):
        yield


def is_alive(folder: Path, locks: Sequence[str] = ("*.lock",)) -> bool:
    """Whether somebody holds one of these locks: launches jobs of the sweep, or computes one.

    Args:
        locks: patterns of their files' names.
    """
    return any(_is_held(path) for each in locks for path in folder.glob(each))


@contextmanager
def _holding(path: Path, seconds: float = 2) -> Iterator[None]:
    """Hold a lock as far as the file system has any, and remove its file at the end."""
    lock = FileLock(path)
    with suppress(Timeout, OSError, NotImplementedError):
        lock.acquire(timeout=seconds)
    try:
        yield
    finally:
        if lock.is_locked:
            path.unlink(missing_ok=True)
        lock.release()


def _is_held(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: readers do not meet
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


def read(path: Path) -> Record:
    """A job's record.

    Raises:
        DamagedError: it is not what a job wrote.
    """
    try:
        return _record(json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DamagedError(f"{path} was cut short or changed: {error}.") from error


def _record(told: Any) -> Record:
    """From JSON; what later code may have added is passed over."""
    record = Record(**{each.name: told[each.name] for each in fields(Record) if each.name in told})
    for text in ("key", "directory", "overrides", "status", "reason", "host"):
        _expect(getattr(record, text), str)
    _expect(record.seconds, float)
    for number in (record.value, record.deviation, record.test):
        if number is not None:
            _expect(number, float)
    return record


def _expect(value: Any, kind: type) -> Any:
    """A finite number or a text, as JSON has it; else TypeError."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is float and is_number and math.isfinite(value):
        return value
    if kind is not float and isinstance(value, kind):
        return value
    raise TypeError(f"{value!r} is no {kind.__name__}")


def is_sweep(folder: Path) -> bool:
    """Whether a folder has a job of a sweep."""
    return (folder / JOBS).is_file() or any(NAME.fullmatch(path.name) for path in folder.iterdir())


def fail(folder: Path, number: int, record: Record, reason: str) -> None:
    """Write down of a job whose process was killed that it failed."""
    told = replace(record, status="failed", reason=reason)
    write_json(folder / f"{record.key}-{number}.json", asdict(told))


def rows(folder: Path) -> list[Record]:
    """Every job of a sweep, in the order of the jobs' numbers, as it is now."""
    return list(numbered(folder).values())


def numbered(folder: Path) -> dict[int, Record]:
    """The same by their numbers.

    A job without a record waits while its sweep's command lives, as one does that SLURM has queued
    again; later it is missing, as is one that was running and has lost its lock; or interrupted, if
    it has a checkpoint.
    """
    found, planned = {}, plan(folder).jobs
    absent = WAITING if _is_held(folder / LOCK) else MISSING
    for path in sorted(folder.glob("*-*.json")):
        if name := NAME.fullmatch(path.name):
            number = int(name["number"])
            # Two folders of one search that were merged: the plan says whose number it is.
            if number not in planned or planned[number].key == name["key"]:
                found[number] = _as_it_is(path, absent)
    for number, job in planned.items():
        if number not in found:
            found[number] = replace(job, status=absent)
        elif found[number].status == UNREADABLE:
            found[number] = replace(job, status=UNREADABLE)
    return {number: found[number] for number in sorted(found)}


def _as_it_is(path: Path, absent: str) -> Record:
    """A job's record now; `absent` is what one is that was not begun."""
    try:
        record = read(path)
    except DamagedError as error:
        log.warning("%s", error)
        return Record(path.name.rpartition("-")[0], "", "", UNREADABLE)
    lost = (RUNNING, WAITING) if absent == MISSING else (RUNNING,)  # unless the lock is held
    if record.status not in lost or _is_held(path.with_suffix(".lock")):
        return record
    with suppress(DamagedError):
        record = read(path)  # it may have ended between
    if record.status not in lost:
        return record
    is_begun = record.directory and RunDirectory(record.directory).checkpoint.is_file()
    return replace(record, status=INTERRUPTED if is_begun else MISSING)
