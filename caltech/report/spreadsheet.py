"""A study's tables as one CSV file, for a spreadsheet or pandas."""

import csv
import io
from collections.abc import Sequence

from caltech.report.tables import Line, Sheet

OTHERS = {
    "Best epoch": "val/best_epoch",
    "Best epoch's VALIDATION ACC": "val/best_accuracy",
    "Best epoch's TESTING ACC": "test/best_accuracy",
    "Macro TESTING ACC": "test/accuracy_per_class",
}


def write(sheets: Sequence[Sheet]) -> str:
    """All rows in one file, with full precision, for a spreadsheet or pandas."""
    records = [_record(each, line) for each in sheets for line in each.lines]
    names = list(dict.fromkeys(name for record in records for name in record))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writerow({name: harmless(name) for name in names})
    for record in records:
        writer.writerow({name: harmless(value) for name, value in record.items()})
    return text.getvalue()


def _record(each: Sheet, line: Line) -> dict[str, object]:
    row = line.row
    record: dict[str, object] = {"Table": each.title, "Model": row.name, **line.values}
    record |= {name: cell.ours for name, cell in line.cells.items()}
    for name, cell in line.cells.items():
        record[f"{name} sd"] = cell.deviation
        record[f"{name} published"] = cell.published
        record[f"{name} difference"] = cell.difference
        record[f"{name} verdict"] = cell.verdict
    if interval := row.interval("test/accuracy"):
        record |= {"TESTING ACC low": interval.low, "TESTING ACC high": interval.high}
    record["Seeds"] = len(row.finished)
    for name, metric in OTHERS.items():
        record |= {name: row.mean(metric), f"{name} sd": row.deviation(metric)}
    told = ("Calibration error", "Device", "Code")
    record |= {name: line.statistics[name] for name in told}
    record["Training seconds"] = row.mean_seconds
    record["Notes"] = "; ".join(each.notes[mark] for mark in line.marks)
    record["Command"] = line.row.command if not line.row.finished else ""
    return record


def harmless(value: object) -> str:
    """A cell that no spreadsheet takes for a formula."""
    text = "" if value is None else str(value)
    try:
        float(text)
    except ValueError:
        return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else text
    return text
