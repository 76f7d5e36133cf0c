"""A study's tables: cells beside the published numbers, and what is to be known of each row."""

import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from caltech.report import statistics
from caltech.report.cells import Cell, cell, show_parameter, show_seconds, state
from caltech.report.rows import FINISHED, TEST_IMAGES, Row, Run, Table

# The study's columns, in its order.
HYPERPARAMETERS = {
    "LR": "lr",
    "MOMENTUM": "momentum",
    "WEIGHT_DECAY": "weight_decay",
    "NUM_EPOCHS": "num_epochs",
    "STEP_SIZE": "step_size",
    "GAMMA": "gamma",
}
MEASURES = {
    "TRAINING LOSS AT LAST STEP": "train/loss_last_step",
    "VALIDATION ACC": "val/accuracy",
    "TESTING ACC": "test/accuracy",
}
STATISTICS = (
    "Seeds",
    "Best epoch",
    "Best epoch's VALIDATION ACC",
    "Best epoch's TESTING ACC",
    "95 % interval of TESTING ACC",
    "Macro TESTING ACC",
    "Calibration error",
    "Training time",
    "Device",
    "Code",
)
# All pairs of more rows than these would be too many to read: the best is compared with each.
MOST_ROWS_IN_PAIRS = 10


@dataclass(frozen=True)
class Line:
    """A row as it is printed."""

    row: Row
    label: str  # the row's name, or its number where the columns tell the name
    marks: tuple[str, ...]  # letters of the table's notes
    values: dict[str, str]  # hyperparameters, or the keys that differ
    cells: dict[str, Cell]  # by the study's names of measures
    statistics: dict[str, str]


@dataclass(frozen=True)
class Sheet:
    """A table as it is printed."""

    title: str
    lines: tuple[Line, ...]
    notes: dict[str, str]  # by letter
    pairs: tuple[statistics.Pair, ...]
    missing: tuple[str, ...]  # commands of rows that are not run
    is_published: bool
    table: Table = field(repr=False)

    @property
    def head(self) -> str:
        """Of the column of labels."""
        return "" if self.table.columns else "Model"


def sheet(table: Table, everything: Sequence[Run]) -> Sheet:
    """Compute a table's numbers; `everything` is what code and data are compared with."""
    notes: dict[str, str] = {}
    usual = _usual(everything)
    lines = [
        Line(
            row=row,
            label=str(number) if table.columns else row.name,
            marks=tuple(_letter(notes, text) for text in _remarks(row, usual)),
            values=_values(table, row),
            cells={name: cell(row, metric) for name, metric in MEASURES.items()},
            statistics=_statistics(row),
        )
        for number, row in enumerate(table.rows, 1)
    ]
    missing = tuple(row.command for row in table.rows if row.command and not row.finished)
    return Sheet(
        table.title, tuple(lines), notes, tuple(_pairs(table)), missing, table.is_published, table
    )


def _usual(runs: Sequence[Run]) -> Mapping[str, str]:
    """Code and data of most finished runs; of as many, those of the newest."""
    finished = [run for run in runs if run.status == FINISHED]
    if not finished:
        return {"code": "", "data": ""}
    finished.sort(key=lambda run: -run.started)
    code = Counter(run.code["sha256"] for run in finished).most_common(1)[0][0]
    data = Counter(run.data["sha256"] for run in finished).most_common(1)[0][0]
    return {"code": code, "data": data}


def _remarks(row: Row, usual: Mapping[str, str]) -> list[str]:
    """What has to be known of a row before it is compared with another."""
    remarks = []
    if row.predictions is not None:
        labels, answers = row.predictions.labels, row.predictions.last
        top = statistics.collapsed(labels, answers)
        if top is not None:
            share = float((answers == top).mean())
            remarks.append(
                f"collapsed: {share:.1%} of the answers are {class_name(row.first, top)}"
            )
    for code in sorted({_code(run) for run in row.finished if run.code["sha256"] != usual["code"]}):
        remarks.append(f"made by other code than most runs: {code}")
    for run in row.finished:
        if run.data["sha256"] != usual["data"]:
            named = f"{run.data['name']} {run.data['sha256'][:8]}"
            remarks.append(f"made from other data than most runs: {named}")
            break
    if row.published is not None and not row.is_comparable:
        remarks.append(
            f"tested on {row.first.images('test')} images and not on the study's {TEST_IMAGES}: "
            "not compared with its numbers"
        )
    if row.runs and not row.finished:
        reason = f" ({row.runs[0].reason.splitlines()[0]})" if row.runs[0].reason else ""
        remarks.append(f"{state(row.runs[0])}{reason}: does not count")
    elif unfinished := [run for run in row.runs if run.status != FINISHED]:
        told = ", ".join(f"seed {run.seed} {state(run)}" for run in unfinished)
        remarks.append(f"{told}: does not count")
    return remarks


