"""Where a finished run is: by its key, its directory, or the best on validation."""

import difflib
import glob
from collections.abc import Sequence
from pathlib import Path

from caltech.errors import InputError
from caltech.files import read_sealed_json
from caltech.provenance import PROVENANCE
from caltech.run import recorded_result


def find(run: str, study: str | None, data: str | None, output: Path) -> Path:
    """The directory of a finished run.

    Args:
        run: its key, the path of its directory, or "best" for the highest validation accuracy.
        study: only look there.
        data: with "best", only runs on the data set of this name (or beginning of its SHA-256).
        output: folder of the studies.

    Raises:
        InputError: there is none, or more than one and they differ.
    """
    if (Path(run) / "config.yaml").is_file():
        return Path(run)
    studies = glob.escape(study) if study else "*"
    directories = sorted(path.parent for path in output.glob(f"{studies}/*/config.yaml"))
    place = output / study if study else output
    if not directories:
        raise InputError(
            f"{place} has no runs. Train one with python -m caltech.train, or type output= with "
            "the folder that holds your studies, or run= with a run's directory."
        )
    if run == "best":
        return _best(directories, data, place)
    return _of_key(run, directories, place)


def _of_key(key: str, directories: Sequence[Path], place: Path) -> Path:
    found = [directory for directory in directories if directory.name == key]
    if not found:
        keys = sorted({directory.name for directory in directories})
        close = difflib.get_close_matches(key, keys, n=5, cutoff=0.0)
        raise InputError(
            f"run={key} is neither in {place} nor a run's directory. The closest keys there are "
            f"{', '.join(close)}. Type run=best for the run of highest validation accuracy."
        )
    results = {each: recorded_result(each, pruned_too=False) for each in found}
    finished = [directory for directory, result in results.items() if result is not None]
    if any(results[directory] != results[finished[0]] for directory in finished):
        studies = ", ".join(f"study={directory.parent.name}" for directory in finished)
        raise InputError(
            f"run={key} has different results in several studies: type one of {studies}."
        )
    return (finished or found)[0]


def _best(directories: Sequence[Path], data: str | None, place: Path) -> Path:
    """Validation decides, never the test part. Accuracies on different data cannot be compared."""
    best: dict[tuple[str, str], tuple[tuple[float, float], Path]] = {}
    for directory in directories:
        result = recorded_result(directory, pruned_too=False)
        if result is None:
            continue
        made_from = read_sealed_json(directory / PROVENANCE)["data"]
        if data and data != made_from["name"] and not made_from["sha256"].startswith(data):
            continue
        measured = result["best"]["val/accuracy"], -result["best"]["val/loss"]
        name = made_from["name"], made_from["sha256"]
        if name not in best or measured > best[name][0]:
            best[name] = measured, directory
    if not best:
        wanted = f" on data={data}" if data else ""
        raise InputError(f"{place} has no finished run{wanted}. Train one with caltech.train.")
    if len(best) > 1:
        listed = "; ".join(
            f"data={name if [n for n, _ in best].count(name) == 1 else sha[:8]} "
            f"({directory.name}, {accuracy:.4f})"
            for (name, sha), ((accuracy, _), directory) in best.items()
        )
        raise InputError(
            "The best run of each data set (key, validation accuracy), which cannot be compared: "
            f"{listed}. Type one of these data=, or its key as run=."
        )
    return next(iter(best.values()))[1]
