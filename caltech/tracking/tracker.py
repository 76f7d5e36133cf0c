"""Trackers: what a run reports while it trains, to MLflow or to nobody."""

import logging
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from omegaconf import DictConfig

from caltech.config import build
from caltech.errors import HeldError
from caltech.metrics import METRICS, final
from caltech.runs.progress import Totals
from caltech.runs.result import Result
from caltech.tracking.description import Description, describe

log = logging.getLogger(__name__)

FLUSH_SECONDS = 5.0


@contextmanager
def refusal_recorded(
    cfg: DictConfig,
    choices: Mapping[str, str | None],
    overrides: Sequence[str],
    sweep: Path | None,
) -> Iterator[None]:
    """Have the tracker told of a sweep's job that fails before it has a tracker of its own."""
    try:
        yield
    except Exception as error:
        is_well = isinstance(error, HeldError)  # the run, in another process
        if sweep is not None and not is_well:
            try:
                description = describe(cfg, choices, overrides, sweep, None)
                build(cfg.tracking, description).record_refusal(error)
            except Exception as second:
                log.warning("The tracker could not be told of the failure: %s", second)
        raise


class NoRun(AbstractContextManager):
    """The tracker of tracking=none, and what others can be told: an observer of the training."""

    prunes = False

    def __init__(self, description: Description | None) -> None:
        self.description = description

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        """The training has ended, well or by this error."""

    def step(self, totals: Totals) -> None:
        """No tracker is told of steps."""

    def epoch(self, history: Sequence[Mapping[str, float]]) -> bool:
        return False

    def log_result(self, result: Result) -> None:
        """Final metrics, and the files of the run's directory."""

    def join_sweep(self) -> None:
        """A run that was finished before counts to the sweep that asked for it last."""

    def record_refusal(self, error: Exception) -> None:
        """A job of a sweep failed, perhaps before it had a run."""

    def charts(self, sweep: str) -> str | None:
        """Address of a page that compares the runs of a sweep."""


class MlflowRun(NoRun):
    """An MLflow run that ends FINISHED, FAILED (with the reason as a tag) or KILLED, truthfully.

    A resumed run goes on under its id, which is kept in the run's directory. Metrics are sent in
    batches, at most every FLUSH_SECONDS and at the end.

    Args:
        uri: tracking store, for example sqlite:///mlflow.db or http://host:5000.
        experiment: MLflow's name for what holds all runs.
        artifacts: folder for artifacts; null with a tracking server, which has its own place.
    """

    def __init__(
        self, description: Description | None, uri: str, experiment: str, artifacts: str | None
    ) -> None:
        super().__init__(description)
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from caltech.tracking.store import Store  # imports MLflow, which takes a second

        self.uri, self.store = uri, Store(uri, experiment, artifacts)
        self.client = self.store.client
        self.store.close_abandoned()
        self.pending: list[Any] = []
        self.flushed = time.monotonic()

    def __enter__(self) -> Self:
        self.run_id, self.epochs_sent = self.store.begin(self.description)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        if error is None:
            self.client.set_terminated(self.run_id, "FINISHED")
            return
        try:
            status = "FAILED" if isinstance(error, Exception) else "KILLED"
            self.store.end(self.run_id, status, _reason(error))
            self._flush()
        except Exception as second:  # the first is what the user is to see
            log.warning("MLflow could not be told of the failure: %s", second)

    def epoch(self, history: Sequence[Mapping[str, float]]) -> bool:
        """Send the epochs of `history` (all so far) that were not sent before, each once."""
        for epoch in history[self.epochs_sent :]:
            self.epochs_sent += 1
            self._add({name: epoch[name] for name in METRICS})
        if time.monotonic() - self.flushed > FLUSH_SECONDS:
            self._flush()
        return False

    def log_result(self, result: Result) -> None:
        self.client.set_tag(self.run_id, "status", result.status)  # MLflow knows no pruned ones
        self._add(final(result.last, result.best))
        self._flush()
        for path in self.description.directory.artifacts():
            self.client.log_artifact(self.run_id, str(path))

    def join_sweep(self) -> None:
        if run_id := self.store.noted(self.description.directory):
            self.client.set_tag(run_id, "sweep", self.description.tags["sweep"])

    def record_refusal(self, error: Exception) -> None:
        """As a FAILED run, unless the job had one of its own, which says so."""
        tags = self.description.tags
        own = f"tags.sweep = '{tags['sweep']}' and tags.key = '{tags['key']}'"
        if not self.client.search_runs([self.store.experiment_id], own, max_results=1):
            self.store.end(self.store.create(self.description), "FAILED", _reason(error))

    def charts(self, sweep: str) -> str | None:
        # A database has no address of its own: the one of the server in README.
        server = self.uri.rstrip("/") if self.uri.startswith("http") else "http://127.0.0.1:5000"
        found = quote(f'tags.sweep = "{sweep}"')
        return (
            f"{server}/#/experiments/{self.store.experiment_id}/runs"
            f"?workflowType=machine_learning&compareRunsMode=CHART&searchFilter={found}"
        )

    def _add(self, metrics: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self.pending += [Metric(k, v, now, self.epochs_sent) for k, v in metrics.items()]

    def _flush(self) -> None:
        """Write what is pending; MLflow takes at most 1000 metrics in one batch."""
        while self.pending:
            self.client.log_batch(self.run_id, metrics=self.pending[:1000])
            del self.pending[:1000]  # not before they are there
        self.flushed = time.monotonic()


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
