"""Which file each index of a test part is: from runs' directories, or as it was kept for a study.

The names of a data set are kept once, as kept/images-SHA256.csv: 20 bytes an image.
"""

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from caltech.amounts import printable
from caltech.errors import DamagedError
from caltech.files import replacing, require_no_pipe
from caltech.report.sources.unused import UNREADABLE, Unused
from caltech.report.trained import FINISHED, Run
from caltech.runs import manifest
from caltech.runs.directory import RunDirectory

if TYPE_CHECKING:
    from caltech.data.dataset import Dataset

HEAD = ["index", "file"]
Names = Mapping[int, str]


def named(folder: Path, runs: Iterable[Run]) -> tuple[dict[str, Names], list[Unused]]:
    """By the data's SHA-256, the names that a study's folder tells, and files that tell none."""
    names: dict[str, Names] = {}
    unused: dict[str, Unused] = {}
    for run in (run for run in runs if run.status == FINISHED):
        digest = run.data["sha256"]
        of_run, of_study = RunDirectory(folder / run.key), kept_names(folder, digest)
        for path, read in ((of_study, _kept), (of_run.images, _of_run)):
            if digest in names or not path.is_file():
                continue
            try:
                names[digest] = read(path)
            except UNREADABLE as error:
                unused[str(path)] = Unused.of(path, folder, error)
    return names, list(unused.values())


def names_of(data: "Dataset") -> Names:
    """Of the data set itself."""
    return {index: printable(data.files[index]) for index in data.test.tolist()}


def kept_names(folder: Path, digest: str) -> Path:
    """Where the names of a data set are kept in a study's folder."""
    return folder / "kept" / f"images-{digest[:16]}.csv"


def keep_names(folder: Path, names: Mapping[str, Names]) -> None:
    """What is kept already stays as it is."""
    for digest, files in names.items():
        path = kept_names(folder, digest)
        if path.is_file():
            continue
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([HEAD, *sorted(files.items())])
        with replacing(path) as partial:
            partial.write_text(text.getvalue(), "utf-8")


def _kept(path: Path) -> Names:
    head, *rows = _rows(path)
    if head != HEAD or not rows:
        raise DamagedError("it was cut short or changed")
    return {int(index): file for index, file in rows}


def _of_run(path: Path) -> Names:
    manifest.verify(RunDirectory(path.parent), [path])
    _, *rows = _rows(path)
    return {int(index): file for part, index, file in rows if part == "test"}


def _rows(path: Path) -> list[list[str]]:
    require_no_pipe(path)
    with path.open(encoding="utf-8", errors="surrogateescape", newline="") as file:
        return [[printable(cell) for cell in row] for row in csv.reader(file)]
