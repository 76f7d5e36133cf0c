"""A study's pictures: PNG files that are read on paper as well as on a screen."""

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from PIL import Image

from caltech.report import landscape, statistics
from caltech.report.canvas import BLUE, DPI, GREY, INK, STYLE, figure, png, short, validation
from caltech.report.rows import Row, Table
from caltech.report.tables import class_name

COLUMNS = 4  # panels side by side
MOST_PANELS = 12  # of more rows the best are drawn, and the others together
CONFUSED_CLASSES = 14


@dataclass(frozen=True)
class Picture:
    """A PNG with what is to be said of it."""

    name: str
    caption: str
    png: bytes
    is_wide: bool = True  # to be scrolled on a phone, not shrunk

    @property
    def width(self) -> int:
        """On a page, in CSS pixels."""
        return Image.open(io.BytesIO(self.png)).width * 96 // DPI


def draw(table: Table) -> list[Picture]:
    """All pictures of a table's finished rows; none if there are none."""
    if not table.finished:
        return []
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # names in any script
        pictures = [Picture("learning-curves", _curves_caption(table), learning_curves(table))]
        if not table.is_published and (drawn := landscape.sweep(table)):
            caption = "Best validation accuracy over the keys that differ."
            pictures.append(Picture("sweep", caption, drawn))
        if any(row.predictions is not None for row in table.finished):
            pictures.append(Picture("reliability", RELIABILITY, reliability(table)))
        return pictures + _of_the_best(table.best)


def _of_the_best(row: Row) -> list[Picture]:
    if row.predictions is None:
        return []
    pictures = []
    if drawn := confusions(row):
        caption = (
            f"{row.name}: test images of the classes that are confused most, by class and answer; "
            "the shade is the share of the class's images."
        )
        pictures.append(Picture("confusions", caption, drawn, is_wide=False))
    caption = f"{row.name}: test accuracy of every class with its 95 % interval."
    return [*pictures, Picture("per-class", caption, per_class(row))]


RELIABILITY = (
    "Reliability: the share of right answers at each probability (blue), where answers lie (grey "
    "bars), and the expected calibration error (ECE). Dotted: a calibrated model."
)


def _curves_caption(table: Table) -> str:
    if len(table.finished) > MOST_PANELS:
        return "Validation by epoch, first seeds; the five best rows are coloured."
    return (
        "Training (grey) and validation (blue) by epoch, every seed; dotted: the rate is lowered."
    )


