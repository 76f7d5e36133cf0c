"""Sweeps: what became of each job, told when it happens and in one table at the end.

A sweep is its folder, `STUDY/sweeps/SWEEP/`, which reaches its jobs by the environment.
"""

import gc
import logging
import os
import shutil
import socket
import sys
import tempfile
import time
import traceback
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from hydra.core.override_parser.types import Quote, QuotedString
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, read_write
from omegaconf.errors import OmegaConfBaseException

from caltech.amounts import counted
from caltech.config import build
from caltech.errors import CaltechError, InputError, queued_again
from caltech.files import remove_leftovers
from caltech.passwords import without_passwords
from caltech.settings import require_allowed, require_fixed, require_resolved
from caltech.sweeps import line, lists, records, search, table
from caltech.sweeps.place import VARIABLE, require_place, sweep
from caltech.sweeps.records import WAITING, Record
from caltech.sweeps.study import plots, trials
from caltech.sweeps.sweepers import GRID, require_launcher, require_search, require_workers

log = logging.getLogger(__name__)


@contextmanager
def recorded(cfg: DictConfig, overrides: Sequence[str], job: DictConfig) -> Iterator[Record]:
    """Time a job and keep how it ended; a failure is told at once, with its directory.

    `job` is Hydra's: two jobs of a sweep may come to one key and have a record each.
    """
    record = Record(cfg.key, cfg.directory, without_passwords(" ".join(overrides)))
    record.host, folder, start = socket.gethostname(), sweep(), time.perf_counter()
    with records.kept(folder, job.num, record) if folder else nullcontext():
        try:
            yield record
        except Exception as error:
            record.status, record.reason = "failed", f"{type(error).__name__}: {error}"
            let_go(error)
            if folder is not None:
                log.error("FAILED %s (%s)\n  %s", record.overrides, cfg.directory, record.reason)
            elif isinstance(error, CaltechError):
                _remove_empty(Path(cfg.directory))
            raise
        except BaseException as error:
            record.status = WAITING if queued_again(error) else "interrupted"
            raise
        finally:
            record.seconds = time.perf_counter() - start
            if cfg.dry_run:
                _remove_empty(Path(cfg.directory))
    if folder is not None and not cfg.dry_run:
        line.tell(folder)


def let_go(error: BaseException | None) -> None:
    """Free what the functions that raised an error held: a model, its data, its optimizer.

    Hydra keeps the errors of all jobs to the end of a sweep, and an error keeps the variables of
    every function that it went through. Its text and the places in a traceback stay.
    """
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        _clear_callers(error.__traceback__)
        error = error.__cause__ or error.__context__
    gc.collect()  # a network and its optimizer refer to each other


def _clear_callers(trace: TracebackType | None) -> None:
    """Those of the function that caught an error, up to the first that runs still.

    A traceback begins where the error was caught, and its frame holds the callers with all that
    they hold: of Hydra's, the whole config of a job.
    """
    frame = trace.tb_frame.f_back if trace else None
    with suppress(RuntimeError):  # it runs still
        while frame is not None:
            frame.clear()
            frame = frame.f_back


def _remove_empty(directory: Path) -> None:
    """Hydra makes a job's directory before it runs; where no work was done none is left."""
    with suppress(OSError):
        directory.rmdir()
        directory.parent.rmdir()


class NameSweep(Callback):
    """Hydra's callback at the start of a command, before it makes any folder, and after each job.

    A command that would write elsewhere than in its study ends here. A multirun gets a folder and a
    study for its sweep.
    """

    config: DictConfig  # of the sweep, without the values that are swept over
    open = ExitStack()  # what ends with the sweep
    failed: BaseException | None = None  # of the job before
    started = 0  # jobs in this process
    made: Sequence[Path] = ()  # what Hydra writes for the study before a job is launched

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        # A value that is missing or refers to nothing is told by the job.
        with _ending_the_command(), suppress(OmegaConfBaseException):
            _require_single(config)
            require_workers(config)
            require_place(config)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        with _ending_the_command():
            path = str(_begin(config).absolute())
            written = Path(config.hydra.sweep.dir, "multirun.yaml")
            NameSweep.made = [] if written.exists() else [written]
            NameSweep.open.enter_context(records.launching(Path(path)))
        os.environ[VARIABLE], NameSweep.config = path, config
        # Jobs that a daemon starts do not inherit this environment: Hydra sets it in each.
        value = QuotedString(path, Quote.single).with_quotes()
        own = [f"+hydra.job.env_set.{VARIABLE}={value}"]
        with read_write(config.hydra):
            if config.hydra.runtime.choices["hydra/sweeper"] == "basic":
                config.hydra.sweeper._target_ = GRID
                own.append(f"hydra.sweeper._target_={GRID}")  # a job's config is to agree
            config.hydra.overrides.hydra.extend(own)

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        let_go(NameSweep.failed)  # Hydra's functions, too, have ended by now
        if NameSweep.started < 2:  # libraries have been imported by then, and are not garbage:
            gc.freeze()  # to look at their 700,000 objects would take 0.3 s before each job
        NameSweep.started += 1
        if config.hydra.runtime.choices["hydra/sweeper"] == "optuna":
            line.quieten()

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        job_return.cfg = job_return.hydra_cfg = None  # kept to the end of a sweep, read by nobody
        ended_by = job_return._return_value  # what a job that failed raised
        NameSweep.failed = ended_by if isinstance(ended_by, BaseException) else None


