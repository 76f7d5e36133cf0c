"""A sweep's jobs as people see them: a table, and a line on how far it is."""

import csv
import io
import math
import shutil
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path

from caltech.amounts import counted, short
from caltech.files import write_bytes
from caltech.overrides import apart, effective
from caltech.runs.result import PRUNED
from caltech.sweeps import records
from caltech.sweeps.records import Record

CSV = ("key", "status", "value", "deviation", "test", "seconds", "host", "overrides", "directory")
# Words on how and where a job is computed: one study may be worked on with different ones.
HOW = ("workers=", "gpu_share=", "output=", "cache=", "storage=", "tracking")
NOT_BEGUN = (records.WAITING, records.MISSING)
MOST_NOT_BEGUN = 5  # lines of a table that is printed; the files beside the records have all
WHOLE_LINES = 10_000  # characters: a line is as long as its overrides


def show(jobs: Sequence[Record]) -> None:
    """Print the table: as wide as the terminal, where of many jobs that were not begun the first
    few stand for all; whole and in whole lines where there is none.
    """
    width, left_out = WHOLE_LINES, set()
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
        not_begun = [id(job) for job in jobs if job.status in NOT_BEGUN]
        left_out = {*not_begun[MOST_NOT_BEGUN:]}
    print(table([job for job in jobs if id(job) not in left_out], width))
    if left_out:
        print(f"and {counted(len(left_out), 'more job')}, waiting or missing")
    if missing := sum(job.status == records.MISSING for job in jobs):
        print(
            f"{missing} of {counted(len(jobs), 'job')} missing: never started, lost, or still in a "
            "scheduler's queue.\nThe sweep's command typed again computes what is left."
        )


def keep(folder: Path, jobs: Sequence[Record]) -> None:
    """Beside the records, for people and for spreadsheets."""
    write_bytes(folder / "table.txt", f"{table(jobs, WHOLE_LINES)}\n".encode())
    write_bytes(folder / "table.csv", as_csv(jobs).encode())


def as_csv(jobs: Sequence[Record]) -> str:
    """All that is known of each job, the best first."""
    written = io.StringIO()
    lines = csv.DictWriter(written, CSV, lineterminator="\n")
    lines.writeheader()
    for job in by_value(jobs):
        lines.writerow({name: getattr(job, name) for name in CSV} | {"seconds": job.seconds or ""})
    return written.getvalue()


def by_value(jobs: Sequence[Record]) -> list[Record]:
    """The best first, then pruned ones, then those without a value as they came."""

    def order(job: Record) -> tuple[bool, float]:
        return _counts(job), -math.inf if job.value is None else job.value

    return sorted(jobs, key=order, reverse=True)


def table(jobs: Sequence[Record], width: int) -> str:
    """One line a job, the best first, with the overrides that not all jobs have. Of several with
    the best value none is told to be better.

    Overrides that are too long for `width` have three digits and go on below. A host is told where
    there are several.
    """
    jobs = by_value(jobs)
    values = [job.value for job in jobs if _counts(job)]
    best = max(values, default=None)
    mark = " best" if values.count(best) == 1 else " tied"
    lines = [["key", "status", "val accuracy", "test accuracy", "seconds", "host", "overrides"]]
    for job, own in zip(jobs, own_words(jobs), strict=True):
        is_open = job.status in records.OPEN or not job.seconds  # killed, it could not tell them
        seconds = "" if is_open else f"{job.seconds:.1f}"
        marked = accuracy(job.value, job.deviation)
        marked += mark if _counts(job) and job.value == best else ""
        key, status, host = map(_printable, (job.key, job.status, job.host))
        lines.append([key, status, marked, accuracy(job.test, None), seconds, host, " ".join(own)])
    if len({job.host for job in jobs if job.host}) < 2:
        lines = [line[:5] + line[6:] for line in lines]
    if not any(line[3] for line in lines[1:]):  # of earlier code, or nothing has ended
        lines = [line[:3] + line[4:] for line in lines]
    before = sum(max(map(len, column)) + 2 for column in list(zip(*lines, strict=True))[:-1])
    if before + max(len(line[-1]) for line in lines) > width:  # all digits are in table.csv
        for line in lines:
            line[-1] = " ".join(map(short, line[-1].split(" ")))
    return aligned(lines, width)


