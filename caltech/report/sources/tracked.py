"""Runs from an MLflow store, for those whose directories are elsewhere; the store is only read."""

import json
import logging
import os
import sqlite3
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote, urlparse

from omegaconf import DictConfig

from caltech.amounts import printable
from caltech.errors import InputError
from caltech.files import read_sealed_json
from caltech.keys import decisive
from caltech.metrics import EPOCH_METRICS, METRICS
from caltech.passwords import without_passwords
from caltech.report.sources.directories import (
    answers,
    calibrated,
    environment,
    in_turn,
    read_config,
)
from caltech.report.sources.proof import answered, run_of
from caltech.report.sources.unused import UNREADABLE, Unused
from caltech.report.trained import FINISHED, Run, flat
from caltech.runs.directory import WEIGHTS, RunDirectory
from caltech.tracking.description import ENVIRONMENT

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

PATIENCE = {  # a person waits: MLflow would try for minutes; a training that outlasts a server may
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",  # seconds
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


def tracked(
    tracking: DictConfig, study: str, known: Mapping[str, float]
) -> tuple[list[Run], list[Unused]]:
    """The runs of `study` in the store, newest first; none if there is no store yet.

    Args:
        known: keys of finished runs that were found elsewhere, with the time from which on (ms
            since 1970) one in the store would be a newer one.

    Raises:
        InputError: the store does not answer.
    """
    from caltech.tracking.address import explained  # imports SQLAlchemy

    uri = tracking.get("uri")
    if uri is None:
        return [], []
    try:
        path = _file(uri)
        if path is not None:
            if not path.exists():
                return [], []  # to create a store is not a report's work
            _require_store(path)
        with explained(uri):
            return _read(uri, tracking.experiment, study, known)
    except Exception as error:  # of SQLAlchemy, sqlite3: any
        said = printable(str(error) or type(error).__name__)[:200]
        raise InputError(
            f"The tracking store {without_passwords(uri)} cannot be read: {said}. Type "
            "tracking.uri= with the store that the runs were tracked in, or tracking=none to ask "
            "none."
        ) from error


def _read(
    uri: str, experiment: str, study: str, known: Mapping[str, float]
) -> tuple[list[Run], list[Unused]]:
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    for name in ("alembic", "mlflow"):  # after the import, which sets them to INFO
        logging.getLogger(name).setLevel(logging.WARNING)
    client = MlflowClient(uri)
    named = client.get_experiment_by_name(experiment)
    runs, unused = [], []
    for run in _search(client, named.experiment_id, study) if named else ():
        if "seed" not in run.data.params or _is_known(run, known):
            continue
        try:
            runs.append(_run(client, run))
        except UNREADABLE as error:
            told = Unused.of(Path(run.info.run_id), Path(), error)
            unused.append(replace(told, name=f"run {told.name} of the store"))
    return runs, unused


def _file(uri: str) -> Path | None:
    """Of a SQLite database; its address may have characters in place of others."""
    from sqlalchemy.engine import make_url

    return Path(make_url(uri).database or "") if uri.startswith("sqlite") else None


def _require_store(path: Path) -> None:
    """MLflow makes its tables in any database that has none: one that it did not make is no store.

    Raises:
        sqlite3.Error: it is no database, or has no runs.
    """
    with closing(sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True)) as base:
        base.execute("SELECT run_uuid FROM runs LIMIT 1")


def _is_known(run: "MlflowRun", known: Mapping[str, float]) -> bool:
    is_newer = run.info.start_time > known.get(run.data.tags.get("key", ""), -1)
    is_finished = run.info.status.lower() == FINISHED
    return run.data.tags.get("key") in known and not (is_newer and is_finished)


def _search(client: "MlflowClient", experiment_id: str, study: str) -> Iterator["MlflowRun"]:
    """Newest first. MLflow's filters cannot escape a quote, so such names are compared here."""
    condition = "" if set(study) & set("'\"`\\") else f"tags.study = '{study}'"
    token = None
    while True:
        page = client.search_runs([experiment_id], condition, page_token=token)
        yield from (run for run in page if run.data.tags.get("study") == study)
        if not (token := page.token):
            return


