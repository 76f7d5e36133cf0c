"""sweep=FILE.csv: each line is a job, its cells the values of the names in the first line."""

import csv
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from caltech.errors import InputError

NAME = re.compile(r"[+~]*[\w./@-]+")  # of a column
_jobs: list[list[str]] = []  # of the file that this process's command named


def taken(words: Sequence[str]) -> list[str]:
    """What was typed without sweep=FILE.csv, whose lines are kept for jobs().

    Raises:
        InputError: the file is not a list of jobs, or this is no sweep.
    """
    named = [word for word in words if word.startswith("sweep=") and word.endswith(".csv")]
    _jobs[:] = []
    if not named:
        return [*words]
    if not {"--multirun", "-m"} & {*words}:
        raise InputError(f"{named[0]} is for a sweep, and this is a single run. Add --multirun.")
    if len(named) > 1 or any(word.startswith("hydra/sweeper=") for word in words):
        raise InputError(
            f"{named[-1]} is a list of jobs: it goes neither with another one nor with a search. "
            "Leave hydra/sweeper= or the other file out."
        )
    _jobs[:] = read(Path(named[0].removeprefix("sweep=")).expanduser())
    return [word for word in words if word not in named]


def jobs() -> list[list[str]]:
    """Overrides of each line; none without a file."""
    return _jobs


def columns() -> dict[str, list[str]]:
    """Each name's different values, in their order."""
    found: dict[str, list[str]] = {}
    for word in (word for job in _jobs for word in job):
        name, _, value = word.partition("=")
        if value not in found.setdefault(name, []):
            found[name].append(value)
    return found


def read(path: Path) -> list[list[str]]:
    """Overrides of each line of a file whose first line has their names; every cell has a value.

    Raises:
        InputError: it is not such a file.
    """
    example = "Its first line has names, each other line a job's values, with commas between them "
    example += "and points in numbers, for example lr,momentum and below it 0.1,0.9."
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [[cell.strip() for cell in line] for line in csv.reader(file, strict=True)]
    except (OSError, ValueError, csv.Error) as error:
        said = getattr(error, "strerror", None) or str(error)
        raise InputError(f"sweep={path} cannot be read: {said}. {example}") from error
    (names, *rows) = [line for line in lines if any(line)] or [[]]
    if not rows or not all(map(NAME.fullmatch, names)) or len(set(names)) < len(names):
        raise InputError(f"sweep={path} is no list of jobs with a name each column. {example}")
    for number, cells in enumerate(rows, 1):
        if len(cells) != len(names) or not all(cells):
            raise InputError(
                f"sweep={path}: job {number} has the values {', '.join(cells)}, and there are "
                f"{len(names)} names. Write a value below each, null for none."
            )
    jobs = [[f"{n}={v}" for n, v in zip(names, cells, strict=True)] for cells in rows]
    for number, job in enumerate(jobs, 1):
        for word in filter(_has_several, job):
            raise InputError(
                f"sweep={path}: job {number} has several values in {word}, and a line is one job. "
                "Write a line for each value, or quotes within the cell: '...'."
            )
    return jobs


def _has_several(word: str) -> bool:
    with suppress(HydraException):  # what is none at all is told when the job is composed
        return OverridesParser.create().parse_override(word).is_sweep_override()
    return False
