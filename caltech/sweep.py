"""Sweeps: what became of each job, told when it happens and in one table at the end.

Each job leaves a record in `STUDY/sweeps/SWEEP/`, a file of its own, so that jobs in other
processes and on other machines need no agreement. The folder reaches them by the environment.
"""

import json
import logging
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from caltech.errors import CaltechError
from caltech.files import remove_leftovers
from caltech.run import write_json

log = logging.getLogger(__name__)

VARIABLE = "CALTECH_SWEEP"


@dataclass
class Record:
    """One job; `value` is its objective, the best validation accuracy (mean over seeds)."""

    key: str
    directory: str
    overrides: str
    status: str = "finished"
    value: float | None = None
    seconds: float = 0.0
    reason: str = ""


@contextmanager
def recorded(cfg: DictConfig, overrides: Sequence[str]) -> Iterator[Record]:
    """Time a job and keep how it ended; a failure is told at once, with its directory."""
    record = Record(cfg.key, cfg.directory, " ".join(overrides))
    start = time.perf_counter()
    try:
        yield record
    except Exception as error:
        record.status, record.reason = "failed", f"{type(error).__name__}: {error}"
        if VARIABLE in os.environ:
            log.error("FAILED %s (%s)\n  %s", record.overrides, cfg.directory, record.reason)
        elif isinstance(error, CaltechError):
            # Hydra has made the directory; a run refused before any work leaves none behind.
            with suppress(OSError):
                Path(cfg.directory).rmdir()
                Path(cfg.directory).parent.rmdir()
        raise
    except BaseException:
        record.status = "interrupted"
        raise
    finally:
        record.seconds = time.perf_counter() - start
        if VARIABLE in os.environ:
            write_json(Path(os.environ[VARIABLE]) / f"{record.key}.json", asdict(record))


class NameSweep(Callback):
    """Hydra's callback at the start of a multirun: gives the sweep a folder for its records."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        sweeps = Path(config.output) / config.study / "sweeps"
        for earlier in sweeps.glob("*"):
            remove_leftovers(earlier)
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:6]}"
        os.environ[VARIABLE] = str(sweeps / name)


@contextmanager
def summarised() -> Iterator[None]:
    """Print a multirun's table however it ends: Hydra calls nothing if a job failed."""
    try:
        yield
    finally:
        folder = os.environ.pop(VARIABLE, None)
        if folder is not None and Path(folder).is_dir():
            print(table(records(Path(folder))))


def records(folder: Path) -> list[Record]:
    """Of the jobs that ended, in order of their end."""
    files = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    return [Record(**json.loads(path.read_text())) for path in files]


def table(jobs: Sequence[Record]) -> str:
    """One line a job; the best is marked."""
    values = [job.value for job in jobs if job.value is not None]
    lines = [("key", "status", "val accuracy", "seconds", "overrides")]
    for job in jobs:
        accuracy = "" if job.value is None else f"{job.value:.4f}"
        best = " best" if values and job.value == max(values) else ""
        lines.append((job.key, job.status, accuracy + best, f"{job.seconds:.1f}", job.overrides))
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    return "\n".join(
        "  ".join([*(c.ljust(w) for c, w in zip(line, widths, strict=False)), line[4]])
        for line in lines
    )
