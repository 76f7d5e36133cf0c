"""The MLflow store: opened once, its runs created, described, found and closed."""

import logging
import os
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from hashlib import sha256
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

from filelock import FileLock
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, Experiment, InputTag, Param, Run, RunTag
from mlflow.exceptions import MlflowException

from caltech.config import sqlite_url
from caltech.errors import StoreError
from caltech.files import replacing
from caltech.links import link
from caltech.passwords import without_passwords
from caltech.tracking import moved
from caltech.tracking.address import (
    KIND,
    is_server,
    require_answer,
    require_schema,
    sqlite_path,
    store_name,
)
from caltech.tracking.description import Description
from caltech.tracking.note import End

log = logging.getLogger(__name__)

OPENING_SECONDS = 60  # for other processes that open the same database; a new one takes some


class Store:
    """An experiment in an MLflow store; both are made if they are not there.

    Raises:
        StoreError, or what MLflow and drivers raise: address.explained makes a sentence of it.
    """

    def __init__(self, uri: str, experiment: str, artifacts: str | None) -> None:
        for name in ("alembic", "mlflow"):  # after the import, which sets them to INFO
            logging.getLogger(name).setLevel(logging.ERROR)
        # It prints a traceback of what it raises.
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
        self.uri, self.name = uri, store_name(uri, experiment)
        require_answer(uri)
        with _one_at_a_time(uri):
            require_schema(uri)
            with _no_stray_folder(uri):
                _make_database(uri)
                self.client = MlflowClient(uri)
                found = _experiment(self.client, uri, experiment, artifacts)
        self.experiment_id = found.experiment_id

    def run(self, run_id: str) -> Run | None:
        """None if the store has it no longer. A store that does not answer has lost nothing: it
        raises."""
        try:
            run = self.client.get_run(run_id)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        return run if run.info.lifecycle_stage == "active" else None

    def search(self, condition: str = "", **tags: str) -> Iterator[Run]:
        """The runs that meet a condition and have these tags, whose values have no quotes."""
        conditions = [condition] if condition else []
        conditions += [f"tags.{name} = '{value}'" for name, value in tags.items()]
        token = None
        while True:
            page = self.client.search_runs(
                [self.experiment_id], " and ".join(conditions), page_token=token
            )
            yield from page
            if not (token := page.token):
                return

    def create(self, name: str, tags: Mapping[str, str], started: int | None) -> Run:
        """A run that MLflow calls RUNNING."""
        return self.client.create_run(self.experiment_id, started, dict(tags), name)

    def describe(self, run_id: str, description: Description) -> None:
        """Parameters and data; said again, MLflow has them once."""
        params = [Param(*each) for each in description.params.items()]
        try:
            self.client.log_batch(run_id, params=params)
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise  # else MLflow has others, which cannot be changed
            log.warning("Parameters of run %s stay as MLflow has them: %s", run_id, error)
        if description.data is not None:
            name, sha = description.data["name"], description.data["sha256"]
            tags = [InputTag("mlflow.data.context", "training, validation and test")]
            data = DatasetInput(Dataset(name, sha[:8], "local", name), tags)
            self.client.log_inputs(run_id, [data])

    def keep(self, run_id: str, path: Path) -> None:
        """A file of a run; if store and run are on one disk, a large one gets a second name."""
        place = urlparse(self.client.get_run(run_id).info.artifact_uri)
        if path.suffix in (".safetensors", ".npz") and place.scheme in ("", "file"):
            folder = Path(url2pathname(place.path))
            if not is_server(self.uri) and link(path, folder / path.name):
                return
        self.client.log_artifact(run_id, str(path))

    def tag(self, run_id: str, tags: Mapping[str, str]) -> None:
        self.client.log_batch(run_id, tags=[RunTag(*each) for each in tags.items()])

    def end(self, run_id: str, end: End) -> None:
        """Not well. MLflow takes tags of 8000 characters at most."""
        self.client.set_tag(run_id, "failure", end.reason[:5000])
        self.client.set_terminated(run_id, end.status, end.ended)

    def refuse(self, description: Description, end: End) -> None:
        """Record a sweep's job that failed, unless it has a run already, which says so."""
        own = {name: description.tags[name] for name in ("sweep", "key")}
        if next(self.search(**own), None) is None:
            run = self.create(description.name, description.tags, end.ended)
            self.describe(run.info.run_id, description)
            self.end(run.info.run_id, end)


