"""The MLflow store: opened once, runs created, continued and truthfully closed in it."""

import logging
import os
import socket
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from filelock import FileLock, Timeout
from omegaconf import DictConfig

from caltech.files import replacing
from caltech.runs.directory import RunDirectory

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from caltech.tracking.description import Description

log = logging.getLogger(__name__)


def open_store(uri: str, experiment: str, artifacts: str | None) -> tuple["MlflowClient", str]:
    """Connect, and create store and experiment once.

    Under a lock because MLflow has two races here: processes that initialise one database at the
    same time fail, and processes that create one experiment at the same time log elsewhere.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    for name in ("alembic", "mlflow"):  # after the import, which sets them to INFO
        logging.getLogger(name).setLevel(logging.WARNING)
    lock = Path(artifacts) if artifacts else Path.home() / ".cache" / "caltech" / "mlflow"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{lock}.lock"):
        _make_database(uri)
        client = MlflowClient(uri)
        found = client.get_experiment_by_name(experiment)
        if found is None:
            location = Path(artifacts).resolve().as_uri() if artifacts else None
            try:
                return client, client.create_experiment(experiment, artifact_location=location)
            except MlflowException:  # by another machine, which this lock does not reach
                found = client.get_experiment_by_name(experiment)
                if found is None:
                    raise
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


def close_abandoned(client: "MlflowClient", experiment_id: str) -> None:
    """End as KILLED the runs of this host whose process died without a word (SIGKILL, power).

    A living process has its run's directory locked (run.claimed) and the operating system lets go
    of it, so that neither a reused pid nor a process that goes on with the run just now is taken
    for the dead one. Other hosts' locks may not be visible here; their runs are left alone.
    """
    running = f"attributes.status = 'RUNNING' and tags.host = '{socket.gethostname()}'"
    for run in client.search_runs([experiment_id], running):
        directory = RunDirectory(run.data.tags["directory"])
        there = directory.path.is_dir()
        lock = FileLock(directory.lock, timeout=0) if there else nullcontext()
        try:
            with lock:
                if client.get_run(run.info.run_id).info.status == "RUNNING":
                    who = directory.held_by() or "unknown"
                    reason = f"ended without a word, as by SIGKILL (process {who})"
                    client.set_tag(run.info.run_id, "failure", reason)
                    client.set_terminated(run.info.run_id, "KILLED")
        except Timeout:
            continue


def create_or_continue(
    client: "MlflowClient", experiment_id: str, description: "Description"
) -> tuple[str, int]:
    """Id of the MLflow run, and how many epochs it already has."""
    from mlflow.entities import RunTag
    from mlflow.exceptions import MlflowException

    note = description.directory.mlflow_run_id
    if note.is_file():
        run_id = note.read_text()
        try:
            client.update_run(run_id, status="RUNNING")
            for tag in {"failure", "status"} & set(client.get_run(run_id).data.tags):
                client.delete_tag(run_id, tag)
            now = [RunTag(k, v) for k, v in description.tags.items() if k in ("host", "sweep")]
            client.log_batch(run_id, tags=now)
            sent = client.get_metric_history(run_id, "images_per_second")
            return run_id, max((metric.step for metric in sent), default=0)
        except MlflowException:
            log.warning("MLflow no longer has run %s; its metrics go to a new one.", run_id)
    run_id = _unnoted(client, experiment_id, description)
    if run_id is None:
        run_id = create(client, experiment_id, description)
    with replacing(note) as partial:
        partial.write_text(run_id)
    return run_id, 0


def _unnoted(client: "MlflowClient", experiment_id: str, description: "Description") -> str | None:
    """Id of this directory's run if its process was killed before it could write the note.

    Such a run has no metrics yet. One that has some lost its note to rerun=true or to whoever
    removed the directory, and stays what it was; so does one of other code or other parameters.
    """
    own = f"tags.key = '{description.tags['key']}'"
    for run in client.search_runs([experiment_id], own):
        abandoned = run.info.status in ("RUNNING", "KILLED") and not run.data.metrics
        told = {k: str(v) for k, v in description.params.items()}
        agrees = run.data.params.items() <= told.items() and all(
            run.data.tags.get(name) == description.tags.get(name)
            for name in ("directory", "code", "data", "weights", "device")
        )
        if abandoned and agrees:
            client.update_run(run.info.run_id, status="RUNNING")
            _describe(client, run.info.run_id, description)
            return run.info.run_id
    return None


def create(client: "MlflowClient", experiment_id: str, description: "Description") -> str:
    """Make a run, complete with its description."""
    run_id = client.create_run(
        experiment_id, run_name=description.name, tags=dict(description.tags)
    ).info.run_id
    _describe(client, run_id, description)
    return run_id


def _describe(client: "MlflowClient", run_id: str, description: "Description") -> None:
    from mlflow.entities import Param

    params = [Param(name, str(value)) for name, value in description.params.items()]
    client.log_batch(run_id, params=params)
    if description.data is not None:
        _log_data(client, run_id, description.data)


def comparison(tracking: DictConfig, sweep: str) -> str | None:
    """Address of MLflow's charts of one sweep's runs; None if MLflow does not have them."""
    if "uri" not in tracking:
        return None
    from mlflow import MlflowClient

    experiment = MlflowClient(tracking.uri).get_experiment_by_name(tracking.experiment)
    if experiment is None:
        return None
    # A database has no address of its own: the one of the server in README.
    server = tracking.uri if tracking.uri.startswith("http") else "http://127.0.0.1:5000"
    found = quote(f'tags.sweep = "{sweep}"')
    return (
        f"{server.rstrip('/')}/#/experiments/{experiment.experiment_id}/runs"
        f"?workflowType=machine_learning&compareRunsMode=CHART&searchFilter={found}"
    )


def _log_data(client: "MlflowClient", run_id: str, data: Mapping[str, str]) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    dataset = Dataset(data["name"], data["sha256"][:8], "local", data["name"])
    tags = [InputTag("mlflow.data.context", "training, validation and test")]
    client.log_inputs(run_id, [DatasetInput(dataset, tags)])
