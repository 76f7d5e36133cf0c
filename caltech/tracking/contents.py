"""What a run's directory holds for a store: who it is, its epochs with their times, its result."""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caltech.errors import OF_ANOTHER_SHAPE, CaltechError, DamagedError, InputError
from caltech.files import read_sealed_json
from caltech.metrics import METRICS, final
from caltech.runs import checkpoint
from caltech.runs.directory import RunDirectory
from caltech.runs.result import Result
from caltech.tracking.description import Description, of_directory

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Point:
    """Numbers of one step of a run's charts, and when they were known, in ms since 1970."""

    epoch: int
    ended: int
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class Contents:
    """Of one run's directory, at one moment. Times are in ms since 1970 and never change."""

    id: str
    description: Description
    started: int
    points: Sequence[Point]  # of whole epochs, in their order
    result: Result | None
    ended: int | None  # of a run with a result

    @property
    def last_point(self) -> Point:
        """The numbers that a finished run came to, in its last epoch."""
        metrics = final(self.result.last, self.result.best)
        return Point(self.result.last["epoch"], self.ended, metrics)


def read(directory: RunDirectory, live: Sequence[Mapping[str, float]] | None = None) -> Contents:
    """What a directory holds now.

    Args:
        live: the epochs so far, of the process that trains the run: history.json may be some
            seconds behind.

    Raises:
        InputError: no run was begun there, or it has no id yet.
        DamagedError: a file is not as the run wrote it.
    """
    if (run_id := directory.id) is None:
        raise InputError(f"{directory} has no identity.json.")
    try:
        return _read(directory, run_id, live)
    except OF_ANOTHER_SHAPE as error:
        raise DamagedError(
            f"{directory} has a file that holds other values than its run wrote "
            f"({type(error).__name__}: {error})."
        ) from error


def _read(
    directory: RunDirectory, run_id: str, live: Sequence[Mapping[str, float]] | None
) -> Contents:
    description, result = of_directory(directory), None
    if live is None:
        result = Result.read(directory, pruned_too=True)
    history = _history(directory, description.tags["key"], result, live)
    epochs, started, ended = history["epochs"], history.get("started"), history.get("ended")
    if result is not None and ended is None:
        ended = _modified(directory.result)
    if started is None:
        started = _modified(directory.config)
        started = started if ended is None else min(started, ended - _training_time(directory))
    points = [
        Point(
            epoch=int(epoch["epoch"]),
            ended=epoch.get("ended") or _guessed(started, ended, number, epochs),
            metrics={name: epoch[name] for name in METRICS if name in epoch},
        )
        for number, epoch in enumerate(epochs, 1)
    ]
    return Contents(run_id, description, started, points, result, ended)


def _history(
    directory: RunDirectory,
    key: str,
    result: Result | None,
    live: Sequence[Mapping[str, float]] | None,
) -> Mapping[str, Any]:
    """As history.json has it; of earlier code, which wrote none, what the checkpoint says, or the
    result's two epochs."""
    kept = None
    try:
        kept = read_sealed_json(directory.history) if directory.history.is_file() else None
    except DamagedError as error:
        log.warning("%s", error)
    if live is not None:
        return {"started": (kept or {}).get("started"), "epochs": live}
    try:
        kept = kept or checkpoint.load(directory.checkpoint, key, {})
    except (CaltechError, OSError) as error:
        log.warning("%s", error)
    if kept is not None:
        return {"epochs": kept.get("history"), **kept}
    known = {each["epoch"]: each for each in (result.best, result.last)} if result else {}
    return {"epochs": sorted(known.values(), key=lambda each: each["epoch"])}


def _guessed(started: int, ended: int | None, number: int, epochs: Sequence) -> int:
    """When an epoch of earlier code ended, which noted no time: always the same answer."""
    if ended is None or "ended" in epochs[-1]:  # newer code goes on with it, or went
        return started + number
    return started + (ended - started) * number // len(epochs)


def _training_time(directory: RunDirectory) -> int:
    """For how long a run trained, in ms; 0 if that is not known."""
    try:
        return int(1000 * json.loads(directory.timing.read_text())["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def _modified(path: Path) -> int:
    """In ms since 1970; now, if it is not there."""
    try:
        return path.stat().st_mtime_ns // 1_000_000
    except OSError:
        return int(time.time() * 1000)
