"""Print a sweep's table, also while it runs: `python -m caltech.sweeps [STUDY] [SWEEP]`."""

import argparse
import logging
import re
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path

from caltech import errors
from caltech.arguments import Parser, nearest
from caltech.config import project_root
from caltech.errors import DiskError, InputError
from caltech.files import write_bytes
from caltech.sweeps import line, records, table
from caltech.words import shell

USAGE = """\
python -m caltech.sweeps [STUDY] [SWEEP] [--watch]
                                [csv=FILE|true] [output=FOLDER]"""
WATCH = ("true", "false")
WATCH_SECONDS, WIDTH = 1.0, 80
DESCRIPTION = """\
Print a sweep's table as it is now: also the jobs that run, wait or are missing.
A terminal shows the first few of those that wait; a file or a pipe has all.

  python -m caltech.sweeps                         the newest sweep
  python -m caltech.sweeps search_head             the newest of a study
  python -m caltech.sweeps search_head 20261125T10   one whose name begins so
  python -m caltech.sweeps search_head --watch  how far it is, until it ends
  python -m caltech.sweeps search_head csv=table.csv   all that is known of it
  python -m caltech.sweeps search_head csv=true   the same, printed
"""


def main(words: Sequence[str]) -> None:
    """The command."""
    parser = Parser(USAGE, DESCRIPTION)
    parser.add_argument("study", metavar="STUDY", nargs="?", help="default: all studies")
    parser.add_argument("sweep", metavar="SWEEP", nargs="?", help="default: the newest")
    parser.add_argument("--output", metavar="FOLDER", default=f"{project_root()}/multirun",
        help="where the studies are (default: %(default)s)")  # fmt: skip
    parser.add_argument("--watch", nargs="?", default="false", const="true", choices=WATCH,
        help="show one line that changes, and the table at the end")  # fmt: skip
    parser.add_argument("--csv", metavar="FILE", help="write the table there, too; true prints it")
    given = _read(parser, words)
    is_printed = given.csv == "true"
    path = None if given.csv in (None, *WATCH) else _table_at(Path(given.csv).expanduser())
    if is_printed and given.watch == "true":
        raise InputError("csv=true and --watch cannot both be. Type csv=FILE, or leave one out.")
    folder = find(Path(given.output).expanduser(), given.study, given.sweep)
    if is_printed:
        print(table.as_csv(records.rows(folder)), end="")
        return
    named = f"sweep {folder.name} of study {folder.parent.parent.name}: {table.outlook(folder)}"
    print(textwrap.fill(named, WIDTH, subsequent_indent="  ", break_on_hyphens=False))
    if given.watch == "true":
        watch(folder)
    jobs = records.rows(folder)
    table.show(jobs)
    if path is not None:
        _write(path, table.as_csv(jobs))


def _read(parser: Parser, words: Sequence[str]) -> argparse.Namespace:
    """What was typed; STUDY and study=NAME are one, and so are SWEEP and sweep=NAME."""
    words = ["--watch=true" if word == "--watch" else word for word in words]
    named = [word for word in words if re.match("(--)?(study|sweep)=.", word)]
    given = parser.read([word for word in words if word not in named])
    for word in named:
        name, _, value = word.removeprefix("--").partition("=")
        if getattr(given, name) not in (None, value):
            both = f"{name}={getattr(given, name)} and {name}={value}"
            parser.error(f"{both} cannot both be. Type one of them")
        setattr(given, name, value)
    return given


def _table_at(path: Path) -> Path:
    """Raise InputError for a place where a table would take that of something else."""
    if path.is_dir():
        raise InputError(f"csv={path} is a folder. Type csv={path / 'table.csv'}")
    if path.is_file():
        with path.open(errors="replace") as file:
            if file.readline().rstrip().split(",")[:3] == [*table.CSV[:3]]:
                return path
    if path.exists():
        raise InputError(
            f"csv={path} is there, and is no table of a sweep: it would be lost. Type csv=FILE "
            "with another name, or csv=true to print the table."
        )
    return path


def _write(path: Path, content: str) -> None:
    try:
        write_bytes(path, content.encode())
    except DiskError as error:
        said = re.split(" Type output=| Make room", str(error))[0]
        raise DiskError(f"{said} Type csv=FILE with another place, or csv=true.") from error
    print(f"table: {path}")


def watch(folder: Path) -> None:
    """Print how far a sweep is whenever that changes, until nobody works on it any more.

    On a terminal it is one line, which changes in its place.
    """
    told = ""
    while records.is_alive(folder):
        if (now := table.outlook(folder)) != told:
            if line.is_terminal():
                line.draw(now)
            else:
                print(now, flush=True)
            told = now
        time.sleep(WATCH_SECONDS)
    if told and line.is_terminal():
        line.draw(table.outlook(folder), is_last=True)


def _a_sweep(output: Path, study: str | None) -> str:
    """What makes one there."""
    words = [f"study={study}"] if study is not None else []
    if output.absolute() != Path(project_root()) / "multirun":
        words.append(f"output={output}")
    return " ".join(["caltech sweep lr=1e-1,1e-2", *map(shell, words)])


def find(output: Path, study: str | None, sweep: str | None) -> Path:
    """Folder of the newest sweep that is meant.

    Raises:
        InputError: there is none.
    """
    folders = [path for path in output.glob("*/sweeps/*/") if records.is_sweep(path)]
    all_sweeps = sorted(folders, key=lambda path: path.name)  # they begin with their time
    studies = sorted({path.parent.parent.name for path in all_sweeps})
    if study is not None and study not in studies:
        raise InputError(
            f"There is no sweep of a study {study} in {output}. "
            f"Studies with sweeps are: {', '.join(studies) or 'none'}. "
            + (f"Type {nearest(study, studies)}, or " if nearest(study, studies) else "Type ")
            + f"{_a_sweep(output, study)} to make one."
        )
    found = [path for path in all_sweeps if study in (None, path.parent.parent.name)]
    if not found:
        raise InputError(
            f"There is no sweep in {output}. Type output=FOLDER for another place, or "
            f"{_a_sweep(output, study)} to make one."
        )
    chosen = [path for path in found if path.name.startswith(sweep or "")]
    if not chosen:
        names = ", ".join(path.name for path in found[-5:])
        of = f"Study {study}" if study else str(output)
        raise InputError(
            f"{of} has no sweep {sweep}. The newest there are: {names}. Type the beginning of one."
        )
    return chosen[-1]


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s")
    with errors.shown_as_messages(composes=False):
        main(sys.argv[1:])