def _one_at_a_time(uri: str) -> AbstractContextManager:
    """MLflow has a race here: processes that make the tables of one database fail."""
    if is_server(uri):
        return nullcontext()
    path = sqlite_path(uri)
    if path is None:
        name = sha256(without_passwords(uri).encode()).hexdigest()[:10]
        path = Path(tempfile.gettempdir()) / f"caltech-{os.getuid()}-{name}"
    lock = Path(f"{path}.lock")
    lock.open("ab").close()  # FileLock would try for as long as it may wait
    return FileLock(lock, timeout=OPENING_SECONDS)


@contextmanager
def _no_stray_folder(uri: str) -> Iterator[None]:
    """MLflow makes a database's folder by the address as it is written, with %3F for a ? in it."""
    written = Path(uri.partition(":///")[2]).parents if "%" in uri and sqlite_path(uri) else ()
    stray = [folder for folder in written if not folder.exists()]
    yield
    for folder in stray:
        with suppress(OSError):
            folder.rmdir()


def _make_database(uri: str) -> None:
    """Make a SQLite store whole or not at all.

    MLflow makes its tables in some forty steps, and cannot open again what was left between two.
    """
    path = sqlite_path(uri)
    if path is None or (path.exists() and path.stat().st_size > 0):
        return
    with replacing(path) as partial:
        # A name of its own: MLflow remembers which databases this process has made.
        made = partial.with_name(f"{partial.name}-{uuid.uuid4().hex}")
        try:
            MlflowClient(sqlite_url(str(made))).search_experiments()
            made.replace(partial)
        finally:
            made.unlink(missing_ok=True)


def _experiment(client: MlflowClient, uri: str, name: str, artifacts: str | None) -> Experiment:
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            client.create_experiment(name, _location(uri, artifacts), tags=dict([KIND]))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise  # else by another process at the same moment
        found = client.get_experiment_by_name(name)
    if found.lifecycle_stage != "active":
        raise StoreError(
            f"experiment {name} was deleted in it. Type tracking.experiment=NAME for another one, "
            f"or MLFLOW_TRACKING_URI='{without_passwords(uri)}' mlflow experiments restore "
            f"--experiment-id {found.experiment_id}"
        )
    place = found.artifact_location
    if place.startswith("mlflow-artifacts:") and not is_server(uri):
        raise StoreError(
            f"experiment {name} belongs to an MLflow server, which keeps its files, and this is "
            "the server's database. Type tracking.uri=http://HOST:PORT of that server, or "
            "tracking.experiment=NAME for another one"
        )
    is_local = urlparse(place).scheme in ("", "file")
    if is_server(uri) and is_local:
        log.warning(
            "Experiment %s of %s keeps artifacts in %s of each client's own disk, as it was once "
            "made. Type tracking.experiment=NAME for a new one, whose artifacts the server keeps.",
            name, without_passwords(uri), place,
        )  # fmt: skip
    elif is_server(uri) and artifacts and "://" not in artifacts:
        log.info("The server keeps artifacts (%s); tracking.artifacts is not used.", place)
    elif sqlite_path(uri) is not None and artifacts and is_local:
        moved.follow(sqlite_path(uri), found.experiment_id, place, _location(uri, artifacts))
    return found


def _location(uri: str, artifacts: str | None) -> str | None:
    """Where a new experiment's artifacts are to be; None leaves it to a server."""
    if artifacts is None or "://" in artifacts:
        return artifacts
    if is_server(uri):
        return None  # a folder of this machine means nothing to it, nor to other clients
    folder = Path(artifacts).expanduser().resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return folder.as_uri()
