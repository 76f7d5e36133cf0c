"""Where studies of Optuna's are kept: a database, or a journal in a directory that is shared.

`storage=` is an URL of Optuna's (SQLite on one machine, PostgreSQL for many), or journal://PATH.
"""

import functools
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock
from optuna.exceptions import StorageInternalError
from optuna.storages.journal import JournalFileBackend, JournalStorage
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from caltech.errors import CaltechError, InputError
from caltech.passwords import without_passwords

log = logging.getLogger(__name__)

JOURNAL = "journal://"
ANSWERS_WITHIN = 10  # seconds that a server may take to answer, SQLite's lock six times as long
# How long a connection may take to be made, and when one is given up whose host is silent.
DETAILS = {
    "postgresql": {
        "connect_timeout": ANSWERS_WITHIN, "keepalives_idle": ANSWERS_WITHIN,
        "keepalives_interval": 5, "keepalives_count": 4, "tcp_user_timeout": 30_000,
    },
    "sqlite": {"timeout": 6 * ANSWERS_WITHIN},
    "mysql": {"connect_timeout": ANSWERS_WITHIN},
}  # fmt: skip
DRIVERS = ("psycopg", "psycopg2", "pymysql", "mysqldb", "pysqlite")  # that know these words
PATIENCE = (1, 2, 4, 8, 15, 30, 60)  # seconds between attempts, once a study is open
OUTAGES = (StorageInternalError, SQLAlchemyError, OSError)


class OutageError(CaltechError):
    """A study's storage does not answer any more."""


def names(url: str) -> list[str]:
    """Studies that a storage has.

    Raises:
        InputError: it cannot be opened.
    """
    with _explained(url):
        return optuna.get_all_study_names(_storage(url, os.getpid()))


def study(name: str, url: str, pruner: optuna.pruners.BasePruner | None = None) -> optuna.Study:
    """The study of this name, created if it is not there.

    Raises:
        InputError: the storage cannot be opened.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with _explained(url):
        return optuna.create_study(
            storage=_storage(url, os.getpid()), pruner=pruner, study_name=name,
            direction="maximize", load_if_exists=True,
            sampler=optuna.samplers.RandomSampler(),  # of no effect: proposals.py has the sampler
        )  # fmt: skip


def patiently(call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """The call's answer, also if the storage does not answer for a minute or two.

    Raises:
        OutageError: it did not for longer.
    """
    for seconds in (*PATIENCE, None):
        try:
            return call(*args, **kwargs)
        except (InputError, *OUTAGES) as error:
            reason = error.__cause__ if isinstance(error, InputError) else error
            if not isinstance(reason, OUTAGES):
                raise
            told = first_line(reason)
        if seconds is not None:
            log.warning("The study's storage does not answer (%s): again in %d s.", told, seconds)
            time.sleep(seconds)
    raise OutageError(
        f"The study's storage does not answer: {told}. What was computed is in its directories; "
        "the same command goes on once the storage answers."
    )


@functools.cache
def _storage(url: str, process: int) -> optuna.storages.BaseStorage:
    """One a process: opening it takes a tenth of a second."""
    if url.startswith(JOURNAL):
        path = Path(url.removeprefix(JOURNAL)).expanduser()
        path.parent.mkdir(parents=True, exist_ok=True)
        return JournalStorage(JournalFileBackend(str(path), lock_obj=JournalLock(path)))
    kind, driver = make_url(url).get_backend_name(), make_url(url).get_driver_name()
    own = DETAILS.get(kind, {}) if driver in DRIVERS else {}
    details = {"connect_args": own, "pool_pre_ping": kind != "sqlite"}
    return optuna.storages.get_storage(optuna.storages.RDBStorage(url, engine_kwargs=details))


class JournalLock:
    """A lock of the file system, which lets go of a dead process's at once.

    Optuna's own is a link that stays, and is taken away from whoever holds it for 30 s. What a full
    disk has cut is removed before more is written: a journal with half a line cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.lock = path, FileLock(f"{path}.held", fallback_to_soft=False)

    def acquire(self) -> bool:
        self.lock.acquire()
        with self.path.open("rb+") as file:
            end = file.seek(0, os.SEEK_END)
            if end and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":
                start = max(end - 2**20, 0)  # one line is a few hundred bytes
                file.seek(start)
                file.truncate(start + file.read().rfind(b"\n") + 1)
        return True

    def release(self) -> None:
        self.lock.release()


@contextmanager
def _explained(url: str) -> Iterator[None]:
    """What any database driver raises becomes one InputError."""
    try:
        yield
    except Exception as error:
        advice = (
            "Type storage= with an URL that Optuna takes, for example sqlite:////tmp/optuna.db, or "
            "journal:///shared/optuna.log."
        )
        if isinstance(error, ImportError):
            advice = "Install the driver of that database."
            if url.startswith("postgres"):
                advice = "Type postgresql+psycopg://..., and: pip install 'caltech[postgresql]'"
        raise InputError(
            f"Cannot open Optuna's storage {without_passwords(url)}: {first_line(error)}. {advice}"
        ) from error


def first_line(error: Exception) -> str:
    """What went wrong; Optuna says of whatever a database raises that its data may be invalid."""
    if isinstance(error, StorageInternalError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return without_passwords([*str(error).splitlines(), type(error).__name__][0].rstrip("."))
