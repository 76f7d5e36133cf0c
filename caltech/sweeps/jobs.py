"""Sweeps: what became of each job, told when it happens and in one table at the end.

A sweep is its folder, `STUDY/sweeps/SWEEP/`, which reaches its jobs by the environment. Each leaves
a record there, a file of its own, so that jobs on other machines need no agreement.
"""

import json
import logging
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import Quote, QuotedString
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, read_write

from caltech.config import build
from caltech.errors import CaltechError, InputError
from caltech.files import remove_leftovers, without_passwords, write_json
from caltech.runs.result import FINISHED
from caltech.settings import require_resolved
from caltech.sweeps import trials

log = logging.getLogger(__name__)

VARIABLE = "CALTECH_SWEEP"


@dataclass
class Record:
    """One job; `value` is its objective, the best validation accuracy (mean over seeds)."""

    key: str
    directory: str
    overrides: str
    status: str = FINISHED
    value: float | None = None
    seconds: float = 0.0
    reason: str = ""


@contextmanager
def recorded(cfg: DictConfig, overrides: Sequence[str], job: DictConfig) -> Iterator[Record]:
    """Time a job and keep how it ended; a failure is told at once, with its directory.

    `job` is Hydra's: two jobs of a sweep may come to one key and have a record each.
    """
    record = Record(cfg.key, cfg.directory, without_passwords(" ".join(overrides)))
    start = time.perf_counter()
    try:
        yield record
    except Exception as error:
        record.status, record.reason = "failed", f"{type(error).__name__}: {error}"
        if sweep() is not None:
            log.error("FAILED %s (%s)\n  %s", record.overrides, cfg.directory, record.reason)
        elif isinstance(error, CaltechError):
            _remove_empty(Path(cfg.directory))
        raise
    except BaseException:
        record.status = "interrupted"
        raise
    finally:
        record.seconds = time.perf_counter() - start
        if cfg.dry_run:
            _remove_empty(Path(cfg.directory))
        if path := sweep():
            write_json(path / f"{record.key}-{job.num}.json", asdict(record))


def _remove_empty(directory: Path) -> None:
    """Hydra makes a job's directory before it runs; where no work was done none is left."""
    with suppress(OSError):
        directory.rmdir()
        directory.parent.rmdir()


def sweep() -> Path | None:
    """Folder of the sweep that this process works for; None in a single run."""
    return Path(os.environ[VARIABLE]) if VARIABLE in os.environ else None


class NameSweep(Callback):
    """Hydra's callback at the start of a multirun: gives the sweep a folder and a study."""

    config: DictConfig  # of the sweep, without the values that are swept over

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        try:
            path = str(_begin(config).absolute())
        except CaltechError as error:  # of any other, Hydra would make a warning and go on
            raise SystemExit(f"error: {error}") from error
        os.environ[VARIABLE], NameSweep.config = path, config
        # Jobs that a daemon starts do not inherit this environment: Hydra sets it in each.
        value = QuotedString(path, Quote.single).with_quotes()
        overrides = config.hydra.overrides.hydra
        with read_write(overrides):
            overrides.append(f"+hydra.job.env_set.{VARIABLE}={value}")


def _begin(config: DictConfig) -> Path:
    """Folder of the sweep that is about to start; of a dry run, one that will not stay.

    Raises:
        InputError: a dry run of a search, whose points are not known beforehand.
    """
    for node in (config.tracking, config.pruner):
        require_resolved(node)
    choices = config.hydra.runtime.choices
    searches = choices["hydra/sweeper"] == "optuna"
    if config.dry_run:
        if searches:
            raise InputError(
                "dry_run=true lists the jobs of a grid; a search chooses each trial by the "
                "results of those before. Type the values to list, for example lr=1e-1,1e-2."
            )
        path = tempfile.mkdtemp(prefix="caltech-dry-run-")
        with read_write(config.hydra):
            config.hydra.sweep.dir = path  # Hydra writes its multirun.yaml there
        return Path(path)
    build(config.tracking).open(Path(config.output), is_needed=True)
    sweeps = Path(config.output) / config.study / "sweeps"
    for earlier in sweeps.glob("*"):  # killed while it wrote a record
        remove_leftovers(earlier)
    path = sweeps / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:6]}"
    if searches or choices["pruner"] != "none":
        trials.prepare(config, path)
    return path


@contextmanager
def summarised() -> Iterator[None]:
    """Print a multirun's table however it ends: Hydra calls nothing if a job failed.

    The table and the plots of the sweep's study are kept in its folder, a dry run's nowhere.
    """
    try:
        yield
    finally:
        path = sweep()
        os.environ.pop(VARIABLE, None)
        if path is not None and (jobs := records(path)):
            print(table(jobs))
            if NameSweep.config.dry_run:
                shutil.rmtree(path)
            else:
                (path / "table.txt").write_text(table(jobs) + "\n")
                _tell_where_drawn(path, NameSweep.config)


def _tell_where_drawn(path: Path, config: DictConfig) -> None:
    if plots := trials.plot(path, config.storage):
        print(f"plots: {', '.join(plot.name for plot in plots)} in {path}")
    try:
        if link := build(config.tracking).charts(path.name):
            print(f"compare in MLflow: {link}")
    except CaltechError as error:  # the jobs' own failures are not to be hidden by this one
        log.warning("No link to MLflow: %s", error)


def records(folder: Path) -> list[Record]:
    """Of the jobs that ended, in order of their end."""
    files = sorted(folder.glob("*-*.json"), key=lambda path: path.stat().st_mtime_ns)
    return [Record(**json.loads(path.read_text())) for path in files]


def table(jobs: Sequence[Record]) -> str:
    """One line a job, with the overrides that not all jobs have; the best is marked."""
    typed = [job.overrides.split(" ") for job in jobs]
    shared = set.intersection(*map(set, typed)) if len(jobs) > 1 else set()
    values = [job.value for job in jobs if job.value is not None]
    lines = [("key", "status", "val accuracy", "seconds", "overrides")]
    for job, overrides in zip(jobs, typed, strict=True):
        own = " ".join(override for override in overrides if override not in shared)
        accuracy = "" if job.value is None else f"{job.value:.4f}"
        best = " best" if values and job.value == max(values) else ""
        lines.append((job.key, job.status, accuracy + best, f"{job.seconds:.1f}", own))
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    return "\n".join("  ".join(map(str.ljust, line, [*widths, 0])) for line in lines)
