"""What a sweep found over the keys that it varied: a line, a heat map, or parallel axes."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np

from caltech.report.canvas import BLUE, INK, figure, png, short, validation
from caltech.report.rows import Row, Table


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
    drawing = figure(4.6, 3)
    axes = drawing.subplots()
    order = sorted(rows, key=lambda row: float(row.params[key]))
    values = [float(row.params[key]) for row in order]
    axes.plot(values, [validation(row) for row in order], "o-", color=BLUE, lw=1.2, ms=4)
    if _is_wide(values):
        axes.set_xscale("log")
    axes.set(xlabel=key, ylabel="best validation accuracy")
    return png(drawing)


def _heat_map(rows: Sequence[Row], x_key: str, y_key: str) -> bytes:
    x_values = sorted({float(row.params[x_key]) for row in rows})
    y_values = sorted({float(row.params[y_key]) for row in rows})
    grid = np.full((len(y_values), len(x_values)), np.nan)
    for row in rows:
        place = y_values.index(float(row.params[y_key])), x_values.index(float(row.params[x_key]))
        grid[place] = np.fmax(grid[place], validation(row))
    drawing = figure(1.6 + 0.75 * len(x_values), 1.3 + 0.5 * len(y_values))
    axes = drawing.subplots()
    image = axes.imshow(grid, cmap="viridis", aspect="auto", origin="lower")
    middle = (np.nanmin(grid) + np.nanmax(grid)) / 2
    for (y, x), value in np.ndenumerate(grid):
        if np.isfinite(value):
            ink = "white" if value < middle else "black"
            axes.text(x, y, f"{value:.3f}", ha="center", va="center", color=ink, fontsize=8)
    axes.set_xticks(range(len(x_values)), [f"{value:g}" for value in x_values])
    axes.set_yticks(range(len(y_values)), [f"{value:g}" for value in y_values])
    axes.set(xlabel=x_key, ylabel=y_key)
    drawing.colorbar(image, label="best validation accuracy")
    return png(drawing)


def _parallel(rows: Sequence[Row], keys: Sequence[str]) -> bytes:
    """One line a row over one axis a key; the best validation accuracy is the last axis."""
    drawing = figure(8.2, 3.6)
    axes = drawing.subplots()
    accuracy = np.array([validation(row) for row in rows])
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
            axes.text(x + 0.03, place, short(label, 18), va="center", fontsize=8, bbox=box)
    axes.set_xticks(range(len(ticks)), [*keys, "best validation\naccuracy"])
    axes.set_yticks([])
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.set_xlim(-0.1, len(ticks) - 0.7)
    return png(drawing)


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


def _is_number_throughout(rows: Sequence[Row], key: str) -> bool:
    try:
        return all(np.isfinite(float(row.params[key])) for row in rows)
    except ValueError:
        return False


def _is_wide(values: Sequence[float]) -> bool:
    return min(values) > 0 and max(values) >= 10 * min(values)
