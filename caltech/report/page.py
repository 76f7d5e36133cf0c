"""A study's report as one HTML file that needs nothing else, and the gallery of its errors."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from caltech.report.cells import show_p
from caltech.report.pictures import Picture
from caltech.report.rows import Row, Run, Table
from caltech.report.tables import MEASURES, MOST_ROWS_IN_PAIRS, STATISTICS, Sheet, class_name

if TYPE_CHECKING:
    from caltech.data.dataset import Dataset

ERRORS_IN_TEXT, ERRORS_IN_GALLERY = 10, 24
THUMBNAIL = 128  # pixels


@dataclass(frozen=True)
class Mistake:
    """A wrong answer on a test image."""

    index: int
    label: str
    answer: str
    confidence: float


def write(
    study: str,
    subtitle: str,
    sheets: Sequence[Sheet],
    pictures: Mapping[str, Sequence[Picture]],
    reading: Sequence[str],
) -> str:
    """The report; `pictures` by the tables' titles."""
    sections = [
        {
            "sheet": sheet,
            "matrix": _matrix(sheet),
            "pictures": pictures[sheet.title],
            "mistakes": mistakes(sheet.table.best, ERRORS_IN_TEXT) if sheet.table.finished else [],
        }
        for sheet in sheets
    ]
    return _environment().get_template("report.html.jinja").render(
        study=study, subtitle=subtitle, sections=sections, reading=reading,
        measures=list(MEASURES), statistics=STATISTICS,
    )  # fmt: skip


def gallery(study: str, tables: Sequence[Table], datasets: Mapping[str, "Dataset"]) -> str | None:
    """Images of the most confident errors of each table's best row; None without their data."""
    sections = []
    for table in tables:
        if not table.finished or table.best.predictions is None:
            continue
        run = table.best.first
        data = datasets.get(run.data["name"])
        if data is not None and data.digest == run.data["sha256"]:
            errors = mistakes(table.best, ERRORS_IN_GALLERY)
            shown = [(e, data.files[e.index], _thumbnail(data, e.index)) for e in errors]
            sections.append({"title": table.title, "row": table.best.name, "errors": shown})
    if not sections:
        return None
    template = _environment().get_template("gallery.html.jinja")
    return template.render(study=study, sections=sections)


def mistakes(row: Row, count: int) -> list[Mistake]:
    """The wrong answers of the first seed that the model was surest of."""
    predictions, run = row.predictions, row.first
    if predictions is None:
        return []
    wrong = np.flatnonzero(~predictions.correct)
    surest = wrong[np.argsort(-predictions.confidences[wrong], kind="stable")][:count]
    return [_mistake(run, *values) for values in zip(
        predictions.indices[surest], predictions.labels[surest],
        predictions.last[surest], predictions.confidences[surest], strict=True,
    )]  # fmt: skip


def _mistake(run: Run, index: int, label: int, answer: int, confidence: float) -> Mistake:
    return Mistake(int(index), class_name(run, label), class_name(run, answer), float(confidence))


def _matrix(sheet: Sheet) -> list[tuple[str, list[tuple[str, bool] | None]]]:
    """Adjusted p values and whether they are below 0.05, of each row with the rows before it."""
    paired = {name for pair in sheet.pairs for name in (pair.first, pair.second)}
    names = [row.name for row in sheet.table.rows if row.name in paired]
    if len(names) > MOST_ROWS_IN_PAIRS:
        return []
    known = {(pair.second, pair.first): pair for pair in sheet.pairs}
    return [
        (name, [_p_value(known.get((name, before))) for before in names[:position]])
        for position, name in enumerate(names)
    ]


def _p_value(pair) -> tuple[str, bool] | None:
    return None if pair is None else (show_p(pair.p_adjusted), pair.p_adjusted < 0.05)


def _thumbnail(data: "Dataset", index: int) -> str:
    """The crop that the model saw, as a data URI."""
    side = data.pixels.shape[1]
    first = (side - data.crop) // 2
    pixels = data.pixels[index, first : first + data.crop, first : first + data.crop].numpy()
    image = Image.fromarray(pixels).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80)
    return _data_uri(file.getvalue(), "image/jpeg")


def _data_uri(content: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _environment() -> Environment:
    """Everything is escaped, and a name that is not given is an error."""
    environment = Environment(
        loader=PackageLoader("caltech.report", "templates"), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"data_uri": _data_uri, "show_p": show_p}
    return environment
