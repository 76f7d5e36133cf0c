"""Tracking: what a run reports while it trains, to MLflow or to nobody."""

import logging
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock
from omegaconf import DictConfig

from caltech.files import replacing

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

FLUSH_SECONDS = 5.0
# Numbers of an epoch that are told about, in the design's names.
METRICS = (
    "train/loss",
    "train/loss_last_step",
    "train/accuracy",
    "val/loss",
    "val/accuracy",
    "lr",
    "images_per_second",
)


@dataclass(frozen=True)
class Description:
    """What is known of a run before it starts."""

    directory: Path
    name: str
    params: Mapping[str, Any]
    tags: Mapping[str, str]
    data: Mapping[str, str]  # name and sha256


def describe(
    cfg: DictConfig,
    choices: Mapping[str, str | None],
    overrides: Sequence[str],
    provenance: Mapping[str, Any],
) -> Description:
    """A run's name begins with its key values: MLflow's table shows no parameters at first."""
    scalars = ("lr", "momentum", "weight_decay", "num_epochs", "step_size", "gamma", "batch_size")
    params = {name: cfg[name] for name in (*scalars, "seed")}
    # MLflow's charts have linear axes for parameters.
    params["log10_lr"] = round(math.log10(cfg.lr), 6)
    groups = {k: v for k, v in choices.items() if v is not None and not k.startswith("hydra")}
    named = ("model", "freeze", "lr")
    shown = [o for o in overrides if o.split("=")[0] not in (*named, "study", "tracking")]
    identity = [groups[name] for name in ("model", "freeze") if name in groups]
    return Description(
        directory=Path(cfg.directory),
        name=" ".join([f"lr={cfg.lr:g}", *shown, *identity]),
        params=params | groups,
        tags={
            "study": cfg.study,
            "key": cfg.key,
            "directory": cfg.directory,
            "weights": provenance["weights"]["name"],
            "code": provenance["code"]["sha256"],
            "data": provenance["data"]["sha256"],
            "mlflow.source.git.commit": provenance["code"]["git"],
            "mlflow.source.name": "caltech.train",
        },
        data=provenance["data"],
    )


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

    def log_result(self, metrics: Mapping[str, float], artifacts: Sequence[Path]) -> None:
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
        self.client, self.experiment_id = _open_store(uri, experiment, artifacts)
        self.pending: list[Any] = []
        self.flushed = time.monotonic()

    def __enter__(self) -> "MlflowRun":
        self.run_id, self.epochs_sent = _create_or_continue(
            self.client, self.experiment_id, self.description
        )
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: Any) -> None:
        self.flush()
        status = "FINISHED"
        if error is not None:
            status = "FAILED" if isinstance(error, Exception) else "KILLED"
            self.client.set_tag(self.run_id, "failure", f"{kind.__name__}: {error}"[:5000])
        self.client.set_terminated(self.run_id, status)

    def log_epochs(self, history: Sequence[Mapping[str, float]]) -> None:
        """Send the epochs of `history` (all so far) that were not sent before, each once."""
        for epoch in history[self.epochs_sent :]:
            self.epochs_sent += 1
            self._add({name: epoch[name] for name in METRICS})
        if time.monotonic() - self.flushed > FLUSH_SECONDS:
            self.flush()

    def log_result(self, metrics: Mapping[str, float], artifacts: Sequence[Path]) -> None:
        """Send final metrics and files."""
        self._add(metrics)
        for path in artifacts:
            self.client.log_artifact(self.run_id, str(path))

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


def _open_store(uri: str, experiment: str, artifacts: str | None) -> tuple["MlflowClient", str]:
    """Connect, and create store and experiment once.

    Under a lock because MLflow has two races here: processes that initialise one database at the
    same time fail, and processes that create one experiment at the same time log elsewhere.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.WARNING)
    from mlflow import MlflowClient

    lock = Path(artifacts) if artifacts else Path.home() / ".cache" / "caltech" / "mlflow"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{lock}.lock"):
        _make_database(uri)
        client = MlflowClient(uri)
        found = client.get_experiment_by_name(experiment)
        if found is None:
            location = Path(artifacts).resolve().as_uri() if artifacts else None
            return client, client.create_experiment(experiment, artifact_location=location)
    return client, found.experiment_id


def _make_database(uri: str) -> None:
    """Make a SQLite store whole or not at all.

    MLflow makes its tables in some forty steps, and cannot open again what was left between two.
    """
    from mlflow import MlflowClient

    path = Path(uri.removeprefix("sqlite:///"))
    if uri.startswith("sqlite:///") and not path.exists():
        with replacing(path) as partial:
            MlflowClient(f"sqlite:///{partial}").search_experiments()


def _create_or_continue(
    client: "MlflowClient", experiment_id: str, description: Description
) -> tuple[str, int]:
    """Id of the MLflow run, and how many epochs it already has."""
    from mlflow.entities import Param
    from mlflow.exceptions import MlflowException

    note = description.directory / "mlflow_run_id"
    if note.is_file():
        run_id = note.read_text()
        try:
            client.update_run(run_id, status="RUNNING")
            sent = client.get_metric_history(run_id, METRICS[-1])
            return run_id, max((metric.step for metric in sent), default=0)
        except MlflowException:
            log.warning("MLflow no longer has run %s; its metrics go to a new one.", run_id)
    run_id = _unnoted(client, experiment_id, description)
    if run_id is None:
        tags = dict(description.tags)
        run_id = client.create_run(experiment_id, None, tags, description.name).info.run_id
    params = [Param(name, str(value)) for name, value in description.params.items()]
    client.log_batch(run_id, params=params)
    _log_data(client, run_id, description.data)
    note.write_text(run_id)
    return run_id, 0


def _unnoted(client: "MlflowClient", experiment_id: str, description: Description) -> str | None:
    """Id of this directory's run if its process was killed before it could write the note."""
    own = f"tags.key = '{description.tags['key']}' and attributes.status = 'RUNNING'"
    for run in client.search_runs([experiment_id], own):
        if run.data.tags["directory"] == description.tags["directory"]:
            return run.info.run_id
    return None


def _log_data(client: "MlflowClient", run_id: str, data: Mapping[str, str]) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = Dataset(data["name"], data["sha256"][:8], "local", data["name"])
    tags = [InputTag("mlflow.data.context", "training, validation and test")]
    client.log_inputs(run_id, [DatasetInput(dataset, tags)])
