"""Pictures are PNG files, and which there are depends on what there is to show."""

import io
import itertools
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import font_manager
from matplotlib.figure import Figure
from PIL import Image

from caltech.report import landscape, pictures, rows
from tests.report.conftest import LABELS, made_up


def sweep(**keys: tuple) -> rows.Table:
    """A row for each combination."""
    points = [dict(zip(keys, map(str, p), strict=True)) for p in itertools.product(*keys.values())]
    run = replace(made_up("num_epochs=2"), predictions=None)
    runs = [replace(run, metrics={"val/best_accuracy": 0.5 + 0.02 * n}) for n in range(len(points))]
    made = zip(points, runs, strict=True)
    return rows.Table(
        "Runs",
        tuple(rows.Row(str(point), (run,), point) for point, run in made),
        tuple(keys),
        False,
    )


@pytest.mark.parametrize(
    ("keys", "kind"),
    [({"lr": (0.1, 0.01, 1)}, "_lines"), ({"lr": (0.1, 1), "step_size": (5, 10)}, "_heat_map"),
     ({"lr": (0.1, 1), "step_size": (5, 9), "gamma": (0.1, 1), "model": ("a", "$b")}, "_parallel")],
)  # fmt: skip
def test_the_picture_of_a_sweep_fits_the_keys_that_differ(keys, kind, monkeypatch):
    found, original = [], getattr(landscape, kind)
    monkeypatch.setattr(landscape, kind, lambda *args: found.append(kind) or original(*args))
    monkeypatch.setattr(pictures, "learning_curves", lambda rows: ("", Figure()))
    drawn = {picture.name: picture.png for picture in pictures.draw(sweep(**keys))}
    assert found == [kind] and drawn["sweep"].startswith(b"\x89PNG")


def test_a_line_is_of_one_kind_and_a_log_axis_has_numbers():
    """Points of another optimizer are another line; names may have a $, so nothing is TeX."""
    with mpl.rc_context(fname=pictures.STYLE):
        drawing = landscape.sweep(sweep(lr=(0.001, 0.1, 0.01), optimizer=("sgd", "$adam")))
        drawing.canvas.draw()
    (axes,) = drawing.axes
    assert [list(line.get_xdata()) for line in axes.lines] == [[0.001, 0.01, 0.1]] * 2
    assert [line.get_label() for line in axes.lines] == [
        "optimizer=sgd",
        "optimizer=$adam",
    ]  # the best is on top
    shown = [tick.get_text() for tick in axes.get_xticklabels()]
    assert {"0.001", "0.01", "0.1"} <= set(shown) and not any("$" in text for text in shown)


def test_a_number_that_other_keys_tell_is_no_axis():
    """Depth with two kinds of weights, each with a rate of its own: two lines over the depth."""
    table = sweep(depth=(0, 1, 2), scratch=("false", "true"))
    rates = {"false": "0.1", "true": "1"}
    told = [replace(r, params=r.params | {"rate": rates[r.params["scratch"]]}) for r in table.rows]
    table = replace(table, rows=tuple(told), columns=("depth", "scratch", "rate"))
    (axes,) = landscape.sweep(table).axes
    assert [list(line.get_xdata()) for line in axes.lines] == [[0, 1, 2]] * 2


def test_pictures_are_of_what_there_is():
    """No confusions of a run that is always right, and no answers of one that has none."""
    run = made_up("num_epochs=2")
    always_right = made_up("num_epochs=2", given=LABELS)
    without = replace(run, predictions=None)
    told = {"learning-curves"}, {"reliability", "per-class"}, {"confusions"}
    expected = (
        (run, told[0] | told[1] | told[2]),
        (always_right, told[0] | told[1]),
        (without, told[0]),
    )
    for each, names in expected:
        table = rows.Table("Table", (rows.Row("$a", (each,), {}),), (), True)
        assert {picture.name for picture in pictures.draw(table)} == names
    assert pictures.draw(rows.Table("Table", (rows.Row("a", (), {}),), (), True)) == []


