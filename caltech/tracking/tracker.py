"""Trackers: who tells a store what the directories of runs hold, while they train and after."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

from omegaconf import DictConfig

from caltech.config import build
from caltech.errors import HeldError, InputError, queued_again
from caltech.files import remove
from caltech.runs.directory import RunDirectory
from caltech.runs.progress import Tally
from caltech.tracking.description import Description, describe
from caltech.tracking.note import End

if TYPE_CHECKING:
    from caltech.tracking.line import Line
    from caltech.tracking.store import Store

log = logging.getLogger(__name__)

NOBODY = "tracking=none tells nobody. Type tracking=mlflow tracking.uri=ADDRESS."
FLUSH_SECONDS = 5.0  # between two copies of a run that trains


@contextmanager
def refusal_recorded(
    cfg: DictConfig,
    choices: Mapping[str, str | None],
    overrides: Sequence[str],
    sweep: Path | None,
) -> Iterator[None]:
    """Have the tracker told of a sweep's job that fails before it has a run of its own."""
    try:
        yield
    except Exception as error:
        is_well = isinstance(error, HeldError)  # the run, in another process
        if sweep is not None and not is_well:
            try:
                described = describe(cfg, choices, overrides, sweep, None)
                build(cfg.tracking).record_refusal(described, error)
            except Exception as second:
                log.warning("The tracker could not be told of the failure: %s", second)
        raise


class Watch(AbstractContextManager):
    """An observer of one training, from its start to its end; this one tells nobody.

    However a training ends, its directory says so.
    """

    prunes = False

    def __init__(self, directory: RunDirectory) -> None:
        self.directory = directory

    def __enter__(self) -> Self:
        remove(self.directory.ended)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        if error is None or isinstance(error, HeldError) or not self.directory.path.is_dir():
            return  # or the run is another process's now, or elsewhere
        try:
            _end_by(error).write(self.directory)
        except Exception as second:  # the first is what the user is to see
            log.warning("%s could not be written: %s", self.directory.ended, second)

    def step(self, tally: Tally) -> None:
        """No tracker is told of steps."""

    def epoch(self, history: Sequence[Mapping[str, float]]) -> bool:
        """The epochs so far, which are in the directory already."""
        return False


class NoRun:
    """The tracker of tracking=none, and what others can do."""

    def open(self, output: Path | None, is_needed: bool) -> None:
        """Before any work: see that the store can be used, and close what died in it.

        Args:
            output: folder of the studies; None closes nothing.
            is_needed: otherwise a store that cannot be used is a warning.

        Raises:
            InputError: it cannot be used; says what to type.
        """

    def watch(self, directory: RunDirectory, is_needed: bool) -> Watch:
        """An observer that tells of a training while it goes on."""
        return Watch(directory)

    def tell(self, directory: RunDirectory, is_last: bool) -> None:
        """Tell what a run's directory holds, and the store does not have.

        Args:
            is_last: nothing follows in this process: a store that failed is tried once more.
        """

    def send(self, directory: RunDirectory) -> bool | None:
        """The same at once, and told: whether there was anything; None of a run that trains.

        Raises:
            StoreError: the store cannot be used.
            DamagedError: a file of the run is not as it was written.
        """
        raise InputError(NOBODY)

    def record_refusal(self, description: Description, error: Exception) -> None:
        """A job of a sweep failed, perhaps before it had a run."""

    def charts(self, sweep: str) -> str | None:
        """Address of a page that compares the runs of a sweep."""


class MlflowRun(NoRun):
    """Keeps in an MLflow store what the directories of runs hold.

    Args:
        uri: tracking store, for example sqlite:////tmp/mlflow.db or http://host:5000.
        experiment: MLflow's name for what holds all runs.
        artifacts: folder for artifacts. A tracking server has a place of its own.
    """

    def __init__(self, uri: str, experiment: str, artifacts: str | None) -> None:
        from caltech.tracking.line import line_to  # imports SQLAlchemy

        self.line = line_to(uri, experiment, artifacts)

    def open(self, output: Path | None, is_needed: bool) -> None:
        from caltech.tracking import copying

        def close(store: "Store") -> None:
            if output is not None:
                copying.close_abandoned(store, output)

        (self.line.require if is_needed else self.line.attempt)(close)

    def watch(self, directory: RunDirectory, is_needed: bool) -> Watch:
        return MlflowWatch(self.line, directory, is_needed)

    def tell(self, directory: RunDirectory, is_last: bool) -> None:
        if not self.line.has_told(directory):
            from caltech.tracking import copying

            self.line.attempt(lambda store: copying.send(store, directory), is_last)

    def send(self, directory: RunDirectory) -> bool | None:
        from caltech.tracking import copying

        return self.line.use(lambda store: copying.send(store, directory))

    def record_refusal(self, description: Description, error: Exception) -> None:
        self.line.attempt(lambda store: store.refuse(description, _end_by(error)))

    def charts(self, sweep: str) -> str | None:
        # A database has no address of its own: that of `caltech ui`.
        uri = self.line.uri
        server = uri.rstrip("/") if uri.startswith("http") else "http://127.0.0.1:5000"
        if not self.line.attempt(lambda store: None):
            return None
        found = quote(f'tags.sweep = "{sweep}"')
        return (
            f"{server}/#/experiments/{self.line.store.experiment_id}/runs"
            f"?workflowType=machine_learning&compareRunsMode=CHART&searchFilter={found}"
        )


class MlflowWatch(Watch):
    """Copies the directory to the store: at the start, every few seconds, and if it fails.

    A run that ends well is told when its result is written (MlflowRun.tell).
    """

    def __init__(self, line: "Line", directory: RunDirectory, is_needed: bool) -> None:
        super().__init__(directory)
        self.line, self.is_needed = line, is_needed
        self.history: Sequence[Mapping[str, float]] = ()
        self.run_id: str | None = None
        self.told = time.monotonic()

    def __enter__(self) -> Self:
        before, self.run_id = End.read(self.directory), self.directory.id
        super().__enter__()
        try:
            (self.line.require if self.is_needed else self.line.attempt)(self._send)
        except BaseException:
            if before is not None:  # it does not go on, and this may be untold yet
                before.write(self.directory)
            raise
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        super().__exit__(kind, error, trace)
        if error is None or isinstance(error, HeldError):
            return
        if self.directory.path.is_dir():
            self.line.attempt(self._send, is_last=True)
        elif self.run_id is not None:
            from caltech.tracking import copying

            end, run_id = _end_by(error), self.run_id
            self.line.attempt(lambda store: copying.close_lost(store, run_id, end), is_last=True)

    def epoch(self, history: Sequence[Mapping[str, float]]) -> bool:
        self.history = history
        if not self.directory.path.is_dir():
            return False  # the next checkpoint cannot be written, and says so
        if time.monotonic() - self.told > FLUSH_SECONDS:
            self.line.attempt(self._send)
            self.told = time.monotonic()
        return False

    def _send(self, store: "Store") -> None:
        from caltech.tracking import copying

        copying.send(store, self.directory, self.history)


def _end_by(error: BaseException) -> End:
    """Truthfully: FAILED for an error, KILLED for what a person or the system ended."""
    status = "FAILED" if isinstance(error, Exception) else "KILLED"
    if queued_again(error):
        status = "SCHEDULED"  # it waits in a queue, and goes on from there
    return End(status, f"{type(error).__name__}: {error}", int(1000 * time.time()))
