"""A study's tables as they are printed: labels, notes, paired tests, and what is not run yet."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from caltech.report import statistics
from caltech.report.columns import RESULTS, Column, parameters
from caltech.report.rows import FINISHED, TEST_IMAGES, Row, Run, Table

# All pairs of more rows than these would be too many to read: the best is compared with each.
MOST_ROWS_IN_PAIRS = 10


@dataclass(frozen=True)
class Line:
    """A row as it is printed."""

    row: Row
    label: str  # the row's name, or its number where the columns tell the name
    marks: tuple[str, ...]  # letters of the table's notes


@dataclass(frozen=True)
class Sheet:
    """A table as it is printed."""

    table: Table
    head: str  # of the column of labels
    lines: tuple[Line, ...]
    columns: tuple[Column, ...]  # of results; those of STATISTICS are in a second table
    notes: dict[str, str]  # by letter
    pairs: tuple[statistics.Pair, ...]
    missing: tuple[str, ...]  # commands of rows that are not run


def sheet(table: Table, everything: Sequence[Run]) -> Sheet:
    """A table with its notes; `everything` is what code and data are compared with."""
    usual = {what: _usual(everything, what) for what in ("code", "data")}
    remarks = [_remarks(row, usual) for row in table.rows]
    letters = {text: _letters(n) for n, text in enumerate(dict.fromkeys(itertools.chain(*remarks)))}
    labels = range(1, len(remarks) + 1) if table.columns else [row.name for row in table.rows]
    return Sheet(
        table=table,
        head="" if table.columns else "Model",
        lines=tuple(
            Line(row, str(label), tuple(letters[text] for text in told))
            for row, label, told in zip(table.rows, labels, remarks, strict=True)
        ),
        columns=(*parameters(table), *RESULTS),
        notes={letter: text for text, letter in letters.items()},
        pairs=tuple(pairs(table)),
        missing=tuple(row.command for row in table.rows if row.command and not row.finished),
    )


def _usual(runs: Sequence[Run], what: str) -> str:
    """Digest of code or data of most finished runs; of as many, that of the newest."""
    newest_first = sorted(runs, key=lambda run: -run.started)
    found = Counter(getattr(run, what)["sha256"] for run in newest_first if run.status == FINISHED)
    return max(found, key=found.get, default="")


def _remarks(row: Row, usual: Mapping[str, str]) -> list[str]:
    """What has to be known of a row before it is compared with another."""
    remarks = []
    if known := row.predictions:
        top = statistics.collapsed(known.labels, known.last)
        if top is not None:
            share, name = float((known.last == top).mean()), row.first.class_name(top)
            remarks.append(f"collapsed: {share:.1%} of the answers are {name}")
    others = {run.version for run in row.finished if run.code["sha256"] != usual["code"]}
    remarks += [f"made by other code than most runs: {code}" for code in sorted(others)]
    others = [run.data for run in row.finished if run.data["sha256"] != usual["data"]]
    for data in others[:1]:
        named = f"{data['name']} {data['sha256'][:8]}"
        remarks.append(f"made from other data than most runs: {named}")
    if row.published is not None and not row.is_comparable:
        remarks.append(
            f"tested on {row.first.images('test')} images and not on the study's {TEST_IMAGES}: "
            "not compared with its numbers"
        )
    if row.runs and not row.finished:
        reason = f" ({row.runs[0].reason.splitlines()[0]})" if row.runs[0].reason else ""
        remarks.append(f"{row.status}{reason}: does not count")
    elif unfinished := [run for run in row.runs if run.status != FINISHED]:
        told = ", ".join(f"seed {run.seed} {run.state}" for run in unfinished)
        remarks.append(f"{told}: does not count")
    return remarks


def _letters(index: int) -> str:
    """a to z, aa to az, ba ..."""
    head = _letters(index // 26 - 1) if index >= 26 else ""
    return head + chr(ord("a") + index % 26)


def pairs(table: Table) -> list[statistics.Pair]:
    """McNemar's test between rows that answered for the same images; the first seed of each."""
    by_data = defaultdict(list)
    for row in table.finished:
        if row.predictions is not None:
            by_data[row.first.data["sha256"]].append(row)
    couples = []
    for rows in by_data.values():
        if sum(map(len, by_data.values())) > MOST_ROWS_IN_PAIRS:
            best = max(rows, key=lambda row: row.score)
            couples += [(best, row) for row in rows if row is not best]
        else:
            couples += itertools.combinations(rows, 2)
    tests = [statistics.mcnemar(a.predictions.correct, b.predictions.correct) for a, b in couples]
    adjusted = statistics.holm([p_value for _, _, p_value in tests])
    return [
        statistics.Pair(a.name, b.name, *test, p)
        for (a, b), test, p in zip(couples, tests, adjusted, strict=True)
    ]