def _run(client: "MlflowClient", run: "MlflowRun") -> Run:
    tags, params, run_id = run.data.tags, run.data.params, run.info.run_id
    status = run.info.status.lower()
    if status == FINISHED:  # as MLflow has it, which knows no pruned ones
        status = tags.get("status", status)
    final = run.data.metrics if status == FINISHED else {}
    code = {"git": tags.get("mlflow.source.git.commit", ""), "sha256": tags.get("code", "")}
    begun = {"code": code, "environment": {k: tags[k] for k in ENVIRONMENT if k in tags}}
    told = {
        "key": tags["key"],
        "point": tags.get("point", tags["key"]),
        "status": status,
        "reason": tags.get("failure", ""),
        "started": run.info.start_time,
        "params": dict(params),
        "config": {},
        "metrics": {name: value for name, value in final.items() if name not in METRICS},
        "history": {name: _history(client, run_id, name) for name in EPOCH_METRICS},
        "seconds": None,
        "data": {"name": "", "sha256": tags.get("data", "")},
        "experiment": tags.get("experiment") or params.get("experiment"),
    }
    with _files(client, run) as files:
        made_from = _json(files.provenance)
        # What was noted in time: earlier code told the tags alone.
        begun["environment"] = begun["environment"] | made_from.get("environment", {})
        made_by = [begun, *made_from.get("continued_by", ())]
        told |= {
            "environment": environment(made_by),
            "code": in_turn(made_by, "code", ("git", "sha256")),
            "seconds": _json(files.timing).get("seconds"),
        }
        if files.config.is_file():
            told["config"] = flat(decisive(read_config(files.config)))
        if files.data.is_file():
            told["data"] = _json(files.data)
        if status == FINISHED:
            told["metrics"] |= calibrated(files, is_bound=False)
        is_whole = all(files.predictions(name).is_file() for name in WEIGHTS)
        known = answers(files) if status == FINISHED and is_whole else None
    bare = run_of(told, f"the store {without_passwords(client.tracking_uri)}")
    return bare if known is None else answered(bare, known)


@contextmanager
def _files(client: "MlflowClient", run: "MlflowRun") -> Iterator[RunDirectory]:
    """MLflow's, which has them of a run that has ended; or its directory's, if that is here.

    Only if it is still this run's: rerun=true gives it to another, and any store can name any path.
    """
    from mlflow import artifacts

    found, store = run.info.artifact_uri, {"tracking_uri": client.tracking_uri}
    with tempfile.TemporaryDirectory() as folder:
        uri = urlparse(found)
        if uri.scheme in ("", "file"):
            folder = unquote(uri.path)
        else:
            for item in artifacts.list_artifacts(found, **store):
                name = Path(item.path).name
                if not name.endswith(".safetensors"):
                    artifacts.download_artifacts(f"{found}/{name}", dst_path=folder, **store)
        directory, ours = RunDirectory(folder), RunDirectory(run.data.tags.get("directory", ""))
        yield ours if not directory.config.is_file() and _is_of(ours, run) else directory


def _is_of(directory: RunDirectory, run: "MlflowRun") -> bool:
    """Whether a directory notes that its run was told as this one."""
    if directory.mlflow.is_file():
        noted = read_sealed_json(directory.mlflow)
        told = [each["run_id"] for each in noted["stores"].values()]
        return noted["id"] == directory.id and run.info.run_id in told
    note = directory.mlflow_run_id
    return note.is_file() and note.read_text("utf-8") == run.info.run_id


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}


def _history(client: "MlflowClient", run_id: str, name: str) -> list[float]:
    by_epoch = {m.step: m.value for m in client.get_metric_history(run_id, name)}
    return [by_epoch[epoch] for epoch in sorted(by_epoch)]