def learning_curves(table: Table) -> bytes:
    """Accuracy and loss by epoch, a panel a row (all seeds); of a larger sweep in one panel."""
    rows = sorted(table.finished, key=validation, reverse=True)
    if len(rows) > MOST_PANELS:
        return _curves_together(rows)
    rows = table.finished
    columns = min(COLUMNS, len(rows))
    lines = -(-len(rows) // columns)
    drawing = figure(0.2 + 2.2 * columns, 3 * lines)
    grids = drawing.subfigures(lines, columns, squeeze=False)
    highest = max(max(run.history["val/loss"]) for row in rows for run in row.finished)
    for index, row in enumerate(rows):
        above, below = grids[index // columns, index % columns].subplots(2, 1, sharex=True)
        _curves(above, row, "accuracy", (0, 1))
        _curves(below, row, "loss", (0, 1.15 * highest))
        above.set_title(short(row.name, 30))
        below.set_xlabel("epoch")
        if index == 0:
            below.legend(loc="best")
    return png(drawing)


def _curves(axes, row: Row, what: str, limits: tuple[float, float]) -> None:
    for run in row.finished:
        epochs = np.arange(1, run.epochs + 1)
        label = run is row.first
        train, validation = run.history[f"train/{what}"], run.history[f"val/{what}"]
        marker = "." if run.epochs < 3 else None
        axes.plot(epochs, train, color=GREY, lw=1, marker=marker, label="training" * label)
        axes.plot(epochs, validation, color=BLUE, lw=1.2, marker=marker, label="validation" * label)
        for epoch in np.flatnonzero(_drops(run.history["lr"])) + 1:
            axes.axvline(epoch + 0.5, color=INK, lw=0.5, ls=":")
    axes.set_ylim(*limits)
    axes.set_ylabel(what)


def _drops(rates: Sequence[float]) -> np.ndarray:
    """After which epochs a stepwise schedule changed its rate; a smooth one has no such moments."""
    changes = np.diff(rates) != 0
    return changes if changes.sum() <= 5 else np.zeros_like(changes)


def _curves_together(rows: Sequence[Row]) -> bytes:
    drawing = figure(8.2, 3.4)
    colours = mpl.colormaps["viridis"](np.linspace(0, 0.85, 5))
    for axes, what in zip(drawing.subplots(1, 2), ("accuracy", "loss"), strict=True):
        for rank, row in reversed(list(enumerate(rows))):
            values = row.first.history[f"val/{what}"]
            best = rank < len(colours)
            style = {"color": colours[rank], "label": short(row.name, 44)} if best else {}
            axes.plot(
                np.arange(1, len(values) + 1), values, **({"color": "#dddddd", "lw": 0.8} | style)
            )
        axes.set(xlabel="epoch", ylabel=f"validation {what}")
    handles, labels = axes.get_legend_handles_labels()
    drawing.legend(handles[::-1], labels[::-1], loc="outside lower center", ncols=2)
    return png(drawing)


def confusions(row: Row) -> bytes | None:
    """Confusion matrix, in shares of a class's images, of the classes that are confused most."""
    predictions = row.predictions
    total = max(predictions.labels.max(), predictions.last.max()) + 1
    matrix = np.zeros((total, total), int)
    np.add.at(matrix, (predictions.labels, predictions.last), 1)
    wrong = matrix * (1 - np.eye(total, dtype=int))
    if not wrong.any():
        return None
    chosen: list[int] = []
    for place in np.argsort(-wrong, axis=None, kind="stable")[: np.count_nonzero(wrong)]:
        pair = [int(number) for number in np.unravel_index(place, wrong.shape)]
        if len({*chosen, *pair}) > CONFUSED_CLASSES:
            break
        chosen += [number for number in pair if number not in chosen]
    chosen.sort()
    counts = matrix[np.ix_(chosen, chosen)]
    shares = counts / np.maximum(matrix[chosen].sum(1, keepdims=True), 1)
    names = [short(class_name(row.first, number), 18) for number in chosen]
    drawing = figure(6.4, 5.4)
    axes = drawing.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (y, x), count in np.ndenumerate(counts):
        if count:
            ink = "white" if shares[y, x] > 0.55 else INK
            axes.text(x, y, str(count), ha="center", va="center", fontsize=8, color=ink)
    axes.set_xticks(range(len(names)), names, rotation=50, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="answer", ylabel="class")
    axes.spines[:].set_visible(False)
    return png(drawing)


def per_class(row: Row) -> bytes:
    """Accuracy of every class with its Wilson interval, from the worst to the best."""
    predictions = row.predictions
    accuracy, count = statistics.per_class(
        predictions.labels, predictions.correct, int(predictions.labels.max()) + 1
    )
    present = np.flatnonzero(count)
    order = present[np.argsort(accuracy[present], kind="stable")]
    columns = 1 if len(order) <= 20 else 3
    height = -(-len(order) // columns)
    drawing = figure(3 + 2.6 * (columns - 1) + 0.6, 0.6 + 0.165 * height)
    panels = np.atleast_1d(drawing.subplots(1, columns))
    for panel, axes in enumerate(panels):
        part = order[panel * height : (panel + 1) * height]
        for place, number in enumerate(part):
            interval = statistics.wilson(accuracy[number], int(count[number]))
            axes.plot([interval.low, interval.high], [place, place], color=GREY, lw=1.6)
        axes.plot(accuracy[part], range(len(part)), "o", color=BLUE, ms=3)
        axes.set_yticks(range(len(part)), [short(class_name(row.first, n), 18) for n in part])
        axes.set(xlim=(-0.02, 1.02), ylim=(height - 0.3, -0.7), xlabel="accuracy")
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", lw=0.3)
    return png(drawing)


def reliability(table: Table) -> bytes:
    """What share of answers is right at each promised probability; a panel a row."""
    rows = [row for row in table.finished if row.predictions is not None]
    rows = sorted(rows, key=validation, reverse=True)[:MOST_PANELS]
    rows = [row for row in table.finished if row in rows]
    columns = min(COLUMNS, len(rows))
    lines = -(-len(rows) // columns)
    drawing = figure(2.1 * columns + 0.4, 2.3 * lines)
    panels = drawing.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    for index, axes in enumerate(panels.flat):
        if index >= len(rows):
            axes.set_axis_off()
            continue
        predictions = rows[index].predictions
        bins = statistics.calibration(predictions.confidences, predictions.correct)
        edges = np.arange(len(bins.count)) / len(bins.count)
        share = bins.count / bins.count.sum()
        axes.bar(edges, share, 1 / len(edges), align="edge", color="#e4e4e4")
        axes.plot([0, 1], [0, 1], color=INK, lw=0.5, ls=":")
        axes.plot(bins.confidence, bins.accuracy, "o-", color=BLUE, ms=3, lw=1)
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        axes.set_title(f"{short(rows[index].name, 26)}\nECE {bins.error:.3f}", fontsize=8.5)
    drawing.supxlabel("probability of the answer", fontsize=9)
    drawing.supylabel("share of right answers", fontsize=9)
    return png(drawing)
