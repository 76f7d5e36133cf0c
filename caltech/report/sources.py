"""Where a study's runs come from: MLflow, with their files, and results that are kept in git.

Kept are the numbers of a finished or pruned run as JSON and its answers as CSV, no weights, no
images. They are written from the store, and read where the store has no better: the report of a
clean clone is that of the machine that computed the runs.
"""

import io
import json
import logging
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlparse

import numpy as np
from omegaconf import DictConfig, OmegaConf

from caltech.errors import InputError
from caltech.files import replacing
from caltech.keys import ADDED, decisive, point_key
from caltech.metrics import EPOCH_METRICS, METRICS
from caltech.report.rows import FINISHED, PRUNED, Predictions, Run, flat
from caltech.runs.directory import WEIGHTS, RunDirectory
from caltech.settings import ROOT
from caltech.tracking.description import ENVIRONMENT, hyperparameters

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun


def tracked(tracking: DictConfig, study: str) -> list[Run]:
    """All runs of `study` that a training has tracked; none if there is no store yet.

    Raises:
        InputError: the store does not answer.
    """
    uri = tracking.get("uri")
    path = str(uri).removeprefix("sqlite:///")
    if uri is None or (path != uri and not Path(path).is_file()):
        return []  # to create a store is not a report's work
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    # A person waits: MLflow would try for minutes. A training that outlasts a server may.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    for name in ("alembic", "mlflow"):  # after the import, which sets them to INFO
        logging.getLogger(name).setLevel(logging.WARNING)
    try:
        client = MlflowClient(uri)
        experiment = client.get_experiment_by_name(tracking.experiment)
        found = [] if experiment is None else _search(client, experiment.experiment_id, study)
        return [_run(client, run) for run in found if "seed" in run.data.params]
    except (MlflowException, SQLAlchemyError) as error:
        said = str(error).splitlines()[0]
        raise InputError(
            f"The tracking store {uri} cannot be read: {said}. Type tracking.uri= with the store "
            "that the runs were tracked in, or tracking=none to use kept results alone."
        ) from error


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
    with _files(client, run) as files:
        config = OmegaConf.create(_text(files.config))
        code = {"git": tags.get("mlflow.source.git.commit", ""), "sha256": tags.get("code", "")}
        begun = {"code": code, "environment": tags}
        used = decisive(config)  # older code told root values also where a group had its own
        made_by = [begun, *_json(files.provenance).get("continued_by", ())]
        return Run(
            key=tags["key"],
            point=point_key(config) if _is_whole(config) else tags.get("point", tags["key"]),
            status=status,
            reason=tags.get("failure", ""),
            started=run.info.start_time,
            params=params | {name: str(each) for name, each in hyperparameters(used).items()},
            config=flat(used),
            metrics={name: value for name, value in final.items() if name not in METRICS},
            history={name: _history(client, run_id, name) for name in EPOCH_METRICS},
            seconds=_json(files.timing).get("seconds"),
            environment=_in_turn(made_by, "environment", ENVIRONMENT),
            code=_in_turn(made_by, "code", code),
            data=_json(files.data) or {"name": "", "sha256": tags.get("data", "")},
            experiment=tags.get("experiment") or params.get("experiment"),
            predictions=_answers(files) if status == FINISHED else None,
        )


@contextmanager
def _files(client: "MlflowClient", run: "MlflowRun") -> Iterator[RunDirectory]:
    """MLflow's, which has them of a run that has ended; or its directory's, if that is here.

    Only if it is still this run's: rerun=true gives it to another.
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
        is_ours = not directory.config.is_file() and _text(ours.mlflow_run_id) == run.info.run_id
        yield ours if is_ours else directory


def _text(path: Path) -> str:
    return path.read_text("utf-8") if path.is_file() else ""


def _json(path: Path) -> dict[str, Any]:
    return json.loads(_text(path) or "{}")


def _is_whole(config: DictConfig) -> bool:
    """Whether a run was tracked by code that knew all that decides a result today."""
    return all(name in config or name in ADDED for name, key in ROOT.items() if key.decides)


def _in_turn(made_by: Sequence[dict], what: str, names: Iterable[str]) -> dict[str, str]:
    """Of a run that went on by other code, elsewhere or with other threads, all: it equals none."""
    told = [each[what] for each in made_by]
    return {
        name: ", then ".join(dict.fromkeys(str(each[name]) for each in told if name in each))
        for name in names
        if name in told[0]
    }


def _history(client: "MlflowClient", run_id: str, name: str) -> list[float]:
    by_epoch = {m.step: m.value for m in client.get_metric_history(run_id, name)}
    return [by_epoch[epoch] for epoch in sorted(by_epoch)]


def _answers(files: RunDirectory) -> Predictions | None:
    if not all(files.predictions(name).is_file() for name in WEIGHTS):
        return None
    with np.load(files.predictions("last")) as last, np.load(files.predictions("best")) as best:
        return Predictions(
            indices=last["indices"],
            labels=last["labels"],
            last=last["predictions"],
            best=best["predictions"],
            confidences=last["confidences"].astype(float).round(4),
        )


def kept(folder: Path) -> list[Run]:
    """The runs that were kept, in order of their names."""
    runs = []
    for path in sorted(folder.glob("*.json")):
        run, answers = Run(**json.loads(_text(path))), path.with_suffix(".csv")
        if answers.is_file():
            *columns, confidences = np.loadtxt(answers, delimiter=",", skiprows=1, ndmin=2).T
            columns = [column.astype(np.int64) for column in columns]
            run = replace(run, predictions=Predictions(*columns, confidences))
        runs.append(run)
    return runs


def keep(folder: Path, runs: Iterable[Run]) -> None:
    """A file or two for a run, named by its key; what is there already is replaced."""
    for run in runs:
        if run.status not in (FINISHED, PRUNED):
            continue
        plain = asdict(replace(run, predictions=None))
        _write(folder / f"{run.key}.json", json.dumps(plain, indent=1) + "\n")
        if known := run.predictions:
            text = io.StringIO()
            columns = (known.indices, known.labels, known.last, known.best, known.confidences)
            head = "index,label,last,best,confidence"
            numbers = "%d,%d,%d,%d,%.4f"
            np.savetxt(text, np.column_stack(columns), numbers, header=head, comments="")
            _write(folder / f"{run.key}.csv", text.getvalue())


def _write(path: Path, content: str) -> None:
    """Leave a file that would not change untouched."""
    if _text(path) != content:
        with replacing(path) as partial:
            partial.write_text(content, "utf-8")


def combine(stored: Sequence[Run], retained: Sequence[Run]) -> list[Run]:
    """One run a key: the store's newest finished one, else a finished one that was kept, else the
    store's newest, else a pruned one that was kept.

    Where the store no longer has a run's files, what was kept of the very run is more.
    """
    whole = {(run.key, run.started): run for run in retained}
    ranked = [(False, run) for run in retained]
    for run in stored:
        is_bare = run.status == FINISHED and run.predictions is None
        ranked.append((True, whole.get((run.key, run.started), run) if is_bare else run))
    ranked.sort(key=lambda pair: (pair[1].status == FINISHED, pair[0], pair[1].started))
    best_last = {run.key: run for _, run in ranked}
    return sorted(best_last.values(), key=lambda run: (run.started, run.key))
