"""Tracking: what a run reports while it trains, to MLflow or to nobody."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from caltech.config import build
from caltech.errors import HeldError
from caltech.metrics import METRICS, final
from caltech.runs.progress import Totals
from caltech.runs.result import Result
from caltech.tracking import store
from caltech.tracking.description import Description, describe

log = logging.getLogger(__name__)

FLUSH_SECONDS = 5.0


@contextmanager
def refusal_recorded(
    cfg: DictConfig,
    choices: Mapping[str, str | None],
    overrides: Sequence[str],
    sweep: str | None,
) -> Iterator[None]:
    """Have the tracker told of a sweep's job that fails before it has a tracker of its own."""
    try:
        yield
    except HeldError:  # the run is well, in another process
        raise
    except Exception as error:
        if sweep is not None:
            description = describe(cfg, choices, overrides, sweep, None)
            try:
                build(cfg.tracking, description).record_refusal(error)
            except Exception as second:
                log.warning("The tracker could not be told of the failure: %s", second)
        raise


class NoRun:
    """The tracker of tracking=none."""

    prunes = False

    def __init__(self, description: Description) -> None:
        pass

    def __enter__(self) -> "NoRun":
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        pass

    def step(self, totals: Totals) -> None:
        """Nobody is told."""

    def epoch(self, history: Sequence[Mapping[str, float]]) -> bool:
        return False

    def log_result(self, result: Result, artifacts: Sequence[Path]) -> None:
        """Nobody is told."""

    def join_sweep(self) -> None:
        """Nobody is told."""

    def record_refusal(self, error: Exception) -> None:
        """Nobody is told."""


class MlflowRun:
    """An MLflow run that ends FINISHED, FAILED (with the reason as a tag) or KILLED, truthfully.

    A resumed run goes on under its id, which is kept in the run's directory. Metrics are sent in
    batches, at most every FLUSH_SECONDS and at the end.

    Args:
        uri: tracking store, for example sqlite:///mlflow.db or http://host:5000.
        experiment: MLflow's name for what holds all runs.
        artifacts: folder for artifacts; null with a tracking server, which has its own place.
    """

    prunes = False

    def __init__(
        self, description: Description, uri: str, experiment: str, artifacts: str | None
    ) -> None:
        self.description = description
        self.client, self.experiment_id = store.open_store(uri, experiment, artifacts)
        store.close_abandoned(self.client, self.experiment_id)
        self.pending: list[Any] = []
        self.flushed = time.monotonic()

    def __enter__(self) -> "MlflowRun":
        self.run_id, self.epochs_sent = store.create_or_continue(
            self.client, self.experiment_id, self.description
        )
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        self.flush()
        status = "FINISHED"
        if error is not None:
            status = "FAILED" if isinstance(error, Exception) else "KILLED"
            self.client.set_tag(self.run_id, "failure", _reason(error))
        self.client.set_terminated(self.run_id, status)

    def step(self, totals: Totals) -> None:
        """MLflow is told of epochs."""

    def epoch(self, history: Sequence[Mapping[str, float]]) -> bool:
        """Send the epochs of `history` (all so far) that were not sent before, each once."""
        for epoch in history[self.epochs_sent :]:
            self.epochs_sent += 1
            self._add({name: epoch[name] for name in METRICS})
        if time.monotonic() - self.flushed > FLUSH_SECONDS:
            self.flush()
        return False

    def log_result(self, result: Result, artifacts: Sequence[Path]) -> None:
        """Send final metrics and files; MLflow itself has no status for a pruned run."""
        self.client.set_tag(self.run_id, "status", result.status)
        self._add(final(result.last, result.best))
        for path in artifacts:
            self.client.log_artifact(self.run_id, str(path))

    def join_sweep(self) -> None:
        """Count a finished run to the sweep that asked for it last, as its charts show it."""
        from mlflow.exceptions import MlflowException

        note = self.description.directory.mlflow_run_id
        if note.is_file():
            try:
                self.client.set_tag(note.read_text(), "sweep", self.description.tags["sweep"])
            except MlflowException:
                log.warning("MLflow no longer has the run of %s.", self.description.directory)

    def record_refusal(self, error: Exception) -> None:
        """Record a job of a sweep as FAILED, unless it had a run of its own, which says so."""
        tags = self.description.tags
        own = f"tags.sweep = '{tags['sweep']}' and tags.key = '{tags['key']}'"
        if not self.client.search_runs([self.experiment_id], own, max_results=1):
            run_id = store.create(self.client, self.experiment_id, self.description)
            self.client.set_tag(run_id, "failure", _reason(error))
            self.client.set_terminated(run_id, "FAILED")

    def flush(self) -> None:
        """Write what is pending; MLflow takes at most 1000 metrics in one batch."""
        while self.pending:
            batch, self.pending = self.pending[:1000], self.pending[1000:]
            self.client.log_batch(self.run_id, metrics=batch)
        self.flushed = time.monotonic()

    def _add(self, metrics: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self.pending += [Metric(k, v, now, self.epochs_sent) for k, v in metrics.items()]


def _reason(error: BaseException) -> str:
    """MLflow takes tags of 8000 characters at most."""
    return f"{type(error).__name__}: {error}"[:5000]
