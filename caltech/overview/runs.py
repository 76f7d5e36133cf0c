"""List runs: `caltech runs [study=STUDY,...] [output=FOLDER] [csv=true]`."""

import csv
import re
import sys
import textwrap
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from caltech.amounts import counted, short, size_of
from caltech.arguments import nearest_place
from caltech.errors import InputError, shown_as_messages
from caltech.overview import typed
from caltech.overview.listing import Listed, differing, listed
from caltech.runs.known import tell_unread

HELP = """\
usage: caltech runs [study=STUDY,...] [output=FOLDER] [csv=true]

List runs from their directories, the newest first: key, status, accuracy of the
best epoch in validation and in the test, size on disk, and the words by which
the runs of a study differ. csv=true prints the same for a spreadsheet."""
WIDTH = 80
WHOLE = {"break_on_hyphens": False, "break_long_words": False}


def main(words: Sequence[str]) -> None:
    """The command.

    Raises:
        InputError: there is no such study, or no run at all.
    """
    if {"-h", "--help"} & set(words):
        print(HELP)
        return
    defaults = {"study": "", "output": typed.default_output(), "csv": False}
    names, values = typed.read(words, "caltech runs", defaults)
    names += filter(None, values["study"].split(","))  # as in the other commands
    output = Path(values["output"]).expanduser()
    tell_unread(output)
    studies = {path: listed(path) for path in typed.studies(output, names)}
    if not studies:
        near = nearest_place(output)
        place = f"output={near}" if near else "output= with your studies' folder"
        raise InputError(f"There are no runs in {output}. Type {place}.")
    if values["csv"]:
        _spreadsheet([run for runs in studies.values() for run in runs])
        return
    newest = sorted(studies, key=lambda path: -studies[path][0].changed)
    print("\n\n".join(table(path.name, studies[path]) for path in newest))


def table(study: str, runs: Sequence[Listed]) -> str:
    """A study's runs, in 80 columns; what has no room goes on below.

    Words that all runs on a data set have stand once, above them; csv=true has all digits.
    """
    size = size_of(sum(run.bytes for run in runs))
    lines = [f"{_plain(study)}: {counted(len(runs), 'run')}, {size}"]
    lines.append(f"{'key':10}  {'status':11}  {'val':>7}  {'test':>7}  {'disk':>8}  what differs")
    of_data = defaultdict(list)  # in the order of their newest runs
    for run in runs:
        of_data[frozenset(w for w in run.words if re.match(r"\+*data[=.]", w))].append(run)
    for same in of_data.values():
        words = differing(same) if len(same) > 1 else {same[0].directory: ()}
        shared = [word for word in same[0].words if word not in words[same[0].directory]]
        if shared or len(of_data) > 1:
            told = f"with {' '.join(shared) or 'the data that are the default'}"
            lines += textwrap.wrap(_plain(told), WIDTH, subsequent_indent="  ", **WHOLE)
        lines += [_row(run, words[run.directory]) for run in same]
    return "\n".join(lines)


def _row(run: Listed, words: Sequence[str]) -> str:
    numbers = "".join(f"{_share(value):>7}  " for value in (run.validation, run.test))
    first = f"{_plain(run.key)[:10]:10}  {_plain(run.status)[:11]:11}  {numbers}"
    first += f"{size_of(run.bytes):>8}  "
    told = [*map(short, words), *([f"(stopped {run.stopped})"] if run.stopped else [])]
    told += [f"(in {run.key})"] if len(run.key) > 10 else []  # a copy, KEY.old, or directory=
    own = textwrap.wrap(_plain(" ".join(told)), WIDTH - len(first), break_on_hyphens=False)
    return (first + ("\n" + " " * len(first)).join(own)).rstrip()


def _share(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.2f}%"


def _plain(text: str) -> str:
    """Without what would steer a terminal: a folder may hold anybody's files."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _spreadsheet(runs: Sequence[Listed]) -> None:
    rows = [asdict(run) for run in runs]
    writer = csv.DictWriter(sys.stdout, rows[0])
    writer.writeheader()
    for row in rows:
        changed = datetime.fromtimestamp(row["changed"], UTC).isoformat(timespec="seconds")
        writer.writerow(row | {"words": " ".join(row["words"]), "changed": changed})


if __name__ == "__main__":
    with shown_as_messages(composes=False):
        main(sys.argv[1:])
