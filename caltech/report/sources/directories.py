"""Runs from a study's folder: each run's directory says what it is, and is asked before all else.

It is only read: no lock file is made, no checkpoint renamed. Nothing here asks MLflow. torch is
loaded for a run of earlier code alone, whose curves are in its checkpoint and nowhere else.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from caltech.errors import DamagedError
from caltech.files import read_sealed_json, require_no_pipe
from caltech.keys import decisive, point_key, run_key
from caltech.metrics import EPOCH_METRICS, METRICS, final
from caltech.report.rows import Published
from caltech.report.sources.options import options_of
from caltech.report.sources.proof import answered, fits, run_of
from caltech.report.sources.unused import UNREADABLE, Unused, entries, text_of
from caltech.report.trained import FINISHED, INTERRUPTED, RUNNING, THEN, Predictions, Run, flat
from caltech.runs import manifest
from caltech.runs.directory import WEIGHTS, RunDirectory
from caltech.tracking.description import ENVIRONMENT, hyperparameters

# What was typed, and how a run's process ended without a result, as tracking notes them.
DESCRIPTION, ENDED = "description.json", "ended.json"
NO_RUNS = ("kept", "pictures", "sweeps")  # folders of a study that are no run's
NOT_VERSIONS = ("platform", "host")  # of an environment, where and not what with


def found(folder: Path, experiments: Sequence[Published]) -> tuple[list[Run], list[Unused]]:
    """All runs whose directories are in a study's folder, and what is wrong with the others.

    Args:
        experiments: to know again which of them a run was.
    """
    paths, unused = entries(folder)
    runs = []
    for directory in (RunDirectory(path) for path in paths if path.name not in NO_RUNS):
        try:
            if directory.config.is_file() or directory.result.is_file():
                run, wrong = _run(directory, experiments)
                runs.append(run)
                unused += wrong
        except UNREADABLE as error:
            unused.append(Unused.of(directory.path, folder, error))
    return runs, unused


def _run(directory: RunDirectory, experiments: Sequence[Published]) -> tuple[Run, list[Unused]]:
    """A run, without answers where these cannot be read, which is told."""
    config = read_config(directory.config)
    result = read_sealed_json(directory.result) if directory.result.is_file() else None
    is_bound = directory.manifest.is_file()  # of earlier code, the config's key is all there is
    if result is not None and is_bound:
        files = [directory.config, directory.provenance, directory.data, directory.timing]
        manifest.verify(directory, [*files, directory.history, directory.result])
    used = decisive(config)
    told = _told(directory, used, result) | _chosen(directory, config, used, experiments)
    bare = run_of(told, str(directory.path.parent))
    if bare.status != FINISHED:
        return bare, []
    try:
        bare = replace(bare, metrics=bare.metrics | calibrated(directory, is_bound))
    except UNREADABLE as error:
        return bare, [Unused.of(directory.calibration, directory.path.parent, error)]
    try:
        if is_bound:
            manifest.verify(directory, map(directory.predictions, WEIGHTS))
        known = answers(directory)
    except UNREADABLE as error:
        return bare, [Unused.of(directory.path, directory.path.parent, error)]
    return answered(bare, known), []


def calibrated(directory: RunDirectory, is_bound: bool) -> dict[str, float]:
    """Temperatures, the test's calibration error without and with them; nothing of earlier code.

    Raises:
        DamagedError: the file is not what the run wrote, if it `is_bound` to its files.
    """
    if not directory.calibration.is_file():
        return {}
    if is_bound:
        manifest.verify(directory, [directory.calibration])
    told, numbers = read_sealed_json(directory.calibration, dict.fromkeys(WEIGHTS, dict)), {}
    for name, prefix in zip(WEIGHTS, ("test/", "test/best_"), strict=True):
        for each in ("temperature", "calibration_error", "calibrated_error"):
            value = told[name].get(each, told[name].get(f"test/{each}"))
            if value is not None:
                numbers[f"{prefix}{each}"] = float(value)
    return numbers


def _told(
    directory: RunDirectory, used: Mapping[str, Any], result: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The fields of a Run that its files tell."""
    key = result["key"] if result is not None else _key(directory, used)
    if not fits(key, used):
        raise DamagedError(f"its config is of run {run_key(used)}, and its result of {key}")
    made_from = read_sealed_json(directory.provenance)
    made_by = [made_from, *made_from.get("continued_by", ())]
    data = _json(directory.data) if result is not None else made_from["data"]
    if data["sha256"] != made_from["data"]["sha256"]:
        raise DamagedError("data.json and provenance.json are of different data")
    started, history = _history(directory)
    status, reason = (result["status"], "") if result is not None else _state(directory)
    measured = final(result["last"], result["best"]) if status == FINISHED else {}
    return {
        "key": key,
        "point": point_key(used),
        "status": status,
        "reason": reason,
        "started": started,
        "config": flat(used),
        "metrics": {k: float(v) for k, v in measured.items() if k not in METRICS},
        "history": history,
        "seconds": _json(directory.timing)["seconds"] if result is not None else None,
        "environment": environment(made_by),
        "code": in_turn(made_by, "code", ("git", "sha256")),
        "data": data,
    }


