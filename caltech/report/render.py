"""A study's report in its forms: Markdown, a spreadsheet, a page, and the gallery of its errors."""

import base64
import csv
import functools
import io
import itertools
import re
import string
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from caltech.amounts import printable
from caltech.report import conclusions, statistics
from caltech.report.defaults import departures
from caltech.report.pictures import Picture
from caltech.report.rows import Row, Table
from caltech.report.sources.ensembles import Ensemble
from caltech.report.sources.images import Names
from caltech.report.sources.unused import Unused
from caltech.report.tables import Column, in_full, joined, parameters, results, statistics_of
from caltech.report.trained import FINISHED, MOST_ROWS_IN_PAIRS, Run

if TYPE_CHECKING:
    from caltech.data.dataset import Dataset

ERRORS_IN_TEXT, ERRORS_IN_GALLERY = 10, 24
CONFUSIONS = 20  # pairs of class and answer
THUMBNAIL = 128  # pixels


class Line(NamedTuple):
    """A row as it is printed."""

    row: Row
    label: str  # the row's name, or its number where the columns tell the name
    marks: list[str]  # letters of the table's notes


class Sheet:
    """A table as it is printed; of `everything`, what its code and data are compared with."""

    def __init__(
        self, table: Table, everything: Sequence[Run], names: Mapping[str, Names] | None = None
    ) -> None:
        self.table = table
        digest = table.best.first.data["sha256"] if table.finished else ""
        self.names = (names or {}).get(digest, {})  # of the best row's images
        self.head = "" if table.columns else "Model"  # of the column of labels
        self.columns = *parameters(table), *results(table)  # STATISTICS are in a second table
        # On a page, whose reader may have a phone, what came out is beside the name.
        shown = [column for column in results(table) if column.show]
        self.on_page = (*reversed(shown), *parameters(table))
        self.conclusions, self.departures = conclusions.of(table), departures(table)
        own = [row.published for row in table.rows if row.published]
        self.published = [name for each in own for name in each.numbers]
        self.elsewhere = [number for each in own for number in each.elsewhere]
        self.missing = [row.command for row in table.rows if row.command and not row.finished]
        names = {run.data.get("name") for row in table.rows for run in row.finished}
        alike = [r for r in everything if r.status == FINISHED and r.data.get("name") in names]
        splits = defaultdict(list)
        for run in alike:
            splits[run.split].append(run)
        usual = {"code": _usual(everything, "code"), "versions": _usual_versions(everything)}
        usual["data"] = {split: _usual(runs, "data") for split, runs in splits.items()}
        remarks = [_lines("remarks", row=row, usual=usual) for row in table.rows]
        texts = dict.fromkeys(itertools.chain(*remarks))
        letters = dict(zip(texts, _letters(), strict=False))
        self.notes = {letter: text for text, letter in letters.items()}
        self.lines = [
            Line(row, str(n) if table.columns else row.name, [letters[text] for text in known])
            for n, (row, known) in enumerate(zip(table.rows, remarks, strict=True), 1)
        ]


def _usual(runs: Sequence[Run], what: str) -> str:
    """Digest of code or data of most finished runs; of as many, that of the newest."""
    newest_first = sorted(runs, key=lambda run: -run.started)
    found = Counter(getattr(run, what)["sha256"] for run in newest_first if run.status == FINISHED)
    return max(found, key=found.get, default="")


def _usual_versions(runs: Sequence[Run]) -> dict[str, str]:
    """Of what most finished runs that tell it were made with; of as many, the newest run's."""
    newest_first = sorted(runs, key=lambda run: -run.started)
    told = [run.versions for run in newest_first if run.status == FINISHED]
    counts = {
        name: Counter(each[name] for each in told if name in each) for name in set().union(*told)
    }
    return {name: max(found, key=found.__getitem__) for name, found in counts.items()}