def _letter(notes: dict[str, str], text: str) -> str:
    """The letter of a note, which rows share."""
    for letter, known in notes.items():
        if known == text:
            return letter
    letter = letters(len(notes))
    notes[letter] = text
    return letter


def letters(index: int) -> str:
    """a to z, aa to az, ba ..."""
    head = letters(index // 26 - 1) if index >= 26 else ""
    return head + chr(ord("a") + index % 26)


def class_name(run: Run, number: int) -> str:
    """Its name, or its number if the run is from before names were told."""
    return run.data["classes"][number] if "classes" in run.data else f"class {number}"


def _values(table: Table, row: Row) -> dict[str, str]:
    if table.columns:
        return {name: show_parameter(name, row.params[name]) for name in table.columns}
    values = {
        title: show_parameter(name, row.params[name])
        for title, name in HYPERPARAMETERS.items()
        if name in row.params
    }
    if row.params.get("schedule") not in ("step", None):  # the others have neither
        values |= {"STEP_SIZE": row.params["schedule"], "GAMMA": ""}
    return values


def _statistics(row: Row) -> dict[str, str]:
    if not row.finished:
        return dict.fromkeys(STATISTICS, "")
    first, interval = row.first, row.interval("test/accuracy")
    epochs = ", ".join(f"{value:.0f}" for value in row.values("val/best_epoch"))
    error = None
    if row.predictions is not None:
        error = statistics.calibration(row.predictions.confidences, row.predictions.correct).error
    return {
        "Seeds": str(len(row.finished)),
        "Best epoch": epochs,
        "Best epoch's VALIDATION ACC": _spread(row, "val/best_accuracy"),
        "Best epoch's TESTING ACC": _spread(row, "test/best_accuracy"),
        "95 % interval of TESTING ACC": (
            f"{interval.low:.4f} to {interval.high:.4f}" if interval else ""
        ),
        "Macro TESTING ACC": _spread(row, "test/accuracy_per_class"),
        "Calibration error": "" if error is None else f"{error:.4f}",
        "Training time": show_seconds(row.mean_seconds),
        "Device": _device(first),
        "Code": ", ".join(dict.fromkeys(_code(run) for run in row.finished)),
    }


def _spread(row: Row, metric: str) -> str:
    mean, deviation = row.mean(metric), row.deviation(metric)
    if mean is None:
        return ""
    return f"{mean:.4f}" + ("" if deviation is None else f" ± {deviation:.4f}")


def _device(run: Run) -> str:
    name, threads = run.environment.get("device", ""), run.environment.get("threads")
    return f"{name}, {threads} thread{'s' * (threads != '1')}" if threads else name


def _code(run: Run) -> str:
    return f"{run.code['git']} ({run.code['sha256'][:8]})"


def _pairs(table: Table) -> list[statistics.Pair]:
    """McNemar's test between rows that answered for the same images; the first seed of each."""
    by_data = defaultdict(list)
    for row in table.finished:
        if row.predictions is not None:
            by_data[row.first.data["sha256"]].append(row)
    couples = []
    for rows in by_data.values():
        if sum(map(len, by_data.values())) > MOST_ROWS_IN_PAIRS:
            best = max(rows, key=lambda row: row.mean("val/best_accuracy"))
            couples += [(best, row) for row in rows if row is not best]
        else:
            couples += itertools.combinations(rows, 2)
    tests = [statistics.mcnemar(a.predictions.correct, b.predictions.correct) for a, b in couples]
    adjusted = statistics.holm([p_value for _, _, p_value in tests])
    return [
        statistics.Pair(a.name, b.name, *test, p)
        for (a, b), test, p in zip(couples, tests, adjusted, strict=True)
    ]


def baselines(runs: Iterable[Run]) -> list[str]:
    """What every accuracy is to be compared with: a sentence for each data set."""
    known = {run.data["sha256"]: run for run in runs if "majority_accuracy" in run.data}
    return [
        f"On the {run.images('test') or ''} test images of {run.data['name']}, always answering "
        "the most frequent class gives an accuracy of "
        f"{run.data['majority_accuracy']:.4f}."
        for run in known.values()
    ]


def newest_end(runs: Sequence[Run]) -> str:
    """Day of the newest finished run: a report made again is the same."""
    started = [run.started for run in runs if run.status == FINISHED]
    return f"{datetime.fromtimestamp(max(started) / 1000, UTC):%d %B %Y}" if started else ""
