"""A study's pictures: PNG files that are read on paper as well as on a screen."""

import functools
import io
import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from caltech.amounts import printable
from caltech.report import landscape, statistics
from caltech.report.landscape import BLUE, GREY, INK, short
from caltech.report.rows import Row, Table

log = logging.getLogger(__name__)

STYLE = Path(__file__).with_name("templates") / "pictures.mplstyle"
PANELS = 4  # side by side
MOST_PANELS = 12  # of more rows the best are drawn, and the others together
CONFUSED_CLASSES = 14
BOXES = "Last Resort"  # a font that has a box for every character
MOST_TOLD = 20  # characters in a warning
FEW = 3  # epochs, below which a line has no course: its points are drawn


@dataclass(frozen=True)
class Picture:
    """A PNG with what is to be said of it."""

    name: str
    caption: str
    png: bytes
    width: int  # on a page, in CSS pixels


def draw(table: Table) -> list[Picture]:
    """All pictures of a table's finished rows; none if there are none."""
    if not table.finished:
        return []
    with mpl.rc_context(fname=STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # which is told once
        mpl.rcParams["font.family"] = [*mpl.rcParams["font.family"], *_further_fonts(table)]
        best, answered = table.best, [row for row in table.finished if row.predictions]
        drawn = []
        if 1 < len(table.finished) <= MOST_PANELS:  # of more rows there is no other picture
            drawn.append(("validation", CURVES_TOGETHER, _curves_together(table.finished)))
        drawn.append(("learning-curves", *learning_curves(table.finished)))
        if not table.is_published and (found := landscape.sweep(table)):
            drawn.append(("sweep", "Best validation accuracy over the keys that differ.", found))
        if answered:
            drawn.append(("reliability", RELIABILITY, reliability(answered)))
        if best in answered and not best.predictions.correct.all():
            drawn.append(("confusions", f"{best.name}: {CONFUSIONS}", confusions(best)))
        if best in answered:
            drawn.append(("per-class", f"{best.name}: {PER_CLASS}", per_class(best)))
        return [_picture(*each) for each in drawn]


def _further_fonts(table: Table) -> list[str]:
    """Installed fonts with the characters of rows' and classes' names that the usual one lacks."""
    texts = [row.name for row in table.finished] + table.best.first.data.get("classes", [])
    (usual,) = mpl.rcParams["font.family"]
    lacking = {*printable(" ".join(texts))} - _characters(font_manager.findfont(usual))
    fonts: dict[str, str] = {}
    for each in font_manager.fontManager.ttflist if lacking else ():
        if (each.style, each.weight) == ("normal", 400) and not each.name.startswith(BOXES):
            fonts.setdefault(each.name, each.fname)
    found = []
    while lacking and fonts:
        name = max(sorted(fonts), key=lambda name: len(lacking & _characters(fonts[name])))
        if not (added := lacking & _characters(fonts[name])):
            break
        found, lacking = [*found, name], lacking - added
    if lacking:
        _tell_lacking("".join(sorted(lacking)))
    return found


@functools.cache
def _characters(path: str) -> frozenset[str]:
    """Of a font; none of one that cannot be read."""
    try:
        return frozenset(map(chr, font_manager.get_font(path).get_charmap()))
    except (OSError, RuntimeError):
        return frozenset()


@functools.cache
def _tell_lacking(characters: str) -> None:
    """Once, however many tables have them."""
    log.warning(
        "In the pictures a box stands for each of %s: no font that matplotlib finds has it. "
        "Install one that does (fonts-noto-cjk for Chinese, Japanese and Korean), and remove %s.",
        characters if len(characters) <= MOST_TOLD else f"{characters[:MOST_TOLD]} ...",
        Path(mpl.get_cachedir()) / "fontlist-*.json",
    )


RELIABILITY = (
    "Reliability: the share of right answers at each probability (blue), where answers lie (grey "
    "bars), and the expected calibration error (ECE). Dotted: a calibrated model."
)
CONFUSIONS = (
    "test images of the classes that are confused most, by class and answer; the shade is the "
    "share of the class's images."
)
PER_CLASS = "test accuracy of every class with its 95 % interval."
CURVES = "Training (grey) and validation (blue) by epoch, every seed; dotted: the rate is lowered."
CURVES_TOGETHER = "Validation by epoch, first seeds; the five best rows are coloured."


def _picture(name: str, caption: str, drawing: Figure) -> Picture:
    """With a palette of 64 colours: a third of the size, and nobody sees it.

    By octree, which keeps a thin line's colour: median cut gives two lines one.
    """
    drawn, packed = io.BytesIO(), io.BytesIO()
    drawing.savefig(drawn, format="png")
    image = Image.open(drawn).convert("RGB")
    image = image.quantize(64, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    image.save(packed, format="png", optimize=True)
    width = image.width * 96 // int(drawing.dpi)
    return Picture(name, caption, packed.getvalue(), width)


def learning_curves(rows: Sequence[Row]) -> tuple[str, Figure]:
    """Accuracy and loss by epoch, a panel a row (all seeds); of a larger sweep in one panel."""
    if len(rows) > MOST_PANELS:
        return CURVES_TOGETHER, _curves_together(rows)
    lines, columns = _grid(rows)
    drawing = Figure((0.2 + 2.2 * columns, 3 * lines))
    grids = drawing.subfigures(lines, columns, squeeze=False)
    highest = max(max(run.history["val/loss"]) for row in rows for run in row.finished)
    for row, title, panel in zip(rows, titles(rows, 26), grids.flat, strict=False):
        above, below = panel.subplots(2, 1, sharex=True)
        _curves(above, row, "accuracy", (0, 1))
        _curves(below, row, "loss", (0, 1.15 * highest))
        above.set_title(title)
        below.set_xlabel("epoch")
        if row is rows[0]:
            below.legend(loc="best")
    return CURVES, drawing


def titles(rows: Sequence[Row], length: int) -> list[str]:
    """The rows' names, short, and told apart where they begin alike."""
    for cut in (lambda name: short(name, length), lambda name: _middle(name, length)):
        found = [cut(row.name) for row in rows]
        if len({*found}) == len(found):
            return found
    return [short(f"{number}: {row.name}", length) for number, row in enumerate(rows, 1)]


def _middle(name: str, length: int) -> str:
    """Without its middle."""
    first = length // 3
    return name if len(name) <= length else f"{name[:first]}…{name[first - length + 1 :]}"


def _grid(rows: Sequence[Row]) -> tuple[int, int]:
    """Lines and columns of a panel for each row."""
    columns = min(PANELS, len(rows))
    return -(-len(rows) // columns), columns


def _curves(axes, row: Row, what: str, limits: tuple[float, float]) -> None:
    for run in row.finished:
        epochs, marker = np.arange(1, run.epochs + 1), "." if run.epochs < FEW else None
        for part, label, style in (
            ("train", "training", {"color": GREY, "lw": 1}),
            ("val", "validation", {"color": BLUE, "lw": 1.2}),
        ):
            label *= run is row.first
            axes.plot(epochs, run.history[f"{part}/{what}"], marker=marker, label=label, **style)
        changed = np.flatnonzero(np.diff(run.history["lr"]))
        for epoch in changed if len(changed) <= 5 else ():  # a smooth schedule has no such moments
            axes.axvline(epoch + 1.5, color=INK, lw=0.5, ls=":")
    axes.set_ylim(*limits)
    axes.set_ylabel(what)
    _by_epoch(axes, max(run.epochs for run in row.finished))


def _by_epoch(axes, epochs: int) -> None:
    """Whole epochs only, also if there is one."""
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, min_n_ticks=1))
    if epochs == 1:
        axes.set_xlim(0.5, 1.5)


def _curves_together(rows: Sequence[Row]) -> Figure:
    rows = sorted(rows, key=lambda row: row.score, reverse=True)
    drawing = Figure((8.2, 3.4))
    colours = mpl.colormaps["viridis"](np.linspace(0, 0.85, min(5, len(rows))))
    styles = [{"color": "#dddddd", "lw": 0.8}] * len(rows)
    for rank, (colour, title) in enumerate(zip(colours, titles(rows, 44), strict=False)):
        styles[rank] = {"color": colour, "label": title}
    for axes, what in zip(drawing.subplots(1, 2), ("accuracy", "loss"), strict=True):
        curves = [row.first.history[f"val/{what}"] for row in rows]
        for rank, (values, style) in reversed(list(enumerate(zip(curves, styles, strict=True)))):
            hidden = curves[:rank].count(values)  # under as many: a rim of it is seen
            width = style.get("lw", 1.5) + 2 * hidden
            points = {"marker": "o", "ms": 2 + width} if len(values) < FEW else {}
            axes.plot(np.arange(1, len(values) + 1), values, **style | points | {"lw": width})
        axes.set(xlabel="epoch", ylabel=f"validation {what}")
        _by_epoch(axes, max(map(len, curves)))
    handles, labels = axes.get_legend_handles_labels()
    drawing.legend(handles[::-1], labels[::-1], loc="outside lower center", ncols=2)
    return drawing


def confusions(row: Row) -> Figure:
    """Confusion matrix, in shares of a class's images, of the classes that are confused most."""
    known = row.predictions
    classes, counts, shares = statistics.confused(known.labels, known.last, CONFUSED_CLASSES)
    names = [short(row.first.class_name(number), 18) for number in classes]
    drawing = Figure((6.4, 5.4))
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
    return drawing


def per_class(row: Row) -> Figure:
    """Accuracy of every class with its Wilson interval, from the worst to the best."""
    known = row.predictions
    accuracy, count = statistics.per_class(known.labels, known.correct)
    present = np.flatnonzero(count)
    order = present[np.argsort(accuracy[present], kind="stable")]
    columns = 1 if len(order) <= 20 else 3
    height = -(-len(order) // columns)
    drawing = Figure((3 + 2.6 * (columns - 1) + 0.6, 0.6 + 0.165 * height))
    for panel, axes in enumerate(drawing.subplots(1, columns, squeeze=False).flat):
        part = order[panel * height : (panel + 1) * height]
        for place, number in enumerate(part):
            interval = statistics.wilson(accuracy[number], int(count[number]))
            axes.plot([interval.low, interval.high], [place, place], color=GREY, lw=1.6)
        axes.plot(accuracy[part], range(len(part)), "o", color=BLUE, ms=3)
        axes.set_yticks(range(len(part)), [short(row.first.class_name(n), 18) for n in part])
        axes.set(xlim=(-0.02, 1.02), ylim=(height - 0.3, -0.7), xlabel="accuracy")
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", lw=0.3)
    return drawing


def reliability(rows: Sequence[Row]) -> Figure:
    """What share of answers is right at each promised probability; a panel a row."""
    best = sorted(rows, key=lambda row: row.score, reverse=True)[:MOST_PANELS]
    rows = [row for row in rows if row in best]
    lines, columns = _grid(rows)
    drawing = Figure((2.1 * columns + 0.4, 2.3 * lines))
    panels = drawing.subplots(lines, columns, squeeze=False, sharex=True, sharey=True)
    for axes in panels.flat[len(rows) :]:
        axes.set_axis_off()
    for row, axes in zip(rows, panels.flat, strict=False):
        bins = row.predictions.calibration
        edges = np.arange(len(bins.count)) / len(bins.count)
        share = bins.count / bins.count.sum()
        axes.bar(edges, share, 1 / len(edges), align="edge", color="#e4e4e4")
        axes.plot([0, 1], [0, 1], color=INK, lw=0.5, ls=":")
        axes.plot(bins.confidence, bins.accuracy, "o-", color=BLUE, ms=3, lw=1)
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        axes.set_title(f"{short(row.name, 26)}\nECE {row.calibration_error:.3f}", fontsize=8.5)
    drawing.supxlabel("probability of the answer", fontsize=9)
    drawing.supylabel("share of right answers", fontsize=9)
    return drawing
