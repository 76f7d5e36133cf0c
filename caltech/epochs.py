"""The epochs of a run: from where it stopped to where it ends, with a checkpoint after each."""

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from caltech import checkpoint, interruption, run
from caltech.data import Dataset
from caltech.loop import Setup, Totals, epoch_seed, evaluate, train_epoch
from caltech.model import Classifier
from caltech.search import NoTrial, Trial

log = logging.getLogger(__name__)


def fit(
    cfg: DictConfig,
    setup: Setup,
    data: Dataset,
    trained: Classifier,
    schedule: Any,
    tracker: Any,
    trial: Trial | NoTrial,
) -> dict[str, Any]:
    """Train the epochs that are left, with a checkpoint after each; return the run's progress.

    A checkpoint holds what training changes; what is frozen comes from the weights again.
    A pruned run's history is shorter than the epochs that were asked for.
    """
    path = Path(cfg.directory) / run.CHECKPOINT
    parts = {"trained": trained, "schedule": schedule}
    parts |= {"optimizer": setup.optimizer, "scaler": setup.scaler, "average": setup.average}
    progress = {"history": [], "best_epoch": 0, "best_state": {}, "seconds": 0.0, "inside": None}
    if (kept := checkpoint.load(path, parts)) is not None:
        progress = kept
        log.info("resuming %s after epoch %d", cfg.directory, len(progress["history"]))
    history = progress["history"]
    for epoch in range(len(history) + 1, cfg.num_epochs + 1):
        if trial.report(history):  # before an epoch, so that a resumed run asks again
            break
        start = time.perf_counter()
        metrics = {"epoch": epoch, "lr": schedule.get_last_lr()[0]}
        with interruption.deferred() as interrupted:
            keep = checkpoint.keeper(
                path, parts, progress, 60 * cfg.checkpoint_minutes, interrupted
            )
            metrics |= fit_epoch(setup, data.train, cfg.seed, epoch, progress["inside"], keep)
            # A signal waits for the validation, too: a trained epoch is worth more than seconds.
            with setup.average.applied():
                metrics |= evaluate(setup, data.validation, "validation").measures("val")
                if metrics["val/accuracy"] > max((e["val/accuracy"] for e in history), default=-1):
                    progress |= {"best_epoch": epoch, "best_state": checkpoint.copy_of(trained)}
            schedule.step()
            history.append(metrics)
            seconds = progress["seconds"] + time.perf_counter() - start
            progress |= {"seconds": seconds, "inside": None}
            checkpoint.save(path, parts, progress)
            run.log_epoch(metrics, cfg.num_epochs)
        tracker.log_epochs(history)
    trial.report(history)
    tracker.log_epochs(history)
    return progress


def fit_epoch(
    setup: Setup,
    indices: Tensor,
    seed: int,
    epoch: int,
    inside: Mapping[str, Any] | None,
    keep: Callable[[Totals], None],
) -> dict[str, float]:
    """Train one epoch in its own random order, or what is left of it after a checkpoint inside."""
    torch.manual_seed(epoch_seed(seed, epoch))
    order = indices[torch.randperm(len(indices))]
    totals = Totals()
    if inside is not None:
        totals = Totals(**inside["totals"])
        checkpoint.set_generator_states(inside["generators"])
    return train_epoch(setup, order, epoch, totals, keep)
