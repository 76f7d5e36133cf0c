"""Print a sweep's table, also while it runs: `python -m caltech.sweeps [STUDY] [SWEEP]`."""

import logging
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path

from caltech import errors
from caltech.arguments import Parser, nearest
from caltech.config import project_root
from caltech.errors import InputError
from caltech.files import explaining_disk, write_bytes
from caltech.sweeps import line, records, table

USAGE = """\
python -m caltech.sweeps [STUDY] [SWEEP] [--watch]
                                [csv=FILE] [output=FOLDER]"""
SWEEP_FIRST = "Type caltech sweep lr=1e-1,1e-2 first."
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
    parser.add_argument("--csv", metavar="FILE", help="write the table there, too")
    given = parser.read(["--watch=true" if word == "--watch" else word for word in words])
    folder = find(Path(given.output).expanduser(), given.study, given.sweep)
    named = f"sweep {folder.name} of study {folder.parent.parent.name}: {table.outlook(folder)}"
    print(textwrap.fill(named, WIDTH, subsequent_indent="  ", break_on_hyphens=False))
    if given.watch == "true":
        watch(folder)
    jobs = records.rows(folder)
    table.show(jobs)
    if given.csv:
        path = Path(given.csv).expanduser()
        with explaining_disk(path):
            write_bytes(path, table.as_csv(jobs).encode())


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
            + (f"Type {nearest(study, studies) or 'one of them'}." if studies else SWEEP_FIRST)
        )
    found = [path for path in all_sweeps if study in (None, path.parent.parent.name)]
    if not found:
        raise InputError(f"There is no sweep in {output}. Type output=FOLDER for another place.")
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
