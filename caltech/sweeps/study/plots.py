"""Optuna's own plots of a sweep's study."""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import optuna
from optuna.trial import FrozenTrial, TrialState

from caltech.sweeps.study import storage
from caltech.sweeps.study.trials import CURVE, noted_in

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLES = {
    "optimization_history": "Trials in their order",
    "param_importances": "Share of the variation that is each value's (fANOVA)",
    "slice": "Trials by each value",
    "intermediate_values": "Validation accuracy by epoch, a line a trial",
}
# Optuna's words, and those of our tables.
WORDS = {
    "Objective Value": "best validation accuracy",
    "Best Value": "best so far",
    "Trial": "trial",
    "Step": "epoch",
    "Intermediate Value": "validation accuracy",
    "Hyperparameter": "",
    "Hyperparameter Importance": "importance",
}
ENOUGH = 20  # finished trials; of fewer, importances are chance
MOST_NAMED = 10  # lines in a legend


def plot(folder: Path, url: str) -> list[Path]:
    """PNG files in a sweep's folder; none for a plain grid.

    Args:
        folder: of the sweep.
        url: of the storage.
    """
    if (noted := noted_in(folder)) is None:
        return []
    study = storage.patiently(with_curves, storage.study(noted["name"], url))
    finished = study.get_trials(states=(TrialState.COMPLETE,))
    if len({trial.value for trial in finished}) < 2:
        return []  # nothing varies, so nothing has an importance
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from optuna.visualization import matplotlib as plots

    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    made = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna calls these plots experimental since 2020
        for name in TITLES:
            path = folder / f"{name}.png"
            if name == "param_importances" and not _has_importances(finished):
                path.unlink(missing_ok=True)  # of a study that had another way to go on
                continue
            getattr(plots, f"plot_{name}")(study)
            _tidy(pyplot.gcf(), TITLES[name])
            made.append(path)
            pyplot.gcf().savefig(path, dpi=120, bbox_inches="tight")
            pyplot.close("all")
    return made


def _has_importances(finished: Sequence[FrozenTrial]) -> bool:
    """Enough trials, and several values that vary in them."""
    varied = {each for trial in finished for each in trial.params.items()}
    names = [name for name, _ in varied]
    return len(finished) >= ENOUGH and sum(names.count(name) > 1 for name in {*names}) > 1


def _tidy(figure: "Figure", title: str) -> None:
    """Our names for axes, no label over another, no legend that is longer than the picture."""
    from matplotlib.category import StrCategoryFormatter

    panels = [axes for axes in figure.axes if axes.get_xlabel()]
    if len(panels) > 1:
        figure.set_size_inches(3 * len(panels) + 1, 4.2)
    figure.suptitle(title, fontsize=12)
    for axes in figure.axes:
        for side in ("left", "center"):
            axes.set_title("", loc=side)
        axes.set_xlabel(WORDS.get(axes.get_xlabel(), axes.get_xlabel()))
        axes.set_ylabel(WORDS.get(axes.get_ylabel(), axes.get_ylabel()))
        if legend := axes.get_legend():
            for text in legend.get_texts():
                text.set_text(WORDS.get(text.get_text(), text.get_text()))
            if len(legend.get_texts()) > MOST_NAMED or len(axes.containers) == 1:
                legend.remove()
        if isinstance(axes.xaxis.get_major_formatter(), StrCategoryFormatter):
            axes.tick_params(axis="x", labelrotation=30)
            for label in axes.get_xticklabels():
                label.set_horizontalalignment("right")


def with_curves(study: optuna.Study) -> optuna.Study:
    """A copy in memory, where trials have their epochs in the place that Optuna's plots look at."""
    copied = optuna.create_study(study_name=study.study_name, direction="maximize")
    for trial in study.get_trials():
        for epoch, value in trial.user_attrs.get(CURVE, {}).items():
            trial.intermediate_values.setdefault(int(epoch), value)
        copied.add_trial(trial)
    return copied
