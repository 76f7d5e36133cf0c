"""What a table says, in sentences: what a reader wants to know before any number."""

import textwrap
from collections import defaultdict
from collections.abc import Sequence

from caltech.amounts import counted, printable
from caltech.report import statistics
from caltech.report.defaults import departures
from caltech.report.rows import Row, Table
from caltech.report.tables import Cell
from caltech.report.trained import MEAN_OVER_CLASSES

LEVEL = 0.05  # of the tests beside the best row, after Holm's adjustment for as many as they are
MOST_NAMES = 6  # in a sentence
WIDTH, MOST_ROWS = 80, 12  # on a terminal
VERDICTS = {
    "agrees": "Agrees with the published test accuracy",
    "better": "Better than the published",
    "worse": "Worse than the published",
    "open": "Open, because one seed cannot tell",
}


def of(table: Table) -> list[str]:
    """Sentences on the best row, what differs from it, the published numbers, what does not count.

    Validation chooses the best row; the test part says what it is worth.
    """
    told = [*_best(table), *_verdicts(table)] if table.finished else ["No row is finished."]
    collapsed = [
        f"{_called(row.name)} ({row.collapsed[0]})" for row in table.finished if row.collapsed
    ]
    if collapsed:
        told.append(
            f"Collapsed, so that the accuracy is that of one class for all: {_named(collapsed)}."
        )
    open_rows = defaultdict(list)
    for row in table.rows:
        if not row.finished:
            open_rows[row.status.partition(" ")[0] if row.runs else "not run"].append(row.name)
    return told + [f"{what.capitalize()}: {_named(names)}." for what, names in open_rows.items()]


def brief(study: str, tables: Sequence[Table]) -> str:
    """For a terminal: of each table its sentences, and the best rows' accuracies; all is in files.

    Accuracies are of the best epoch in validation.
    """
    lines = [printable(f"Study {study}")]
    for table in tables:
        lines += ["", printable(table.title)]
        common = departures(table)
        for sentence in [*of(table), *[f"All rows: {common}."] * bool(common)]:
            lines += textwrap.wrap(printable(sentence), WIDTH, initial_indent="- ",
                subsequent_indent="  ", break_on_hyphens=False)  # fmt: skip
        rows = sorted(table.finished, key=lambda row: -row.score)
        if rows:
            lines.append(f"  {'validation':>15}  {'test':>15}  row")
        for row in rows[:MOST_ROWS]:
            numbers = (_percent(row, f"{part}/best_accuracy") for part in ("val", "test"))
            first = "  " + "".join(f"{number:>15}  " for number in numbers)
            own = textwrap.wrap(printable(row.name), WIDTH - len(first)) or [""]
            lines.append(first + ("\n" + " " * len(first)).join(own))
        if rest := len(rows) - MOST_ROWS:
            lines += [f"  and {counted(rest, 'more row')}"] * (rest > 0)
    return "\n".join(lines)


def _best(table: Table) -> list[str]:
    if table.best.is_chosen_already:
        return ["No row is the best in validation: all were trained on their validation images."]
    best, test = table.best, table.best.interval("test/best_accuracy")
    told = f"Best in validation: {_called(best.name)}, with {_percent(best, 'val/best_accuracy')}"
    if (accuracy := best.mean("test/best_accuracy")) is not None:
        told += f"; test {_percent(best, 'test/best_accuracy')}"
        if test is not None and test.low <= accuracy <= test.high:
            told += (
                f" (95\N{NO-BREAK SPACE}% interval {100 * test.low:.2f} to {100 * test.high:.2f})"
            )
    ties = [row.name for row in table.finished if row.score == best.score and row is not best]
    tied = [f"As high in validation: {_named(ties)}."] if ties else []
    others = [
        row.name for row in table.finished if not (row.is_chosen_already or best.shares_images(row))
    ]
    if others:
        tied.append(f"Validated on other images, and not ranked beside it: {_named(others)}.")
    return [f"{told}.", *tied, *_compared(table, best)]


def _compared(table: Table, best: Row) -> list[str]:
    """The best row beside each other one, by all their seeds' answers in the test."""
    tests = [(row, best.compared(row)) for row in table.finished if row is not best]
    tested = [(row, p_value) for row, p_value in tests if p_value is not None]
    adjusted = statistics.holm([p_value for _, p_value in tested])
    above, below, like = [], [], []
    for (row, _), p_value in zip(tested, adjusted, strict=True):
        gained = best.mean("test/best_accuracy") - row.mean("test/best_accuracy")
        of_kind = like if p_value >= LEVEL else above if gained > 0 else below
        of_kind.append(row.name)
    told, apart = [], [row.name for row, p_value in tests if p_value is None]
    if tested:
        others = counted(len(tested), "other")
        told.append(
            "In the test, by the best epochs' answers of all seeds, it is significantly better "
            f"than {len(above)} of {others}."
        )
    if like:
        told.append(f"Not significantly different from it: {_named(like)}.")
    if below:
        told.append(f"Significantly better in the test: {_named(below)}.")
    if (above or below) and all(
        len(row.finished) == 1 for row in (best, *(row for row, _ in tested))
    ):
        told.append("This compares one run of each: other seeds may differ. seeds=5 tells.")
    if apart:
        told.append(
            "Not compared with it in the test, for want of answers to the same images: "
            f"{_named(apart)}."
        )
    return told


def _verdicts(table: Table) -> list[str]:
    by_verdict = defaultdict(list)
    for row in table.finished:
        if row.published is not None:
            of_classes = MEAN_OVER_CLASSES in row.published.numbers
            metric = MEAN_OVER_CLASSES if of_classes else "test/accuracy"
            by_verdict[Cell(row, metric).verdict].append(row.name)
    return [
        f"{says}: {_named(by_verdict[verdict])}."
        for verdict, says in VERDICTS.items()
        if by_verdict[verdict]
    ]


def _percent(row: Row, metric: str) -> str:
    if row.mean(metric) is None:
        return ""
    deviation = row.deviation(metric)
    spread = "" if deviation is None else f" ± {100 * deviation:.2f}"
    return f"{100 * row.mean(metric):.2f}{spread}\N{NO-BREAK SPACE}%"


def _called(name: str) -> str:
    """A row's name within a sentence, where `1: lr=0.1` would be a second colon."""
    first, _, values = name.partition(": ")
    return f"{'row ' * first.isdecimal()}{first} ({values})" if values else name


def _named(names: Sequence[str]) -> str:
    rest = len(names) - MOST_NAMES
    return "; ".join(map(_called, names[:MOST_NAMES])) + (f"; and {rest} more" if rest > 0 else "")
