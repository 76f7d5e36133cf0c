"""A sweep's jobs as people see them: a table, and a line on how far it is."""

import shutil
import sys
import textwrap
import time
from collections.abc import Sequence
from pathlib import Path

from caltech.files import write_bytes
from caltech.sweeps import records
from caltech.sweeps.records import Record

WHOLE_LINES = 10_000  # characters: a line is as long as its overrides


def show(jobs: Sequence[Record]) -> None:
    """Print the table: as wide as the terminal, or whole lines where there is none."""
    print(table(jobs, shutil.get_terminal_size().columns if sys.stdout.isatty() else WHOLE_LINES))
    if missing := sum(job.status == records.MISSING for job in jobs):
        print(
            f"{missing} of {len(jobs)} jobs missing: never started, lost, or still in a "
            "scheduler's queue.\nThe sweep's command typed again computes what is left."
        )


def keep(folder: Path, jobs: Sequence[Record]) -> None:
    """Beside the records, for people."""
    write_bytes(folder / "table.txt", f"{table(jobs, WHOLE_LINES)}\n".encode())


def table(jobs: Sequence[Record], width: int) -> str:
    """One line a job, with the overrides that not all jobs have; the best is marked.

    Overrides that are too long for `width` go on below; a host is told where there are several.
    """
    typed = [_printable(job.overrides).split(" ") for job in jobs]
    shared = set.intersection(*map(set, typed)) if len(jobs) > 1 else set()
    best = max((job.value for job in jobs if job.value is not None), default=None)
    lines = [["key", "status", "val accuracy", "seconds", "host", "overrides"]]
    for job, overrides in zip(jobs, typed, strict=True):
        own = " ".join(override for override in overrides if override not in shared)
        seconds = "" if job.status in records.OPEN else f"{job.seconds:.1f}"
        marked = accuracy(job.value, job.deviation)
        marked += " best" if best is not None and job.value == best else ""
        key, status, host = map(_printable, (job.key, job.status, job.host))
        lines.append([key, status, marked, seconds, host, own])
    if len({job.host for job in jobs if job.host}) < 2:
        lines = [line[:4] + line[5:] for line in lines]
    return aligned(lines, width)


def accuracy(value: float | None, deviation: float | None) -> str:
    """As tables show it, with the deviation over seeds if there are several."""
    if value is None:
        return ""
    return f"{value:.4f}" + ("" if deviation is None else f" ± {deviation:.4f}")


def aligned(lines: Sequence[Sequence[str]], width: int = WHOLE_LINES) -> str:
    """Cells in columns; what the last one has no room for goes on below."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)][:-1]
    shown = []
    for cells in lines:
        first = "".join(cell.ljust(size) + "  " for cell, size in zip(cells, widths, strict=False))
        parts = textwrap.wrap(cells[-1], max(width - len(first), 20), break_on_hyphens=False)
        shown.append(first + ("\n" + " " * len(first)).join(parts))
    return "\n".join(shown)


def outlook(folder: Path) -> str:
    """One line on a sweep that goes on: `4 of 6 jobs done, best 0.9537, about 3 min left`."""
    known, jobs = records.plan(folder), records.rows(folder)
    done = [job for job in jobs if job.status not in records.OPEN]
    total = max(known.total, len(jobs))
    line = f"{len(done)} of {total} jobs done"
    if values := [job.value for job in done if job.value is not None]:
        line += f", best {max(values):.4f}"
    # Jobs that were finished before are answered at once: they tell nothing of the others' time.
    longest = max((job.seconds for job in done), default=0)
    took = [job.seconds for job in done if job.seconds > longest / 10]
    if took and any(job.status in (records.RUNNING, records.WAITING) for job in jobs):
        side_by_side = max(sum(took) / max(time.time() - known.begun, 1e-3), 1)
        left = (total - len(done)) * sum(took) / len(took) / side_by_side
        line += f", about {left / 60:.0f} min left" if left > 90 else f", about {left:.0f} s left"
    return line


def _printable(text: str) -> str:
    """Without what would steer a terminal: a folder may hold anybody's files."""
    return "".join(c if c.isprintable() else "?" for c in text)
