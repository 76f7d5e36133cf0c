"""Results that are kept in git: a run's numbers as JSON, its answers as CSV.

No weights, no images. The report of a clean clone is that of the machine that computed the runs.
Each JSON file ends with digests of itself and of its CSV; files of before have none, and are
believed as far as their parts fit each other (proof.py). No file is renewed that says the same.
"""

import hashlib
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from caltech.errors import DamagedError
from caltech.files import replacing
from caltech.report.sources.proof import answered, run_of
from caltech.report.sources.unused import UNREADABLE, Unused, entries, text_of
from caltech.report.trained import FINISHED, PRUNED, Predictions, Run

HEAD = "index,label,last,best,confidence"
ANSWERS, WHOLE = "answers sha256", "sha256"  # the last keys of a JSON file


def kept(folder: Path) -> tuple[list[Run], list[Unused]]:
    """The runs that were kept, in order of their names, and files that are not what was kept."""
    paths, unused = entries(folder)
    runs = []
    for path in (path for path in paths if path.suffix == ".json"):
        try:
            run, wrong = _read(path)
        except UNREADABLE as error:
            unused.append(Unused.of(path, folder.parent, error))
            continue
        runs.append(run)
        unused += wrong
    return runs, unused


def _read(path: Path) -> tuple[Run, list[Unused]]:
    """A run, without answers where these are another's or are cut, which is told."""
    told = json.loads(text_of(path))
    if not isinstance(told, dict) or told.pop("predictions", None) is not None:
        raise DamagedError("it is not what a report keeps")
    whole, answers = told.pop(WHOLE, None), told.pop(ANSWERS, None)
    if whole is not None and whole != _digest(told, answers):
        raise DamagedError("it does not match its checksum")
    if not told.get("config") or told.get("key") != path.stem:
        raise DamagedError(f"it is of run {told.get('key')}, or says nothing of its config")
    place = str(path.parent)
    bare, file = run_of(told, place), path.with_suffix(".csv")
    if bare.status not in (FINISHED, PRUNED):
        raise DamagedError(f"its run is {bare.status}, and only what has ended is kept")
    try:
        known = _answers_of(bare, file, answers)
    except UNREADABLE as error:
        return bare, [Unused.of(file, path.parent.parent, error)]
    return (bare if known is None else answered(bare, known)), []


def _answers_of(run: Run, file: Path, digest: str | None) -> Predictions | None:
    """None if none were kept."""
    if digest is None and not file.exists():
        return None
    text = text_of(file)
    if digest is not None and digest != _sha256(text):
        raise DamagedError("it is not the file that was kept with the run's numbers")
    known = _answers(text)
    if len(known.indices) != run.images("test"):
        raise DamagedError(f"it has {len(known.indices)} answers, not {run.images('test')}")
    return known


def _answers(text: str) -> Predictions:
    head, _, lines = text.partition("\n")
    if head != HEAD or not lines.endswith("\n"):
        raise DamagedError("it was cut short or changed")
    table = np.loadtxt(io.StringIO(lines), delimiter=",", ndmin=2)
    if table.shape[1] != 5 or not np.isfinite(table).all() or (np.abs(table) > 2**53).any():
        raise DamagedError("it does not have five numbers a line")
    *columns, confidences = table.T
    if any((column % 1).any() for column in columns):
        raise DamagedError("an image, a label or an answer is no whole number")
    return Predictions(*(column.astype(np.int64) for column in columns), confidences)


def keep(folder: Path, runs: Iterable[Run], found: Iterable[Run]) -> None:
    """A file or two for a run that has ended, named by its key.

    Args:
        found: what kept() gave: of those, the files that say the same are left as they are.
    """
    before = {run.key: run for run in found}
    for run in runs:
        if run.status in (FINISHED, PRUNED) and not _says(before.get(run.key), run):
            text = None if run.predictions is None else _csv(run.predictions)
            if text is not None:
                _write(folder / f"{run.key}.csv", text)
            _write(folder / f"{run.key}.json", _json(run, text))


def renewable(runs: Iterable[Run]) -> set[str]:
    """The files, as kept() names them, that keep() makes again if they are not what was kept."""
    ended = [run for run in runs if run.status in (FINISHED, PRUNED)]
    answered = {f"kept/{run.key}.csv" for run in ended if run.predictions is not None}
    return answered | {f"kept/{run.key}.json" for run in ended}


def _says(before: Run | None, run: Run) -> bool:
    if before is None or before != run:
        return False
    is_bare = before.predictions is None, run.predictions is None
    return is_bare == (False, False) or is_bare[1]


def _json(run: Run, answers: str | None) -> str:
    told = asdict(replace(run, predictions=None))
    del told["source"], told["place"]
    digests = {ANSWERS: None if answers is None else _sha256(answers)}
    plain = {name: value for name, value in told.items() if name != "predictions"}
    digests[WHOLE] = _digest(plain, digests[ANSWERS])
    return json.dumps(told | digests, indent=1) + "\n"


def _csv(known: Predictions) -> str:
    text = io.StringIO()
    columns = (known.indices, known.labels, known.last, known.best, known.confidences)
    np.savetxt(text, np.column_stack(columns), "%d,%d,%d,%d,%.4f", header=HEAD, comments="")
    return text.getvalue()


def _write(path: Path, content: str) -> None:
    with replacing(path) as partial:
        partial.write_text(content, "utf-8")


def _digest(plain: Mapping[str, Any], answers: str | None) -> str:
    """Of all that a file says, however it is laid out."""
    return _sha256(json.dumps([plain, answers], sort_keys=True))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