def read_config(path: Path) -> dict[str, Any]:
    """A run's config as it was written: resolved, and plain, which is faster to look at.

    Raises:
        DamagedError: it is none. What reads YAML raises its own errors.
    """
    require_no_pipe(path)
    with path.open("rb") as file:
        config = yaml.load(file, Loader=yaml.CSafeLoader)
    if not isinstance(config, dict) or "model" not in config:
        raise DamagedError(f"{path.name} is no run's config")
    return config


def _key(directory: RunDirectory, used: Mapping[str, Any]) -> str:
    """Of a run without a result: the directory's name if it can be, which may be a former key."""
    name = directory.path.name
    return name if re.fullmatch("[0-9a-f]{10}", name) and fits(name, used) else run_key(used)


def _chosen(
    directory: RunDirectory,
    config: Mapping[str, Any],
    used: Mapping[str, Any],
    experiments: Sequence[Published],
) -> dict[str, Any]:
    """Parameters and experiment as they were typed; of earlier code, as the config tells them:
    its options, and the experiment whose published numbers it has.
    """
    if (path := directory.path / DESCRIPTION).is_file():
        known = read_sealed_json(path)
        return {"params": known["params"], "experiment": known["params"].get("experiment")}
    own = config.get("published") or {}
    place = own.get("table"), own.get("row")
    named = [each.experiment for each in experiments if (each.table, each.name) == place]
    chosen = [("experiment", each) for each in named[:1]]
    params = hyperparameters(used) | dict(chosen) | options_of(config)
    told = {name: str(value) for name, value in params.items()}
    return {"params": told, "experiment": told.get("experiment")}


def _state(directory: RunDirectory) -> tuple[str, str]:
    """Of a run without a result, and why; nothing is known of one that was killed at once."""
    if directory.is_held():
        return RUNNING, ""
    if not (path := directory.path / ENDED).is_file():
        return INTERRUPTED, ""
    ended = read_sealed_json(path)
    return ended["status"].lower(), ended["reason"]


def _history(directory: RunDirectory) -> tuple[int, dict[str, list[float]]]:
    """When it began, and each epoch's numbers; of earlier code the time of its oldest file."""
    told: Mapping[str, Any] = {"epochs": []}
    if directory.history.is_file():
        told = read_sealed_json(directory.history)
    elif directory.checkpoint.is_file():
        told = {"epochs": _checkpointed(directory.checkpoint)}
    history = {name: [epoch[name] for epoch in told["epochs"]] for name in EPOCH_METRICS}
    return told.get("started") or int(directory.config.stat().st_mtime * 1000), history


def _checkpointed(path: Path) -> list[dict[str, float]]:
    """The epochs that a checkpoint tells of."""
    import torch

    try:
        saved = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # whatever torch, zipfile and pickle raise for other bytes
        said = str(error).splitlines()[0]
        raise DamagedError(f"{path.name} cannot be read: {said}") from None
    return saved["progress"]["history"]


def environment(made_by: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """What a run was made on and with."""
    names = dict.fromkeys([*ENVIRONMENT, *made_by[0]["environment"]])
    return in_turn(made_by, "environment", [name for name in names if name not in NOT_VERSIONS])


def in_turn(
    made_by: Sequence[Mapping[str, Any]], what: str, names: Iterable[str]
) -> dict[str, str]:
    """Of a run that went on by other code, elsewhere or with other threads, all: it equals none."""
    told = [each[what] for each in made_by]
    return {
        name: THEN.join(dict.fromkeys(str(each[name]) for each in told if name in each))
        for name in names
        if name in told[0]
    }


def answers(directory: RunDirectory) -> Predictions:
    """On the test images, by the weights of both epochs.

    Raises:
        DamagedError: they are not there, or of different images. numpy raises its own errors.
    """
    if not all(directory.predictions(name).is_file() for name in WEIGHTS):
        raise DamagedError("its answers on the test images are not there")
    last, best = (_arrays(directory.predictions(name)) for name in WEIGHTS)
    for name in ("indices", "labels"):
        if not np.array_equal(last[name], best[name]):
            raise DamagedError("its two files of answers are of different images")
    return Predictions(
        indices=last["indices"],
        labels=last["labels"],
        last=last["predictions"],
        best=best["predictions"],
        confidences=last["confidences"].astype(float).round(4),
    )


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """Four of one length: whole numbers, and confidences."""
    require_no_pipe(path)
    with path.open("rb") as opened, np.load(opened) as file:
        arrays = {name: file[name] for name in ("indices", "labels", "predictions", "confidences")}
    if len({array.shape for array in arrays.values()}) != 1 or arrays["labels"].ndim != 1:
        raise DamagedError(f"{path.name} has answers of other shapes")
    if not all(arrays[name].dtype.kind in "iu" for name in ("indices", "labels", "predictions")):
        raise DamagedError(f"{path.name} has answers that are no whole numbers")
    return arrays


def _json(path: Path) -> dict[str, Any]:
    return json.loads(text_of(path))
