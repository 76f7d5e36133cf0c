"""The names of all numbers, in MLflow and in tables, and the one place where they are renamed."""

from collections.abc import Mapping

import numpy as np

# Numbers of an epoch that a report shows, and all that the tracker is told.
EPOCH_METRICS = (
    "train/loss",
    "train/loss_last_step",
    "train/accuracy",
    "val/loss",
    "val/accuracy",
    "lr",
)
METRICS = (*EPOCH_METRICS, "images_per_second")
# A run has collapsed if this share of its answers is one class, though the labels are not.
COLLAPSED_SHARE = 0.95


def final(last: Mapping[str, float], best: Mapping[str, float]) -> dict[str, float]:
    """A finished run's numbers in MLflow: the last weights' test metrics as in the tables, the best
    weights' as test/best_accuracy.

    MLflow groups its charts by what stands before the slash and sorts the groups by name.
    """
    tested = {name: value for name, value in last.items() if name.startswith("test/")}
    of_best = {name: best[name] for name in (*tested, "val/loss", "val/accuracy")}
    renamed = {name.replace("/", "/best_"): value for name, value in of_best.items()}
    return tested | renamed | {"val/best_epoch": best["epoch"]}


def collapsed(labels: np.ndarray, answers: np.ndarray) -> int | None:
    """The class that (almost) all answers (n,) are, if the labels (n,) are not; else None."""
    top = int(np.bincount(answers).argmax())
    is_top = float((answers == top).mean())
    return top if is_top >= COLLAPSED_SHARE > float((labels == top).mean()) else None
