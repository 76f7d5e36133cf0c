"""Ensembles of a study's runs: the mean of their probabilities, computed when asked for, and kept.

kept/ensembles/KEY.json has members and numbers, KEY.csv the answers beside those of the best single
member. As of runs, an edited file is named and not used. Deleting the two files ends the row.
"""

import hashlib
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from caltech.errors import DamagedError, InputError
from caltech.files import replacing
from caltech.report import statistics
from caltech.report.sources.unused import UNREADABLE, Unused, entries, text_of
from caltech.report.trained import FINISHED, Predictions, Run
from caltech.runs.directory import RunDirectory

HEAD = "index,label,last,best,confidence,single"
ANSWERS, WHOLE = "answers sha256", "sha256"  # the last keys of a JSON file


@dataclass(frozen=True, eq=False)
class Ensemble:
    """One of the rows that are no single network."""

    key: str
    members: list[dict[str, str]]  # key and name of each
    single: str  # key of the member of highest validation accuracy
    metrics: dict[str, float]
    predictions: Predictions
    single_answers: np.ndarray  # (n,) that member's, of its last epoch

    @property
    def name(self) -> str:
        return f"mean of {len(self.members)}: " + ", ".join(m["name"] for m in self.members)

    @property
    def single_accuracy(self) -> float:
        return float((self.single_answers == self.predictions.labels).mean())

    @property
    def interval(self) -> statistics.Interval:
        return statistics.of_accuracy([self.metrics["test/accuracy"]], len(self.single_answers))

    @cached_property
    def pair(self) -> tuple[int, int, float]:
        """McNemar's test beside the best single member: only the one right, the other, p."""
        right = self.single_answers == self.predictions.labels
        return statistics.mcnemar(self.predictions.correct, right)


def add(folder: Path, runs: Sequence[Run], keys: Sequence[str]) -> Path:
    """Compute an ensemble of a study's runs and keep it; the file of its numbers.

    Raises:
        InputError: a key is none of a finished run here, a run has no logits, or they differ in
            classes or images.
    """
    by_key = {run.key: run for run in runs}
    members = [_member(by_key.get(key), key, folder) for key in keys]
    ensemble = _joined(members, [RunDirectory(folder / run.key) for run in members])
    place = folder / "kept" / "ensembles"
    text = _csv(ensemble)
    told = {"key": ensemble.key, "members": ensemble.members, "single": ensemble.single}
    told["metrics"] = ensemble.metrics
    told |= {ANSWERS: _sha256(text), WHOLE: _digest(told, _sha256(text))}
    contents = {".csv": text, ".json": json.dumps(told, indent=1) + "\n"}
    for suffix, content in contents.items():
        with replacing(place / f"{ensemble.key}{suffix}") as partial:
            partial.write_text(content, "utf-8")
    return place / f"{ensemble.key}.json"


def _member(run: Run | None, key: str, folder: Path) -> Run:
    if run is None or run.status != FINISHED:
        what = "is no run" if run is None else f"is {run.state}: it is no finished run"
        raise InputError(
            f"ensemble: {key} {what} of the study in {folder}. Type study= with the study that has "
            "all its runs, and keys of finished runs as `caltech runs` lists them."
        )
    if not RunDirectory(folder / key).result.is_file():
        raise InputError(
            f"ensemble: the directory of {key} is not in {folder}. What is kept of a run is its "
            "answers with their confidence, and the mean needs the probabilities of all classes. "
            "Copy the directory there, or type its training command with logits=keep."
        )
    if run.predictions is None:
        raise InputError(f"ensemble: the answers of {key} cannot be read. Leave {key} out.")
    return run


def _joined(members: Sequence[Run], directories: Sequence[RunDirectory]) -> Ensemble:
    from caltech.runs import logits  # imports torch

    logits.require_alike(directories, [run.data["classes"] for run in members])
    last, best = (logits.mean_of(directories, name) for name in ("last", "best"))
    test = last["test"]
    answers = {"": test.logits.argmax(1), "best_": best["test"].logits.argmax(1)}
    metrics = {f"test/{n}accuracy": float((a == test.labels).mean()) for n, a in answers.items()}
    right, count = statistics.per_class(test.labels, answers[""] == test.labels)
    metrics["test/accuracy_per_class"] = float(right[count > 0].mean())
    single = members[0]
    if not any(run.config.get("split.train_on_validation") for run in members):
        for name, scores in (("", last["validation"]), ("best_", best["validation"])):
            found = scores.logits.argmax(1) == scores.labels
            metrics[f"val/{name}accuracy"] = float(found.mean())
        told = logits.measured(last)
        if "temperature" in told:
            metrics["test/temperature"] = told["temperature"]
            metrics[logits.CALIBRATED] = told[logits.CALIBRATED]
        single = max(members, key=lambda run: run.metrics["val/best_accuracy"])
    confidences = np.exp(test.logits.max(1)).round(4)
    keys = sorted(run.key for run in members)
    return Ensemble(
        key=_sha256("\n".join(keys))[:10],
        members=[{"key": run.key, "name": _name(run)} for run in members],
        single=single.key,
        metrics=metrics,
        predictions=Predictions(
            test.indices, test.labels, answers[""], answers["best_"], confidences
        ),
        single_answers=single.predictions.last,
    )


def _name(run: Run) -> str:
    """What a reader tells members by."""
    return f"{run.params.get('model', run.key)} seed {run.seed} ({run.key})"


def kept(folder: Path) -> tuple[list[Ensemble], list[Unused]]:
    """The ensembles that were kept, the best in validation first, and files that are none."""
    paths, unused = entries(folder)
    found = []
    for path in (path for path in paths if path.suffix == ".json"):
        try:
            found.append(_read(path))
        except UNREADABLE as error:
            unused.append(Unused.of(path, folder.parent.parent, error))
    found.sort(key=lambda each: (-each.metrics.get("val/best_accuracy", 0.0), each.key))
    return found, unused


def _read(path: Path) -> Ensemble:
    told, text = json.loads(text_of(path)), text_of(path.with_suffix(".csv"))
    whole, answers = told.pop(WHOLE), told.pop(ANSWERS)
    if whole != _digest(told, answers) or answers != _sha256(text) or told["key"] != path.stem:
        raise DamagedError("it does not match its checksum")
    head, _, lines = text.partition("\n")
    table = np.loadtxt(io.StringIO(lines), delimiter=",", ndmin=2)
    if head != HEAD or table.shape[1] != 6:
        raise DamagedError("it has not six numbers a line")
    index, label, last, best, confidence, single = table.T
    numbers = [column.astype(np.int64) for column in (index, label, last, best)]
    known = Predictions(*numbers, confidence)
    if abs(known.correct.mean() - told["metrics"]["test/accuracy"]) > 1e-6:
        raise DamagedError("its accuracy is not that of its answers")
    return Ensemble(**told, predictions=known, single_answers=single.astype(np.int64))


def _csv(ensemble: Ensemble) -> str:
    text, known = io.StringIO(), ensemble.predictions
    columns = [known.indices, known.labels, known.last, known.best, known.confidences]
    columns.append(ensemble.single_answers)
    np.savetxt(text, np.column_stack(columns), "%d,%d,%d,%d,%.4f,%d", header=HEAD, comments="")
    return text.getvalue()


def _digest(told: dict[str, Any], answers: str) -> str:
    return _sha256(json.dumps([told, answers], sort_keys=True))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
