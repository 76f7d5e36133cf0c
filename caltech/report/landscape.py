"""What a sweep found over the keys that it varied: a line, a heat map, or parallel axes."""

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from caltech.amounts import printable
from caltech.report.rows import Table
from caltech.report.statistics import Interval

INK, BLUE, GREY = "#222222", "#1f5a94", "#b9b9b9"

MOST_NAMED = 5  # lines with colours that are told apart


def sweep(table: Table) -> Figure | None:
    """Best validation accuracy over the keys that differ: a line, a heat map, or parallel axes."""
    rows = table.finished
    axes = {key: _numbers([row.params[key] for row in rows]) for key in table.columns}
    words = [tuple(row.params[key] for key in table.columns if not axes[key]) for row in rows]
    varied = [key for key, n in axes.items() if len(set(n)) > 1 and not _follows(n, words)]
    if not varied or len(rows) < 3:
        return None
    accuracy = np.array([row.score for row in rows])
    if len(varied) == 1:
        others = [key for key in table.columns if key != varied[0]]
        kinds = [", ".join(f"{key}={row.params[key]}" for key in others) for row in rows]
        intervals = [row.interval("val/best_accuracy") for row in rows]
        return _lines(varied[0], axes[varied[0]], accuracy, kinds, intervals)
    x, y = (axes[key] for key in varied[:2])
    if len(varied) == 2 and len(set(zip(x, y, strict=True))) >= len(set(x)) * len(set(y)) / 2:
        return _heat_map(varied, x, y, accuracy)
    keys = [key for key in table.columns if key in varied or len(varied) < 6]
    return _parallel({key: [row.params[key] for row in rows] for key in keys}, accuracy)


def _follows(numbers: Sequence[float], words: Sequence[tuple[str, ...]]) -> bool:
    """Whether other keys, which are no numbers, tell a key's number: then it is no axis."""
    return len({*words}) > 1 and len({*zip(words, numbers, strict=True)}) == len({*words})


def short(name: str, length: int) -> str:
    """A name that fits, on one line."""
    name = printable(name)
    return name if len(name) <= length else name[: length - 1] + "…"


def _lines(
    key: str,
    numbers: Sequence[float],
    accuracy: np.ndarray,
    kinds: Sequence[str],
    intervals: Sequence[Interval | None],
) -> Figure:
    """One line a kind: what differs in more than the key is no course of one thing.

    Of many kinds the best are named. Thin bars are the accuracies' intervals.
    """
    best = {kind: value for value, kind in sorted(zip(accuracy, kinds, strict=True))}
    names = sorted(best, key=lambda kind: -best[kind])
    named = names[:MOST_NAMED] if len(names) > 1 else []
    colours = dict(
        zip(named, mpl.colormaps["viridis"](np.linspace(0, 0.85, MOST_NAMED)), strict=False)
    )
    drawing = Figure((4.6, 3 + 0.16 * len(named)))
    axes = drawing.subplots()
    for name in reversed(names):
        own = np.array([kind == name for kind in kinds])
        x, y = np.array(numbers)[own], accuracy[own]
        order = np.argsort(x, kind="stable")
        colour = colours.get(name, GREY if named else BLUE)
        label = short(name, 60) if name in named else None
        axes.plot(x[order], y[order], "o-", color=colour, lw=1.2, ms=4, label=label)
        for place, interval in zip(x, (intervals[n] for n in np.flatnonzero(own)), strict=True):
            if interval is not None:
                axes.vlines(place, interval.low, interval.high, color=colour, lw=0.8)
    if _is_wide(numbers):
        axes.set_xscale("log")
        steps = (1.0, 2.0, 5.0) if max(numbers) < 200 * min(numbers) else (1.0,)
        axes.xaxis.set_major_locator(LogLocator(subs=steps))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))  # names may have a $: no TeX
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel=key, ylabel="best validation accuracy")
    if named:
        handles, labels = axes.get_legend_handles_labels()
        drawing.legend(handles[::-1], labels[::-1], loc="outside lower center")
    return drawing


def _heat_map(
    keys: Sequence[str], x: Sequence[float], y: Sequence[float], accuracy: np.ndarray
) -> Figure:
    """The best of each cell."""
    x_values, y_values = sorted(set(x)), sorted(set(y))
    grid = np.full((len(y_values), len(x_values)), np.nan)
    for column, line, value in zip(x, y, accuracy, strict=True):
        place = y_values.index(line), x_values.index(column)
        grid[place] = np.fmax(grid[place], value)
    drawing = Figure((1.6 + 0.75 * len(x_values), 1.3 + 0.5 * len(y_values)))
    axes = drawing.subplots()
    image = axes.imshow(grid, cmap="viridis", aspect="auto", origin="lower")
    middle = (np.nanmin(grid) + np.nanmax(grid)) / 2
    for (y, x), value in np.ndenumerate(grid):
        if np.isfinite(value):
            ink = "white" if value < middle else "black"
            axes.text(x, y, f"{value:.3f}", ha="center", va="center", color=ink, fontsize=8)
    axes.set_xticks(range(len(x_values)), [f"{value:g}" for value in x_values])
    axes.set_yticks(range(len(y_values)), [f"{value:g}" for value in y_values])
    axes.set(xlabel=keys[0], ylabel=keys[1])
    drawing.colorbar(image, label="best validation accuracy")
    return drawing


def _parallel(values: Mapping[str, Sequence[str]], accuracy: np.ndarray) -> Figure:
    """One line a row over one axis a key; the best validation accuracy is the last axis."""
    drawing = Figure((8.2, 3.6))
    axes = drawing.subplots()
    low, high = accuracy.min(), max(accuracy.max(), accuracy.min() + 1e-9)
    share = (accuracy - low) / (high - low)
    positions, ticks = [], []
    for of_rows in values.values():
        place, tick = _axis(of_rows)
        # Rows that share a value pass it side by side in the order of their accuracy.
        positions.append(place + 0.07 * (share - 0.5) * (len(np.unique(place)) < len(share) / 2))
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
    axes.set_xticks(range(len(ticks)), [*values, "best validation\naccuracy"])
    axes.set_yticks([])
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.set_xlim(-0.1, len(ticks) - 0.7)
    return drawing


def _axis(values: Sequence[str]) -> tuple[np.ndarray, list[tuple[float, str]]]:
    """Places from 0 to 1 of a key's values, logarithmic if they span a decade, and its ticks."""
    numbers = np.array(_numbers(values))
    if not len(numbers):
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


def _numbers(values: Sequence[str]) -> list[float]:
    """Of a key that has a finite number in each row, else nothing."""
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        return []
    return numbers if np.isfinite(numbers).all() else []


def _is_wide(values: Sequence[float]) -> bool:
    return min(values) > 0 and max(values) >= 10 * min(values)