def _counts(job: Record) -> bool:
    """Whether a job can be the best: a pruned one's value is of an epoch before its last."""
    return job.value is not None and job.status != PRUNED


def own_words(jobs: Sequence[Record]) -> list[list[str]]:
    """Of each job the overrides that not all have, without those on how it is computed."""
    typed = [effective(apart(_printable(job.overrides))) for job in jobs]
    shared = set.intersection(*map(set, typed)) if len(jobs) > 1 else set()
    return [[w for w in words if w not in shared and not w.startswith(HOW)] for words in typed]


def accuracy(value: float | None, deviation: float | None) -> str:
    """As tables show it, with the deviation over seeds if there are several."""
    if value is None:
        return ""
    return f"{value:.4f}" + ("" if deviation is None else f" ± {deviation:.4f}")


def aligned(lines: Sequence[Sequence[str]], width: int = WHOLE_LINES) -> str:
    """Cells in columns; what the last one has no room for goes on below."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)][:-1]
    longest = max(len(word) for cells in lines for word in cells[-1].split(" "))
    needed = max(20, longest) if longest <= 40 else 20  # no word is torn that is no path
    shown = []
    for cells in lines:
        first = "".join(cell.ljust(size) + "  " for cell, size in zip(cells, widths, strict=False))
        room = width - len(first)
        is_narrow = room < needed
        wide = max(width - 2, 20) if is_narrow else room
        parts = textwrap.wrap(cells[-1], wide, break_on_hyphens=False)
        if is_narrow:
            shown += [first.rstrip(), *(f"  {part}" for part in parts)]
        else:
            shown.append(first + ("\n" + " " * len(first)).join(parts))
    return "\n".join(shown)


def outlook(folder: Path) -> str:
    """One line on a sweep that goes on: `trial 14 of 60 · best 0.9537 (lr=0.11) · 3 running`."""
    known, jobs = records.plan(folder), records.rows(folder)
    done = [job for job in jobs if job.status not in records.OPEN]
    total = max(known.total, len(jobs))
    parts = [f"{known.unit} {len(done)} of {total}"]
    if valued := [job for job in done if _counts(job)]:
        best = max(valued, key=lambda job: job.value)
        own = next(own for job, own in zip(jobs, own_words(jobs), strict=True) if job is best)
        words = " ".join(map(short, own)) if len(jobs) > 1 else ""
        parts.append(f"best {best.value:.4f}" + (f" ({words})" if words else ""))
    for status in (records.RUNNING, PRUNED, "failed"):
        if count := sum(job.status == status for job in jobs):
            parts.append(f"{count} {status}")
    if left := _minutes_left(known, jobs, done, total):
        parts.append(left)
    return " · ".join(parts)


def _minutes_left(
    known: records.Plan, jobs: Sequence[Record], done: Sequence[Record], total: int
) -> str:
    # Jobs that were finished before are answered at once: they tell nothing of the others' time.
    longest = max((job.seconds for job in done), default=0)
    took = [job.seconds for job in done if job.seconds > longest / 10]
    running = sum(job.status == records.RUNNING for job in jobs)
    if not took or not (running or any(job.status == records.WAITING for job in jobs)):
        return ""
    side_by_side = max(sum(took) / max(time.time() - known.begun, 1e-3), running, 1)
    left = (total - len(done)) * sum(took) / len(took) / side_by_side
    return f"about {left / 60:.0f} min left" if left > 90 else f"about {left:.0f} s left"


def _printable(text: str) -> str:
    """Without what would steer a terminal: a folder may hold anybody's files."""
    return "".join(c if c.isprintable() else "?" for c in text)
