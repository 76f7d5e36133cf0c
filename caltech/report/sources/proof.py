"""Whether what was read of a run is a run: its shape, its key, and numbers that fit its answers.

A checksum tells what was damaged. This tells what was edited, mixed up or made up, also in files of
before there were checksums. What cannot be told: a number that nothing else in the file depends on.
"""

import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from caltech.amounts import counted
from caltech.errors import OF_ANOTHER_SHAPE, DamagedError
from caltech.keys import ADDED, LISTS_WITHIN, decisive, former_key, point_key, run_key
from caltech.metrics import EPOCH_METRICS
from caltech.report.trained import (
    FINISHED,
    INTERRUPTED,
    PRUNED,
    RUNNING,
    Predictions,
    Run,
    flat,
    nested,
)
from caltech.settings import ROOT
from caltech.tracking.description import hyperparameters

MOST = 3.5e38  # float32 reaches to 3.4e38, and no number of a training is beyond it
LAST_DAY = 253_402_300_799_000  # ms since 1970, of the last year that has four digits
MEASURED = (
    "test/accuracy",
    "test/accuracy_per_class",
    "test/best_accuracy",
    "val/best_accuracy",
    "val/best_epoch",
)
# Former keys told 0 and 0.0 apart. Configs hold one form of both, so the others are tried.
MOST_FORMS = 8

