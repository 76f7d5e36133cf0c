"""Results kept in git: a run's numbers as JSON and its answers as CSV, no weights, no images.

Written from finished and pruned runs of the tracking store alone, and read where the store is
not: the report of a clean clone is that of the machine that computed the runs.
"""

import csv
import io
import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from caltech.files import replacing
from caltech.report.rows import FINISHED, PRUNED, Predictions, Run

COLUMNS = ("index", "label", "last", "best", "confidence")


def write(folder: Path, runs: Iterable[Run]) -> None:
    """A file or two for a run, named by its key; what is there already is replaced."""
    for run in runs:
        if run.status not in (FINISHED, PRUNED):
            continue
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder / f"{run.key}.json", json.dumps(run.plain(), indent=1) + "\n")
        if run.predictions is not None:
            _write(folder / f"{run.key}.csv", _table(run.predictions))


def read(folder: Path) -> list[Run]:
    """The runs that were kept, in order of their names."""
    runs = []
    for path in sorted(folder.glob("*.json")):
        run = Run(**json.loads(path.read_text("utf-8")))
        answers = path.with_suffix(".csv")
        predictions = _predictions(answers) if answers.is_file() else None
        runs.append(replace(run, predictions=predictions))
    return runs


def _write(path: Path, content: str) -> None:
    """Leave a file that would not change untouched."""
    if path.is_file() and path.read_text("utf-8") == content:
        return
    with replacing(path) as partial:
        partial.write_text(content, "utf-8")


def _table(predictions: Predictions) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    columns = (predictions.indices, predictions.labels, predictions.last, predictions.best)
    for *numbers, confidence in zip(*columns, predictions.confidences, strict=True):
        writer.writerow([*numbers, f"{confidence:.4f}"])
    return text.getvalue()


def _predictions(path: Path) -> Predictions:
    columns = np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2).T
    indices, labels, last, best = columns[:4].astype(np.int64)
    return Predictions(indices, labels, last, best, columns[4])
