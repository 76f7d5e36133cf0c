"""Optuna's plots, in our words."""

import itertools

import optuna
import pytest
from matplotlib import pyplot

from caltech.sweeps.study import plots
from caltech.sweeps.study.trials import CURVE


@pytest.fixture
def drawn(monkeypatch, tmp_path):
    """Draw a study of so many trials; gives the names of the pictures and the figures."""

    def draw(count: int) -> dict[str, pyplot.Figure]:
        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(0))

        def value(trial: optuna.Trial) -> float:
            trial.set_user_attr(CURVE, {"1": 0.1, "2": 0.2})
            is_adam = trial.suggest_categorical("optimizer", ["sgd", "adamw"]) == "adamw"
            return trial.suggest_float("lr", 0.01, 1, log=True) + is_adam

        study.optimize(value, count)
        monkeypatch.setattr(plots, "noted_in", lambda folder: {"name": study.study_name})
        monkeypatch.setattr(plots.storage, "study", lambda name, url: study)
        figures = []
        monkeypatch.setattr(pyplot, "close", lambda which: figures.append(pyplot.gcf()))
        made = [path.stem for path in plots.plot(tmp_path, "")]
        return dict(zip(made, figures, strict=True))

    yield draw
    monkeypatch.undo()
    pyplot.close("all")


def test_importances_are_of_enough_trials(drawn):
    assert "param_importances" not in drawn(plots.ENOUGH - 1)
    assert "param_importances" in drawn(plots.ENOUGH)


def test_axes_have_our_names_and_no_label_is_over_another(drawn):
    figures = drawn(plots.ENOUGH)
    for figure in figures.values():
        figure.canvas.draw()
        for axes in figure.axes:
            assert not {axes.get_xlabel(), axes.get_ylabel()} & plots.WORDS.keys()
            level = [t for t in axes.get_xticklabels() if t.get_text() and not t.get_rotation()]
            places = [text.get_window_extent() for text in level]
            assert all(left.x1 <= right.x0 for left, right in itertools.pairwise(places))
    (curves,) = figures["intermediate_values"].axes
    assert curves.get_legend() is None and curves.get_xlabel() == "epoch"