Key = Annotated[str, Field(pattern="^[0-9a-f]{10}$")]
Number = Annotated[float, Field(ge=-MOST, le=MOST, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]


class _Code(BaseModel):
    git: str
    sha256: str


class _Data(BaseModel):
    model_config = ConfigDict(strict=True)

    name: str
    sha256: str
    images: dict[str, Annotated[int, Field(ge=1)]] | None = None
    majority_accuracy: Share | None = None
    classes: list[str] | None = None


class _Shape(BaseModel):
    """The fields of a Run, but for its answers."""

    model_config = ConfigDict(strict=True, extra="forbid")

    key: Key
    point: Key
    status: Literal[FINISHED, PRUNED, RUNNING, INTERRUPTED, "scheduled", "failed", "killed"]
    reason: str
    started: Annotated[int, Field(ge=0, le=LAST_DAY)]
    params: dict[str, str]
    config: dict[str, Any]
    metrics: dict[str, Number]
    history: dict[str, list[Number]]
    seconds: Annotated[Number, Field(ge=0)] | None
    environment: dict[str, str]
    code: _Code
    data: _Data
    experiment: str | None


def run_of(told: Mapping[str, Any], source: str) -> Run:
    """A run of what was told of it, without answers: every field of Run but the last two.

    What its config decides is taken from there: point and hyperparameters.

    Raises:
        DamagedError: it is none; says what does not fit.
    """
    try:
        _Shape.model_validate(dict(told))
    except ValidationError as error:
        first = error.errors()[0]
        raise DamagedError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
    try:
        text = json.dumps(dict(told), ensure_ascii=False)
        text.encode()
    except ValueError as error:  # half a character
        raise DamagedError(f"a text in it is none: {error}") from None
    if "${" in text:  # what a run writes is resolved, and a report reads no environment
        raise DamagedError("it refers to values that are elsewhere")
    run = Run(**told, source=source)
    if run.config:
        run = _by_config(run)
    for name in ("seed", "num_epochs"):
        if not run.params.get(name, "").isdecimal():
            raise DamagedError(f"params.{name} is {run.params.get(name)} and no number")
    _require_epochs(run)
    if run.status == FINISHED:
        _require_measured(run)
    return run


def answered(run: Run, known: Predictions) -> Run:
    """A finished run with its answers.

    Raises:
        DamagedError: they are not this run's, or its numbers are not; says what does not fit.
    """
    data, count = run.data, len(known.indices)
    if None in (data.get("images"), data.get("classes"), data.get("majority_accuracy")):
        raise DamagedError("it has answers, but nothing is told of its data")
    if count != data["images"].get("test"):
        raise DamagedError(f"it has {count} answers for {data['images'].get('test')} test images")
    numbers = np.stack([known.labels, known.last, known.best])
    if numbers.min() < 0 or numbers.max() >= len(data["classes"]):
        raise DamagedError("a label or an answer is none of its classes")
    if known.indices.min() < 0 or len(np.unique(known.indices)) < count:
        raise DamagedError("an image has two answers")
    if not ((known.confidences >= 0) & (known.confidences <= 1)).all():
        raise DamagedError("a confidence is not from 0 to 1")
    for name, answers in (("test/accuracy", known.last), ("test/best_accuracy", known.best)):
        found = float((answers == known.labels).mean())
        if abs(run.metrics[name] - found) > 1e-6:
            raise DamagedError(f"{name} is {run.metrics[name]}, and its answers come to {found}")
    return replace(run, predictions=known)


def is_whole(used: Mapping[str, Any]) -> bool:
    """Whether a run was begun by code that knew all that decides a result today."""
    return all(name in used or name in ADDED for name, key in ROOT.items() if key.decides)


def fits(key: str, used: Mapping[str, Any]) -> bool:
    """Whether what decides a run (keys.decisive) has this key, or had it when keys told 0 and 0.0
    apart.

    What names lists of files that are not here cannot be told, and is believed.
    """
    lists = [used.get(group, {}).get(name) for group, of in LISTS_WITHIN.items() for name in of]
    if not all(name is None or re.fullmatch("[0-9a-f]{64}", name) for name in lists):
        return True
    return key == run_key(used) or any(former_key(form) == key for form in _forms(used))


def _by_config(run: Run) -> Run:
    try:
        used = decisive(nested(run.config))
        if not fits(run.key, used):
            raise DamagedError(f"its config is of run {run_key(used)} and not of {run.key}")
        params = {name: str(value) for name, value in hyperparameters(used).items()}
        point = point_key(used) if is_whole(used) else run.point
    except OF_ANOTHER_SHAPE as error:
        said = f"{type(error).__name__}: {error}".splitlines()[0]
        raise DamagedError(f"its config is none ({said})") from None
    return replace(run, params=run.params | params, point=point, config=flat(used))


def _forms(used: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """With each whole number that can have been typed so, with and without a point."""
    leaves = {name: value for name, value in flat(used).items() if "." in name}
    whole = [k for k, v in leaves.items() if type(v) in (int, float) and v == v // 1]
    typed = [name for name in whole if not name.startswith("data.")][:MOST_FORMS]
    for kinds in itertools.product((float, int), repeat=len(typed)):
        other = {name: kind(leaves[name]) for name, kind in zip(typed, kinds, strict=True)}
        yield nested({**flat(used), **other})


def _require_epochs(run: Run) -> None:
    """As many numbers of each kind, and of a finished run as many as it was to have epochs."""
    if lacking := [name for name in EPOCH_METRICS if name not in run.history]:
        raise DamagedError(f"its history has no {', '.join(lacking)}")
    counts = {name: len(run.history[name]) for name in EPOCH_METRICS}
    if len(set(counts.values())) != 1:
        raise DamagedError(f"its history has other epochs for other metrics: {counts}")
    is_short = run.status == FINISHED and run.epochs < run.asked and not _has_waited(run)
    if run.epochs > run.asked or is_short:
        raise DamagedError(f"its history has {counted(run.epochs, 'epoch')} and not {run.asked}")
    shares = itertools.chain(run.history["train/accuracy"], run.history["val/accuracy"])
    if not all(0 <= share <= 1 for share in shares):
        raise DamagedError("an accuracy of its history is not from 0 to 1")


def _has_waited(run: Run) -> bool:
    """Whether it was to end here, by its patience."""
    patience, by_epoch = run.config.get("patience"), run.history["val/accuracy"]
    waited = len(by_epoch) - 1 - by_epoch.index(max(by_epoch)) if by_epoch else 0
    return patience is not None and waited == patience


def _require_measured(run: Run) -> None:
    if lacking := [name for name in MEASURED if name not in run.metrics]:
        raise DamagedError(f"it is finished, but has no {', '.join(lacking)}")
    for name, value in run.metrics.items():
        if "accuracy" in name and not 0 <= value <= 1:
            raise DamagedError(f"{name} is {value} and not from 0 to 1")
    best, epoch = run.metrics["val/best_accuracy"], run.metrics["val/best_epoch"]
    by_epoch = run.history["val/accuracy"]
    is_epoch = epoch in range(1, run.epochs + 1)
    if not is_epoch or not best == by_epoch[int(epoch) - 1] == max(by_epoch):
        raise DamagedError(
            f"its best epoch {epoch:g} with val/best_accuracy {best} is not that of its history"
        )
