"""A study's pictures: PNG files that are read on paper as well as on a screen."""

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from caltech import intervals
from caltech.rows import Row, Table
from caltech.tables import class_name

STYLE = {
    "font.family": "STIXGeneral",
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "text.parse_math": False,  # a $ in a name is a $
    "figure.constrained_layout.use": True,
}
DPI = 144  # shown at 96: text of a page's size, and sharp in print
INK, BLUE, RED, GREY = "#222222", "#1f5a94", "#b3412f", "#b9b9b9"
COLUMNS = 3  # panels side by side
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
        if not table.is_published and (png := sweep(table)):
            caption = "Best validation accuracy over the keys that differ."
            pictures.append(Picture("sweep", caption, png))
        if any(row.predictions is not None for row in table.finished):
            pictures.append(Picture("reliability", RELIABILITY, reliability(table)))
        return pictures + _of_the_best(table.best)


def _of_the_best(row: Row) -> list[Picture]:
    if row.predictions is None:
        return []
    pictures = []
    if png := confusions(row):
        caption = (
            f"{row.name}: test images of the classes that are confused most, by class and answer; "
            "the shade is the share of the class's images."
        )
        pictures.append(Picture("confusions", caption, png, is_wide=False))
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
    rows = sorted(table.finished, key=_validation, reverse=True)
    if len(rows) > MOST_PANELS:
        return _curves_together(rows)
    rows = table.finished
    lines = -(-len(rows) // COLUMNS)
    figure = _figure(8.2, 3.1 * lines)
    grids = figure.subfigures(lines, COLUMNS, squeeze=False)
    highest = max(max(run.history["val/loss"]) for row in rows for run in row.finished)
    for index, row in enumerate(rows):
        above, below = grids[index // COLUMNS, index % COLUMNS].subplots(2, 1, sharex=True)
        _curves(above, row, "accuracy", (0, 1))
        _curves(below, row, "loss", (0, 1.15 * highest))
        above.set_title(_short(row.name, 38))
        below.set_xlabel("epoch")
        if index == 0:
            below.legend(loc="best")
    return _png(figure)


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
    figure = _figure(8.2, 3.4)
    colours = mpl.colormaps["viridis"](np.linspace(0, 0.85, 5))
    for axes, what in zip(figure.subplots(1, 2), ("accuracy", "loss"), strict=True):
        for rank, row in reversed(list(enumerate(rows))):
            values = row.first.history[f"val/{what}"]
            best = rank < len(colours)
            style = {"color": colours[rank], "label": _short(row.name, 44)} if best else {}
            axes.plot(
                np.arange(1, len(values) + 1), values, **({"color": "#dddddd", "lw": 0.8} | style)
            )
        axes.set(xlabel="epoch", ylabel=f"validation {what}")
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside lower center", ncols=2)
    return _png(figure)


def sweep(table: Table) -> bytes | None:
    """Best validation accuracy over the keys that differ: a line, a heat map, or parallel axes."""
    rows = table.finished
    numeric = [key for key in table.columns if _is_number_throughout(rows, key)]
    varied = [key for key in numeric if len({row.params[key] for row in rows}) > 1]
    if not varied or len(rows) < 3:
        return None
    if len(varied) == 1:
        return _line(rows, varied[0])
    x_key, y_key = varied[:2]
    cells = {(row.params[x_key], row.params[y_key]) for row in rows}
    sides = [len({row.params[key] for row in rows}) for key in (x_key, y_key)]
    if len(varied) == 2 and len(cells) >= sides[0] * sides[1] / 2:
        return _heat_map(rows, x_key, y_key)
    return _parallel(rows, [key for key in table.columns if key in varied or len(varied) < 6])


def _line(rows: Sequence[Row], key: str) -> bytes:
    figure = _figure(4.6, 3)
    axes = figure.subplots()
    order = sorted(rows, key=lambda row: float(row.params[key]))
    values = [float(row.params[key]) for row in order]
    axes.plot(values, [_validation(row) for row in order], "o-", color=BLUE, lw=1.2, ms=4)
    if _is_wide(values):
        axes.set_xscale("log")
    axes.set(xlabel=key, ylabel="best validation accuracy")
    return _png(figure)


def _heat_map(rows: Sequence[Row], x_key: str, y_key: str) -> bytes:
    x_values = sorted({float(row.params[x_key]) for row in rows})
    y_values = sorted({float(row.params[y_key]) for row in rows})
    grid = np.full((len(y_values), len(x_values)), np.nan)
    for row in rows:
        place = y_values.index(float(row.params[y_key])), x_values.index(float(row.params[x_key]))
        grid[place] = np.fmax(grid[place], _validation(row))
    figure = _figure(1.6 + 0.75 * len(x_values), 1.3 + 0.5 * len(y_values))
    axes = figure.subplots()
    image = axes.imshow(grid, cmap="viridis", aspect="auto", origin="lower")
    middle = (np.nanmin(grid) + np.nanmax(grid)) / 2
    for (y, x), value in np.ndenumerate(grid):
        if np.isfinite(value):
            ink = "white" if value < middle else "black"
            axes.text(x, y, f"{value:.3f}", ha="center", va="center", color=ink, fontsize=8)
    axes.set_xticks(range(len(x_values)), [f"{value:g}" for value in x_values])
    axes.set_yticks(range(len(y_values)), [f"{value:g}" for value in y_values])
    axes.set(xlabel=x_key, ylabel=y_key)
    figure.colorbar(image, label="best validation accuracy")
    return _png(figure)


def _parallel(rows: Sequence[Row], keys: Sequence[str]) -> bytes:
    """One line a row over one axis a key; the best validation accuracy is the last axis."""
    figure = _figure(8.2, 3.6)
    axes = figure.subplots()
    accuracy = np.array([_validation(row) for row in rows])
    low, high = accuracy.min(), max(accuracy.max(), accuracy.min() + 1e-9)
    share = (accuracy - low) / (high - low)
    positions, ticks = [], []
    for key in keys:
        place, tick = _axis([row.params[key] for row in rows])
        # Rows that share a value pass it side by side in the order of their accuracy.
        positions.append(place + 0.07 * (share - 0.5) * (len(np.unique(place)) < len(rows) / 2))
        ticks.append(tick)
    positions.append(share)
    ticks.append([(s, f"{low + s * (high - low):.3f}") for s in (0, 0.25, 0.5, 0.75, 1)])
    for index in np.argsort(share):
        colour = mpl.colormaps["viridis"](share[index])
        axes.plot([place[index] for place in positions], color=colour, lw=1.3, alpha=0.85)
    for x, tick in enumerate(ticks):
        axes.axvline(x, color=INK, lw=0.7)
        for place, label in tick:
            box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6}
            axes.text(x + 0.03, place, _short(label, 18), va="center", fontsize=8, bbox=box)
    axes.set_xticks(range(len(ticks)), [*keys, "best validation\naccuracy"])
    axes.set_yticks([])
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.set_xlim(-0.1, len(ticks) - 0.7)
    return _png(figure)


def _axis(values: Sequence[str]) -> tuple[np.ndarray, list[tuple[float, str]]]:
    """Places from 0 to 1 of a key's values, logarithmic if they span a decade, and its ticks."""
    try:
        numbers = np.array([float(value) for value in values])
    except ValueError:
        names = sorted(set(values))
        places = np.linspace(0, 1, max(len(names), 2))
        ticks = list(zip(places, names, strict=False))
        return np.array([places[names.index(value)] for value in values]), ticks
    scaled = np.log10(numbers) if _is_wide(numbers) else numbers
    span = max(scaled.max() - scaled.min(), 1e-12)
    places = (scaled - scaled.min()) / span
    distinct = sorted(set(zip(places, numbers, strict=True)))
    step = -(-len(distinct) // 7)
    shown = distinct[::step] if len(distinct) <= 14 else [distinct[0], distinct[-1]]
    return places, [(place, f"{number:.3g}") for place, number in shown]


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
    names = [_short(class_name(row.first, number), 18) for number in chosen]
    figure = _figure(6.4, 5.4)
    axes = figure.subplots()
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (y, x), count in np.ndenumerate(counts):
        if count:
            ink = "white" if shares[y, x] > 0.55 else INK
            axes.text(x, y, str(count), ha="center", va="center", fontsize=8, color=ink)
    axes.set_xticks(range(len(names)), names, rotation=50, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="answer", ylabel="class")
    axes.spines[:].set_visible(False)
    return _png(figure)


def per_class(row: Row) -> bytes:
    """Accuracy of every class with its Wilson interval, from the worst to the best."""
    predictions = row.predictions
    accuracy, count = intervals.per_class(
        predictions.labels, predictions.correct, int(predictions.labels.max()) + 1
    )
    present = np.flatnonzero(count)
    order = present[np.argsort(accuracy[present], kind="stable")]
    columns = 1 if len(order) <= 20 else COLUMNS
    height = -(-len(order) // columns)
    figure = _figure(3 + 2.6 * (columns - 1) + 0.6, 0.6 + 0.165 * height)
    panels = np.atleast_1d(figure.subplots(1, columns))
    for panel, axes in enumerate(panels):
        part = order[panel * height : (panel + 1) * height]
        for place, number in enumerate(part):
            interval = intervals.wilson(accuracy[number], int(count[number]))
            axes.plot([interval.low, interval.high], [place, place], color=GREY, lw=1.6)
        axes.plot(accuracy[part], range(len(part)), "o", color=BLUE, ms=3)
        axes.set_yticks(range(len(part)), [_short(class_name(row.first, n), 18) for n in part])
        axes.set(xlim=(-0.02, 1.02), ylim=(height - 0.3, -0.7), xlabel="accuracy")
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", lw=0.3)
    return _png(figure)


def reliability(table: Table) -> bytes:
    """What share of answers is right at each promised probability; a panel a row."""
    rows = [row for row in table.finished if row.predictions is not None]
    rows = sorted(rows, key=_validation, reverse=True)[:MOST_PANELS]
    rows = [row for row in table.finished if row in rows]
    columns = min(4, len(rows))
    lines = -(-len(rows) // columns)
    figure = _figure(2.1 * columns + 0.4, 2.3 * lines)
    panels = figure.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    for index, axes in enumerate(panels.flat):
        if index >= len(rows):
            axes.set_axis_off()
            continue
        predictions = rows[index].predictions
        bins = intervals.calibration(predictions.confidences, predictions.correct)
        edges = np.arange(len(bins.count)) / len(bins.count)
        share = bins.count / bins.count.sum()
        axes.bar(edges, share, 1 / len(edges), align="edge", color="#e4e4e4")
        axes.plot([0, 1], [0, 1], color=INK, lw=0.5, ls=":")
        axes.plot(bins.confidence, bins.accuracy, "o-", color=BLUE, ms=3, lw=1)
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        axes.set_title(f"{_short(rows[index].name, 26)}\nECE {bins.error:.3f}", fontsize=8.5)
    figure.supxlabel("probability of the answer", fontsize=9)
    figure.supylabel("share of right answers", fontsize=9)
    return _png(figure)


def _validation(row: Row) -> float:
    return row.mean("val/best_accuracy")


def _is_number_throughout(rows: Sequence[Row], key: str) -> bool:
    try:
        return all(np.isfinite(float(row.params[key])) for row in rows)
    except ValueError:
        return False


def _is_wide(values: Sequence[float]) -> bool:
    return min(values) > 0 and max(values) >= 10 * min(values)


def _short(name: str, length: int) -> str:
    return name if len(name) <= length else name[: length - 1] + "…"


def _figure(width: float, height: float) -> Figure:
    """In inches."""
    return Figure(figsize=(width, height), dpi=DPI)


def _png(figure: Figure) -> bytes:
    """With a palette of 64 colours: a third of the size, and nobody sees it."""
    drawn, packed = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png")
    image = Image.open(drawn).convert("RGB").quantize(64, dither=Image.Dither.NONE)
    image.save(packed, format="png", optimize=True)
    return packed.getvalue()