def _letters() -> Iterator[str]:
    """a to z, aa to az, ba ..."""
    for length in itertools.count(1):
        yield from map("".join, itertools.product(string.ascii_lowercase, repeat=length))


def text_and_page(
    study: str,
    sheets: Sequence[Sheet],
    runs: Sequence[Run],
    pictures: Mapping[str, Sequence[Picture]],
    unused: Sequence[Unused] = (),
    ensembles: Sequence[Ensemble] = (),
) -> tuple[str, str]:
    """Tables for the terminal and for git, and a file that needs nothing else.

    Args:
        pictures: by the tables' titles.
        unused: what was found and does not count.
    """
    finished = [run for run in runs if run.status == FINISHED]
    # The day of the newest run and not today: a report made again is the same.
    newest = datetime.fromtimestamp(max((run.started for run in finished), default=0) / 1000, UTC)
    columns = statistics_of([sheet.table for sheet in sheets])
    told = {
        "study": study,
        "ensembles": list(map(joined, ensembles)),
        "sheets": sheets,
        "unused": unused,
        "statistics": [column for column in columns if column.show],
        "baselines": list(dict.fromkeys(_lines("baselines", runs=runs))),
        "reading": _lines("reading", sheets=sheets, columns=columns),
    }
    page = {"count": len(finished), "newest": f"{newest:%d %B %Y}", "pictures": pictures}
    return _rendered("table.md", **told), _rendered("report.html", **told, **page)


def spreadsheet(sheets: Sequence[Sheet], ensembles: Sequence[Ensemble] = ()) -> str:
    """All rows in one CSV file, with full precision, for a spreadsheet or pandas."""
    columns = statistics_of([sheet.table for sheet in sheets])
    records = [_record(each, line, columns) for each in sheets for line in each.lines]
    records += [{"Table": "Ensembles"} | in_full(each) for each in ensembles]
    names = list(dict.fromkeys(name for record in records for name in record))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    for record in ({name: name for name in names}, *records):
        writer.writerow({name: harmless(value) for name, value in record.items()})
    return text.getvalue()


def _record(sheet: Sheet, line: Line, statistics: Sequence[Column]) -> dict[str, object]:
    record = {"Table": sheet.table.title, "Model": line.row.name}
    for column in (*sheet.columns, *statistics):
        record |= column.cells(line.row)
    record |= {"All rows": sheet.departures} if sheet.departures else {}
    record["Notes"] = "; ".join(sheet.notes[mark] for mark in line.marks)
    return record | {"Command": "" if line.row.finished else line.row.command}


def harmless(value: object) -> str:
    """A cell that no spreadsheet takes for a formula."""
    text = "" if value is None else str(value)
    try:
        float(text)
    except ValueError:
        return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else text
    return text


def gallery(study: str, tables: Sequence[Table], datasets: Mapping[str, "Dataset"]) -> str | None:
    """Images of the most confident errors of each table's best row; None without their data."""
    sections = []
    for table in tables:
        errors = mistakes(table, ERRORS_IN_GALLERY)
        data = datasets.get(table.best.first.data["sha256"]) if errors else None
        if data is not None:
            errors = [each for each in errors if each["index"] < len(data.files)]
            for each in errors:
                each["file"] = printable(data.files[each["index"]])
                each["uri"] = _thumbnail(data, each["index"])
            sections.append({"title": table.title, "row": table.best.name, "errors": errors})
    return _rendered("gallery.html", study=study, sections=sections) if sections else None


def mistakes(
    table: Table, count: int = ERRORS_IN_TEXT, names: Names = MappingProxyType({})
) -> list[dict[str, Any]]:
    """The wrong answers of the best row's first seed that the model was surest of."""
    return table.best.mistakes(names)[:count] if table.finished else []


