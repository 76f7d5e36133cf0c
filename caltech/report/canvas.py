"""How a report's pictures look, and their way into a PNG file."""

import io

from matplotlib.figure import Figure
from PIL import Image

from caltech.report.rows import Row

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
INK, BLUE, GREY = "#222222", "#1f5a94", "#b9b9b9"


def figure(width: float, height: float) -> Figure:
    """In inches."""
    return Figure(figsize=(width, height), dpi=DPI)


def png(drawing: Figure) -> bytes:
    """With a palette of 64 colours: a third of the size, and nobody sees it."""
    drawn, packed = io.BytesIO(), io.BytesIO()
    drawing.savefig(drawn, format="png")
    image = Image.open(drawn).convert("RGB").quantize(64, dither=Image.Dither.NONE)
    image.save(packed, format="png", optimize=True)
    return packed.getvalue()


def short(name: str, length: int) -> str:
    """A name that fits."""
    return name if len(name) <= length else name[: length - 1] + "…"


def validation(row: Row) -> float:
    """What rows are compared by."""
    return row.mean("val/best_accuracy")