def test_names_in_any_script_have_a_font_or_are_told_once(monkeypatch, caplog):
    """STIX lacks Arabic, which DejaVu has; no font that comes with matplotlib has Chinese."""
    manager = font_manager.fontManager
    own = [each for each in manager.ttflist if each.fname.startswith(mpl.get_data_path())]
    monkeypatch.setattr(manager, "ttflist", own)
    pictures._tell_lacking.cache_clear()

    def fonts(*classes: str) -> list[str]:
        run = made_up("num_epochs=2")
        run = replace(run, data=run.data | {"classes": [*classes, *run.data["classes"][2:]]})
        table = rows.Table("Table", (rows.Row("a", (run,), {}),), (), True)
        with mpl.rc_context(fname=pictures.STYLE):
            return pictures._further_fonts(table)

    assert fonts("ant", "caf\u00e9") == [] and not caplog.messages
    assert fonts("ant", "\u0633\u0634") == ["DejaVu Sans"] and not caplog.messages
    assert fonts("\u732b", "\u72ac\n\u732b") == [] == fonts("\u72ac", "\u732b")
    (message,) = caplog.messages
    assert "\u72ac\u732b: no font" in message


def test_a_name_with_a_line_break_is_on_one_line():
    run = made_up("num_epochs=2", accuracy=0.5)
    run = replace(run, data=run.data | {"classes": ["two\nlines", *run.data["classes"][1:]]})
    row = rows.Row("a\nb", (run,), {})
    for drawing in (pictures.per_class(row), pictures.confusions(row)):
        names = [each.get_text() for each in drawing.axes[0].get_yticklabels()]
        assert "two lines" in names
    assert pictures.titles([row], 9) == ["a b"]


def test_panels_are_told_apart_where_names_begin_alike():
    run = made_up("num_epochs=2")
    names = ["EfficientNet-Lite2, fine-tuned from a head", "EfficientNet-Lite2, fine-tuned by all"]
    found = pictures.titles([rows.Row(name, (run,), {}) for name in names], 25)
    assert len({*found}) == 2 and max(map(len, found)) <= 25
    same = [rows.Row("x" * 20 + str(n) + "x" * 20, (run,), {}) for n in range(3)]
    assert len({*pictures.titles(same, 25)}) == 3


def test_a_line_s_colour_is_not_lost_in_the_palette():
    drawing, colours = Figure((8, 3)), ["#440154", "#3b528b", "#21918c", "#5ec962", "#addc30"]
    axes = drawing.subplots()
    for place, colour in enumerate(colours):
        axes.plot([0, 1], [place, place + 0.2], color=colour, lw=0.8)
    drawn = Image.open(io.BytesIO(pictures._picture("a", "", drawing).png)).convert("RGB")
    shown = np.unique(np.asarray(drawn).reshape(-1, 3).astype(int), axis=0)
    for colour in colours:
        wanted = [round(255 * part) for part in mpl.colors.to_rgb(colour)]
        assert np.abs(shown - wanted).sum(1).min() < 12, colour


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_curves_of_few_epochs_are_seen_and_so_is_a_row_that_is_under_another(epochs):
    """And an axis of epochs has whole numbers alone."""
    run = made_up(f"num_epochs={epochs}", accuracy=0.4)
    better = made_up(f"num_epochs={epochs}", accuracy=0.6)
    made = [rows.Row(str(n), (r,), {}) for n, r in enumerate((run, better, run, run))]
    drawings = [pictures._curves_together(made), pictures.learning_curves(made)[1]]
    for drawing in drawings:
        drawing.canvas.draw()
        for axes in drawing.axes:
            low, high = axes.get_xlim()
            ticks = [tick for tick in axes.get_xticks() if low <= tick <= high]
            assert low < high and ticks and all(tick == int(tick) for tick in ticks)
    for axes in drawings[0].axes:
        drawn = [line for line in axes.lines if len(line.get_xdata()) == epochs]
        markers = [line.get_markersize() for line in drawn if line.get_marker() == "o"]
        assert len(markers) == (4 if epochs < 3 else 0)
    same = [line for line in drawings[0].axes[0].lines if line.get_ydata()[-1] == 0.4]
    widths = [line.get_linewidth() for line in same]
    assert widths == sorted(set(widths), reverse=True)  # from the lowest to the one on top