@contextmanager
def _ending_the_command() -> Iterator[None]:
    """End it by any error: Hydra would make a warning and go on."""
    try:
        yield
    except (CaltechError, OmegaConfBaseException, OSError) as error:
        print(f"error: {str(error).splitlines()[0]}", file=sys.stderr)
        raise SystemExit(1) from error
    except Exception as error:
        traceback.print_exc()
        raise SystemExit(1) from error


def _require_single(config: DictConfig) -> None:
    """Raise InputError for what only a multirun can do, and which would be passed over."""
    choices = config.hydra.runtime.choices
    plain = {"sweep": None, "hydra/sweeper": "basic", "hydra/launcher": "basic"}
    asked = [f"{name}={choices[name]}" for name in plain if choices.get(name) != plain[name]]
    parts = ("hydra.sweeper.", "hydra.launcher.", "hydra.sweep.")
    asked += [
        typed for typed in config.hydra.overrides.hydra if typed.lstrip("+~").startswith(parts)
    ]
    if asked:
        raise InputError(
            f"{asked[0]} is for a sweep; this is one run. Type --multirun, too, or leave it out."
        )


def _begin(config: DictConfig) -> Path:
    """Folder of the sweep that is about to start; of a dry run, one that will not stay.

    Raises:
        InputError: a dry run of a search, whose points are not known beforehand; a search that
            cannot be; a place outside of the study.
    """
    for node in (config.tracking, config.pruner):
        require_resolved(node)
    require_place(config)
    require_allowed("workers", config.workers)
    choices = config.hydra.runtime.choices
    searches = (sweeper := choices["hydra/sweeper"]) == "optuna"
    if sweeper not in ("basic", "optuna"):
        raise InputError(
            f"hydra/sweeper={sweeper} is not for use here. Leave it out for a grid, or type "
            "hydra/sweeper=optuna for a search."
        )
    require_launcher(config.hydra.launcher)
    if searches:
        require_search(config.hydra.sweeper)
    else:
        require_fixed(config, {*lists.columns(), *(config.hydra.sweeper.params or {})})
    require_workers(config)
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
    if searches:
        return search.prepare(config, sweeps)
    for earlier in sweeps.glob("*"):  # killed while it wrote a record
        remove_leftovers(earlier)
    path = sweeps / f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{uuid.uuid4().hex[:6]}"
    if choices["pruner"] != "none":
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
        NameSweep.open.close()  # nothing is launched from now on
        path = sweep()
        os.environ.pop(VARIABLE, None)
        if path is not None:
            jobs = records.rows(path)
            if jobs and not NameSweep.config.dry_run:  # what is printed may find no room
                table.keep(path, jobs)
            if jobs:
                line.draw_last(path)
                table.show(jobs)
                if NameSweep.config.dry_run and (seeds := NameSweep.config.seeds):
                    runs = counted(seeds, "run")
                    print(f"seeds={seeds}: each is {runs}; its key is that of seed 0")
            searches = NameSweep.config.hydra.runtime.choices["hydra/sweeper"] == "optuna"
            if (not jobs and not searches) or NameSweep.config.dry_run:
                shutil.rmtree(path)
                for written in NameSweep.made:
                    written.unlink(missing_ok=True)
                _remove_empty(path.parent)
            elif jobs:  # the folder of a search may be another process's, too
                _tell_where_drawn(path, NameSweep.config)


def _tell_where_drawn(path: Path, config: DictConfig) -> None:
    try:
        if drawn := plots.plot(path, config.storage):
            print(f"plots: {', '.join(plot.name for plot in drawn)} in {path}")
        if link := build(config.tracking).charts(path.name):
            from caltech.tracking.address import is_server  # imports SQLAlchemy

            started = "" if is_server(config.tracking.uri) else " (caltech ui starts its page)"
            print(f"compare in MLflow{started}: {link}")
    except CaltechError as error:  # the jobs' own failures are not to be hidden by this one
        log.warning("No plots or no link to MLflow: %s", error)
