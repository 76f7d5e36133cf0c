"""Tracking: what a run reports while it trains, to MLflow or to nobody."""

import json
import logging
import math
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from caltech import store
from caltech.config import INDIFFERENT, build, point_key
from caltech.errors import HeldError
from caltech.files import without_passwords

log = logging.getLogger(__name__)

FLUSH_SECONDS = 5.0
# Numbers of an epoch that a report shows, and all that the tracker is told.
EPOCH_METRICS = (
    "train/loss",
    "train/loss_last_step",
    "train/accuracy",
    "val/loss",
    "val/accuracy",
    "lr",
)
METRICS = (*EPOCH_METRICS, "images_per_second")
# Of a run's provenance, as tags of the same names.
ENVIRONMENT = ("device", "threads", "torch", "python")


@dataclass(frozen=True)
class Description:
    """What is known of a run before it starts."""

    directory: Path
    name: str
    params: Mapping[str, Any]
    tags: Mapping[str, str]
    data: Mapping[str, str] | None  # name and sha256


def describe(
    cfg: DictConfig,
    choices: Mapping[str, str | None],
    overrides: Sequence[str],
    sweep: str | None,
    provenance: Mapping[str, Any] | None,
) -> Description:
    """A run's name begins with its key values: MLflow's table shows no parameters at first.

    Args:
        cfg: composed; if it was refused, its values may be out of range.
        choices: option of each config group.
        overrides: as typed.
        sweep: name of the sweep that the run is a job of, or None.
        provenance: what caltech.provenance collects; None for a run that was refused before.
    """
    groups = chosen(choices)
    named = ("model", "freeze", "lr")
    shown = [o for o in overrides if o.split("=")[0] not in named]
    shown = [o for o in shown if o.lstrip("+").split("=")[0].split(".")[0] not in INDIFFERENT]
    identity = [groups[name] for name in ("model", "freeze") if name in groups]
    tags = {
        "study": cfg.study,
        "key": cfg.key,
        "point": point_key(cfg),
        "overrides": without_passwords(" ".join(overrides)),
        "directory": str(Path(cfg.directory).absolute()),
        "host": socket.gethostname(),
        "mlflow.source.name": "caltech.train",
        **_published(cfg, groups),
    }
    if sweep is not None:
        tags["sweep"] = sweep
    if provenance is not None:
        tags |= {
            "weights": provenance["weights"]["name"],
            "code": provenance["code"]["sha256"],
            "data": provenance["data"]["sha256"],
            "mlflow.source.git.commit": provenance["code"]["git"],
            **{name: str(provenance["environment"][name]) for name in ENVIRONMENT},
        }
    return Description(
        directory=Path(cfg.directory),
        name=" ".join([f"lr={cfg.lr:g}", *shown, *identity]),
        params=hyperparameters(cfg) | groups,
        tags=tags,
        data=None if provenance is None else provenance["data"],
    )


def hyperparameters(cfg: DictConfig) -> dict[str, Any]:
    """The scalars of a config that MLflow's table shows as columns."""
    scalars = ("lr", "momentum", "weight_decay", "num_epochs", "step_size", "gamma", "batch_size")
    params = {name: cfg[name] for name in (*scalars, "seed")}
    if cfg.lr > 0:  # MLflow's charts have linear axes for parameters.
        params["log10_lr"] = round(math.log10(cfg.lr), 6)
    return params


def chosen(choices: Mapping[str, str | None]) -> dict[str, str]:
    """Option of each group of ours."""
    return {k: v for k, v in choices.items() if v is not None and not k.startswith("hydra")}


def _published(cfg: DictConfig, groups: Mapping[str, str]) -> dict[str, str]:
    """Which experiment this is, and what the study published of it."""
    tags = {name: groups[name] for name in ("experiment",) if name in groups}
    if cfg.published is not None:
        tags["published"] = json.dumps(OmegaConf.to_container(cfg.published, resolve=True))
    return tags


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

    def __init__(self, description: Description) -> None:
        pass

    def __enter__(self) -> "NoRun":
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        pass

    def log_epochs(self, history: Sequence[Mapping[str, float]]) -> None:
        """Nobody is told."""

    def log_result(
        self, status: str, metrics: Mapping[str, float], artifacts: Sequence[Path]
    ) -> None:
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

    def log_epochs(self, history: Sequence[Mapping[str, float]]) -> None:
        """Send the epochs of `history` (all so far) that were not sent before, each once."""
        for epoch in history[self.epochs_sent :]:
            self.epochs_sent += 1
            self._add({name: epoch[name] for name in METRICS})
        if time.monotonic() - self.flushed > FLUSH_SECONDS:
            self.flush()

    def log_result(
        self, status: str, metrics: Mapping[str, float], artifacts: Sequence[Path]
    ) -> None:
        """Send final metrics and files; MLflow itself has no status for a pruned run."""
        self.client.set_tag(self.run_id, "status", status)
        self._add(metrics)
        for path in artifacts:
            self.client.log_artifact(self.run_id, str(path))

    def join_sweep(self) -> None:
        """Count a finished run to the sweep that asked for it last, as its charts show it."""
        from mlflow.exceptions import MlflowException

        note = self.description.directory / "mlflow_run_id"
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
