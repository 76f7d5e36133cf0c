"""Optuna's own plots of a sweep's study."""

import logging
import warnings
from pathlib import Path

import optuna
from optuna.trial import TrialState

from caltech.sweeps.study import storage
from caltech.sweeps.study.trials import CURVE, noted_in

NAMES = ("optimization_history", "param_importances", "slice", "intermediate_values")


def plot(folder: Path, url: str) -> list[Path]:
    """PNG files in a sweep's folder; none for a plain grid.

    Args:
        folder: of the sweep.
        url: of the storage.
    """
    if (noted := noted_in(folder)) is None:
        return []
    study = with_curves(storage.study(noted["name"], url))
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
        for name in NAMES:
            getattr(plots, f"plot_{name}")(study)
            made.append(folder / f"{name}.png")
            pyplot.gcf().savefig(made[-1], dpi=120, bbox_inches="tight")
            pyplot.close("all")
    return made


def with_curves(study: optuna.Study) -> optuna.Study:
    """A copy in memory, where trials have their epochs in the place that Optuna's plots look at."""
    copied = optuna.create_study(study_name=study.study_name, direction="maximize")
    for trial in study.get_trials():
        for epoch, value in trial.user_attrs.get(CURVE, {}).items():
            trial.intermediate_values.setdefault(int(epoch), value)
        copied.add_trial(trial)
    return copied
