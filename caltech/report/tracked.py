"""The runs of a study as MLflow has them, with their files."""

import io
import json
import logging
import os
import tempfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

import numpy as np
from omegaconf import DictConfig, OmegaConf

from caltech.errors import InputError
from caltech.keys import ADDED, decisive, point_key
from caltech.metrics import EPOCH_METRICS, METRICS
from caltech.report.rows import FINISHED, Predictions, Run, flat
from caltech.settings import ROOT
from caltech.tracking.description import ENVIRONMENT

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

PAGE = 1000  # runs in one answer of MLflow


def read(tracking: DictConfig, study: str) -> list[Run]:
    """All runs of `study` that a training has tracked; none if there is no store yet.

    Raises:
        InputError: the store does not answer.
    """
    if "uri" not in tracking or _is_absent(tracking.uri):
        return []
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # A person waits: MLflow would try for minutes. A training that outlasts a server may.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.WARNING)
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        client = MlflowClient(tracking.uri)
        experiment = client.get_experiment_by_name(tracking.experiment)
        found = [] if experiment is None else _search(client, experiment.experiment_id, study)
    except MlflowException as error:
        raise InputError(
            f"The tracking store {tracking.uri} cannot be read: {error}. Type tracking.uri= with "
            "the store that the runs were tracked in, or tracking=none to use kept results alone."
        ) from error
    return [_run(client, run) for run in found if "seed" in run.data.params]


def place(tracking: DictConfig) -> str:
    """The store in words."""
    return tracking.uri if "uri" in tracking else "a tracking store (tracking=none)"


def _is_absent(uri: str) -> bool:
    """Whether a store would have to be created, which is not a report's work."""
    path = uri.removeprefix("sqlite:///")
    return path != uri and not Path(path).is_file()


def _search(client: "MlflowClient", experiment_id: str, study: str) -> list["MlflowRun"]:
    """Newest first. MLflow's filters cannot escape a quote, so such names are compared here."""
    plain = not set(study) & set("'\"`\\")
    found, token = [], None
    while True:
        condition = f"tags.study = '{study}'" if plain else ""
        page = client.search_runs([experiment_id], condition, max_results=PAGE, page_token=token)
        found += [run for run in page if run.data.tags.get("study") == study]
        if not (token := page.token):
            return found


def _run(client: "MlflowClient", run: "MlflowRun") -> Run:
    tags, folder = run.data.tags, _Files(client, run)
    config = OmegaConf.create((folder.read("config.yaml") or b"{}").decode())
    provenance = json.loads(folder.read("provenance.json") or b"{}")
    status = run.info.status.lower()
    if status == FINISHED:  # as MLflow has it, which knows no pruned ones
        status = tags.get("status", status)
    metrics = dict(run.data.metrics) if status == FINISHED else {}
    return Run(
        key=tags["key"],
        point=tags.get("point") or _point(config, run.data.params),
        status=status,
        reason=tags.get("failure", ""),
        started=run.info.start_time,
        params=dict(run.data.params),
        config=flat(decisive(config)),
        metrics={k: v for k, v in metrics.items() if k not in METRICS},
        history={name: _history(client, run.info.run_id, name) for name in EPOCH_METRICS},
        seconds=json.loads(folder.read("timing.json") or b"{}").get("seconds"),
        environment=_environment(tags, provenance),
        code=_code(tags, provenance),
        data=_data(folder, provenance, tags),
        experiment=tags.get("experiment") or run.data.params.get("experiment"),
        predictions=_predictions(folder) if status == FINISHED else None,
    )


def _point(config: DictConfig, params: Mapping[str, str]) -> str:
    """Of a run from before this tag was there."""
    if all(name in config or name in ADDED for name, key in ROOT.items() if key.decides):
        return point_key(config)
    return json.dumps({name: value for name, value in params.items() if name != "seed"})


def _history(client: "MlflowClient", run_id: str, name: str) -> list[float]:
    by_epoch = {m.step: m.value for m in client.get_metric_history(run_id, name)}
    return [by_epoch[epoch] for epoch in sorted(by_epoch)]


def _environment(tags: Mapping[str, str], provenance: Mapping[str, Any]) -> dict[str, str]:
    """Of a run that went on elsewhere or with other threads, each in turn."""
    known = [provenance.get("environment", {}) | dict(tags)]
    known += [maker.get("environment", {}) for maker in provenance.get("continued_by", ())]
    return {
        name: ", then ".join(dict.fromkeys(str(each[name]) for each in known if name in each))
        for name in ENVIRONMENT
        if name in known[0]
    }


def _code(tags: Mapping[str, str], provenance: Mapping[str, Any]) -> dict[str, str]:
    """Of a run that went on by other code, all versions: it equals none of them."""
    versions = [{"git": tags.get("mlflow.source.git.commit", ""), "sha256": tags.get("code", "")}]
    versions += [maker["code"] for maker in provenance.get("continued_by", ())]
    return {
        name: ", then ".join(dict.fromkeys(version[name] for version in versions))
        for name in ("git", "sha256")
    }


def _data(folder: "_Files", provenance: Mapping[str, Any], tags: Mapping[str, str]) -> dict:
    """The data's description; runs of older code tell its name and digest, and the majority."""
    if card := folder.read("data.json"):
        return json.loads(card)
    data = {"name": provenance.get("data", {}).get("name", ""), "sha256": tags.get("data", "")}
    result = json.loads(folder.read("result.json") or b"{}")
    if "majority/accuracy" in result:
        data["majority_accuracy"] = result["majority/accuracy"]
    return data


def _predictions(folder: "_Files") -> Predictions | None:
    loaded = {}
    for name in ("last", "best"):
        content = folder.read(f"predictions_{name}.npz")
        if content is None:
            return None
        with np.load(io.BytesIO(content)) as arrays:
            loaded[name] = dict(arrays)
    last = loaded["last"]
    return Predictions(
        indices=last["indices"],
        labels=last["labels"],
        last=last["predictions"],
        best=loaded["best"]["predictions"],
        confidences=last["confidences"].astype(float).round(4),
    )


class _Files:
    """A run's files: MLflow's artifacts, or its own directory where older code kept them alone."""

    def __init__(self, client: "MlflowClient", run: "MlflowRun") -> None:
        self.client, self.run_id = client, run.info.run_id
        uri = urlparse(run.info.artifact_uri)
        self.artifacts = Path(unquote(uri.path)) if uri.scheme in ("", "file") else None
        self.directory = Path(run.data.tags.get("directory", ""))

    def read(self, name: str) -> bytes | None:
        """Content of a file, or None."""
        if self.artifacts is None:
            found = self._download(name)
        else:
            path = self.artifacts / name
            found = path.read_bytes() if path.is_file() else None
        return found if found is not None else self._read_directory(name)

    @cached_property
    def _names(self) -> set[str]:
        return {item.path for item in self.client.list_artifacts(self.run_id)}

    def _download(self, name: str) -> bytes | None:
        if name not in self._names:
            return None
        with tempfile.TemporaryDirectory() as folder:
            return Path(self.client.download_artifacts(self.run_id, name, folder)).read_bytes()

    def _read_directory(self, name: str) -> bytes | None:
        """Only if the directory is still this run's: rerun=true gives it to another."""
        note, path = self.directory / "mlflow_run_id", self.directory / name
        owned = note.is_file() and note.read_text() == self.run_id
        return path.read_bytes() if owned and path.is_file() else None
