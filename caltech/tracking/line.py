"""A process's line to a store: opened when first used, left alone for a while when it is dead."""

import functools
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from caltech.errors import CaltechError, InputError, StoreError
from caltech.passwords import without_passwords
from caltech.runs.directory import RunDirectory
from caltech.tracking.address import (
    SECONDS,
    explained,
    has_finished,
    require_address,
    sqlite_path,
    store_name,
)
from caltech.tracking.description import of_directory
from caltech.tracking.note import Note

if TYPE_CHECKING:
    from caltech.tracking.store import Store

T = TypeVar("T")
log = logging.getLogger(__name__)

PAUSE_SECONDS = 5.0  # before a store that failed is tried again, at least
BACK_OFF = 50  # a store that failed is left alone for so many times as long as that took
LATER = "python -m caltech.tracking study=NAME"


@functools.cache
def line_to(uri: str, experiment: str, artifacts: str | None) -> "Line":
    """The one of this process.

    Raises:
        InputError: the address cannot be that of a store.
    """
    require_address(uri)
    # Read by MLflow when it is imported, or at each request. A user's own value stays.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # the line tries again
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(SECONDS))
    if sqlite_path(uri) is not None:  # no connection outlives a file that is removed
        os.environ.setdefault("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", "NullPool")
    return Line(uri, experiment, artifacts)


@dataclass
class Line:
    """This process's line to one store: opened when first used, left alone for a while if dead."""

    uri: str
    experiment: str
    artifacts: str | None
    store: "Store | None" = None
    is_dead: bool = False
    next_try: float = -1e9  # by time.monotonic

    def require(self, action: "Callable[[Store], Any]") -> None:
        """Do something with the store.

        Raises:
            InputError: the store cannot be used.
        """
        try:
            self.use(action)
        except CaltechError as error:
            raise InputError(
                f"The tracking store {without_passwords(self.uri)} cannot be used: {error}. Type "
                "tracking.uri= with another one, or tracking=none to train without it; then "
                f"{LATER} tells a store of the run later."
            ) from error

    def attempt(self, action: "Callable[[Store], Any]", is_last: bool = False) -> bool:
        """Do it if the store can be used; one warning if not, however often it is tried then.

        Returns: whether it is done. What is not told is in the directories, for later.
        """
        start = time.monotonic()
        if start < self.next_try and not is_last:
            return False
        try:
            self.use(action)
        except StoreError as error:
            now = time.monotonic()
            self.next_try = now + max(PAUSE_SECONDS, BACK_OFF * (now - start))
            if not self.is_dead:
                log.warning(
                    "The tracking store %s is not told: %s. Nothing is lost, and nothing waits for "
                    "it: it is told later, as soon as it can be used again, by the same command "
                    "typed again, or by %s.", without_passwords(self.uri), error, LATER,
                )  # fmt: skip
            self.is_dead, self.store = True, None
            return False
        except CaltechError as error:  # of the run's directory
            log.warning("No tracking store is told of it: %s", error)
            return False
        if self.is_dead:
            log.info("The tracking store %s can be used again.", without_passwords(self.uri))
        self.is_dead, self.next_try = False, -1e9
        return True

    def has_told(self, directory: RunDirectory) -> bool:
        """Whether the store has all of a finished run; False where that takes MLflow to tell."""
        run_id = directory.id if directory.result.is_file() else None
        if run_id is None or not directory.description.is_file():
            return False
        name = store_name(self.uri, self.experiment)
        told = Note.read(directory, run_id).stores.get(name)
        with suppress(CaltechError):  # which is told where the directory is copied
            is_same = told is not None and told.described == of_directory(directory).sum
            return is_same and has_finished(self.uri, told.run_id)
        return False

    def use(self, action: "Callable[[Store], T]") -> T:
        """Do something with the store, which is opened if it is not.

        Raises:
            StoreError: the store cannot be used.
        """
        with explained(self.uri):
            if self.store is None:
                from caltech.tracking.store import Store  # imports MLflow, which takes a second

                self.store = Store(self.uri, self.experiment, self.artifacts)
            return action(self.store)
