"""The MLflow store: opened once, its runs created, continued and truthfully closed."""

import logging
import socket
from contextlib import nullcontext, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Param
from mlflow.exceptions import MlflowException

from caltech.files import replacing
from caltech.metrics import METRICS
from caltech.runs.directory import RunDirectory
from caltech.tracking.description import Description

log = logging.getLogger(__name__)


class Store:
    """An experiment in an MLflow store; both are made if they are not there.

    Under a lock because MLflow has two races here: processes that initialise one database at the
    same time fail, and processes that create one experiment at the same time log elsewhere.
    """

    def __init__(self, uri: str, experiment: str, artifacts: str | None) -> None:
        for name in ("alembic", "mlflow"):  # after the import, which sets them to INFO
            logging.getLogger(name).setLevel(logging.WARNING)
        lock = Path(artifacts) if artifacts else Path.home() / ".cache" / "caltech" / "mlflow"
        lock.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{lock}.lock"):
            _make_database(uri)
            self.client = MlflowClient(uri)
            found = self.client.get_experiment_by_name(experiment)
            if found is None:
                location = Path(artifacts).resolve().as_uri() if artifacts else None
                try:
                    self.client.create_experiment(experiment, artifact_location=location)
                except MlflowException as error:
                    if error.error_code != "RESOURCE_ALREADY_EXISTS":
                        raise  # else by another machine, which this lock does not reach
                found = self.client.get_experiment_by_name(experiment)
        self.experiment_id = found.experiment_id

    def close_abandoned(self) -> None:
        """End as KILLED the runs of this host whose process died without a word (SIGKILL, power).

        A living process has its run's directory locked, and the system lets go of it for a dead
        one: neither a reused pid nor a process that goes on with the run just now is taken for it.
        Other hosts' locks may not be visible here; their runs are left alone.
        """
        running = f"attributes.status = 'RUNNING' and tags.host = '{socket.gethostname()}'"
        for run in self.client.search_runs([self.experiment_id], running):
            run_id, directory = run.info.run_id, RunDirectory(run.data.tags["directory"])
            is_there = directory.path.is_dir()
            lock = FileLock(directory.lock, timeout=0) if is_there else nullcontext()
            with suppress(Timeout), lock:
                if self.client.get_run(run_id).info.status == "RUNNING":
                    who = directory.held_by() or "unknown"
                    reason = f"ended without a word, as by SIGKILL (process {who})"
                    self.end(run_id, "KILLED", reason)

    def begin(self, description: Description) -> tuple[str, int]:
        """Go on with the directory's run, or create it; its id, and how many epochs it has."""
        run_id = self.noted(description.directory)
        run_id = run_id or self.create(description, self._unnoted(description))
        with replacing(description.directory.mlflow_run_id) as partial:
            partial.write_text(run_id)
        self.client.update_run(run_id, status="RUNNING")
        for tag in {"failure", "status"} & set(self.client.get_run(run_id).data.tags):
            self.client.delete_tag(run_id, tag)
        for tag in {"host", "sweep"} & set(description.tags):
            self.client.set_tag(run_id, tag, description.tags[tag])
        sent = self.client.get_metric_history(run_id, METRICS[-1])
        return run_id, max((metric.step for metric in sent), default=0)

    def noted(self, directory: RunDirectory) -> str | None:
        """Id of the run that a directory has a note of; None, and told, if MLflow has it no longer.

        A server that does not answer has lost nothing: its error is raised.
        """
        if not directory.mlflow_run_id.is_file():
            return None
        run_id = directory.mlflow_run_id.read_text()
        try:
            if self.client.get_run(run_id).info.lifecycle_stage == "active":
                return run_id
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
        log.warning("MLflow no longer has run %s of %s.", run_id, directory)
        return None

    def create(self, description: Description, run_id: str | None = None) -> str:
        """Complete a run with its description, or a new one; its id."""
        if run_id is None:
            own = {"run_name": description.name, "tags": dict(description.tags)}
            run_id = self.client.create_run(self.experiment_id, **own).info.run_id
        params = [Param(name, str(value)) for name, value in description.params.items()]
        self.client.log_batch(run_id, params=params)
        if description.data is not None:
            name, sha = description.data["name"], description.data["sha256"]
            tags = [InputTag("mlflow.data.context", "training, validation and test")]
            data = DatasetInput(Dataset(name, sha[:8], "local", name), tags)
            self.client.log_inputs(run_id, [data])
        return run_id

    def end(self, run_id: str, status: str, reason: str) -> None:
        """Not well. MLflow takes tags of 8000 characters at most."""
        self.client.set_tag(run_id, "failure", reason[:5000])
        self.client.set_terminated(run_id, status)

    def _unnoted(self, description: Description) -> str | None:
        """Id of this directory's run if its process was killed before it could write the note.

        Such a run has no metrics yet. One that has some lost its note to rerun=true or to whoever
        removed the directory, and stays what it was; so does one of other code or another command.
        """
        told = {k: v for k, v in description.tags.items() if k not in ("host", "sweep")}
        own = f"tags.key = '{description.tags['key']}'"
        for run in self.client.search_runs([self.experiment_id], own):
            is_abandoned = run.info.status in ("RUNNING", "KILLED") and not run.data.metrics
            if is_abandoned and told.items() <= run.data.tags.items():
                return run.info.run_id
        return None


def _make_database(uri: str) -> None:
    """Make a SQLite store whole or not at all.

    MLflow makes its tables in some forty steps, and cannot open again what was left between two.
    """
    path = Path(uri.removeprefix("sqlite:///"))
    if uri.startswith("sqlite:///") and not path.exists():
        with replacing(path) as partial:
            MlflowClient(f"sqlite:///{partial}").search_experiments()