def confusions(table: Table, names: Names) -> list[dict[str, Any]]:
    """Pairs of class and answer of the best row's first seed, the most frequent first."""
    pairs = defaultdict(list)
    for each in mistakes(table, sys.maxsize, names):
        pairs[each["label"], each["answer"]].append(each["file"])
    told = [{"label": c, "answer": a, "files": sorted(f)} for (c, a), f in pairs.items()]
    told.sort(key=lambda pair: (-len(pair["files"]), pair["label"], pair["answer"]))
    return told[:CONFUSIONS]


def classes(table: Table, names: Names) -> list[dict[str, Any]]:
    """Each class of the best row's test: images, right answers, and files that are not."""
    if not table.finished or (known := table.best.predictions) is None:
        return []
    wrong = defaultdict(list)
    for each in mistakes(table, sys.maxsize, names):
        wrong[each["label"]].append(f"{each['file']} ({each['answer']})")
    share, count = statistics.per_class(known.labels, known.correct)
    told = []
    for number in np.flatnonzero(count):
        name, interval = table.best.first.class_name(number), None
        interval = statistics.wilson(float(share[number]), int(count[number]))
        told.append({"name": name, "images": int(count[number]), "accuracy": float(share[number])})
        told[-1] |= {"low": interval.low, "high": interval.high, "files": sorted(wrong[name])}
    return sorted(told, key=lambda each: (each["accuracy"], each["name"]))


def _thumbnail(data: "Dataset", index: int) -> str:
    """The crop that the model saw, as a data URI."""
    import torch

    from caltech.data.augment import center_crop

    (pixels,) = center_crop(data.pixels, torch.tensor([index]), data.crop)
    file = io.BytesIO()
    image = Image.fromarray(pixels.permute(1, 2, 0).numpy()).resize(
        (THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS
    )
    image.save(file, "JPEG", quality=80)
    return _data_uri(file.getvalue(), "image/jpeg")


def _rendered(name: str, **told: Any) -> str:
    return _environment().get_template(f"{name}.jinja").render(**told)


@functools.cache
def _environment() -> Environment:
    """On a page everything is escaped, and a name that is not given is an error."""
    environment = Environment(
        loader=PackageLoader("caltech.report", "templates"), undefined=StrictUndefined,
        autoescape=lambda template: ".html" in template, trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    filters = {"markdown": markdown, "matrix": _matrix, "mistakes": mistakes}
    filters |= {"percent": percent, "confusions": confusions, "classes": classes}
    environment.filters |= filters | {"data_uri": _data_uri, "p": _p_value}
    return environment


def _lines(name: str, **told: Any) -> list[str]:
    """Sentences of a template that has one on a line."""
    return _rendered(f"{name}.txt", **told).splitlines()


def _data_uri(content: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _p_value(value: float) -> str:
    """Two digits, and no more zeros than matter."""
    return "< 1e-6" if value < 1e-6 else f"{value:.2g}"


def percent(text: str) -> str:
    """Shares of one as percentages; a difference in points."""
    found = re.sub(r"\d\.\d{4}", lambda share: f"{100 * float(share[0]):.2f}", text)
    if text[:1] in ("+", "-"):
        return found
    return re.sub(r"(.*\d\.\d\d)", "\\1\N{NO-BREAK SPACE}%", found, count=1)


def markdown(value: object) -> str:
    """Text in a cell: no column's end, no link, no HTML; `p < 0.05` stays as it is."""
    text = re.sub(r"([\\`*|\[\]])", r"\\\1", printable(value))
    text = re.sub(r"&(?=#?\w+;)", "&amp;", text)
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", text)


def _matrix(table: Table) -> list[tuple[str, list[float | None]]]:
    """Adjusted p values of each row with the rows before it; nothing of too many rows."""
    known = {(pair.second, pair.first): pair.p_adjusted for pair in table.pairs}
    paired = {name for names in known for name in names}
    names = [row.name for row in table.rows if row.name in paired]
    if len(names) > MOST_ROWS_IN_PAIRS:
        return []
    return [(name, [known.get((name, b)) for b in names[:n]]) for n, name in enumerate(names)]
