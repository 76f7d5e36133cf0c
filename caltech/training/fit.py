"""The epochs of a run, from where it stopped, with a checkpoint after each; then its test."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from omegaconf import DictConfig
from torch import Tensor

from caltech.calibration import Scores
from caltech.data.dataset import Dataset
from caltech.files import write_sealed_json
from caltech.models.classifier import Classifier
from caltech.models.freeze import frozen_names
from caltech.runs import checkpoint, logits, manifest
from caltech.runs.directory import WEIGHTS, RunDirectory
from caltech.runs.progress import Inside, Progress, Totals
from caltech.training import signals
from caltech.training.epoch import (
    Batches,
    Evaluation,
    Learner,
    Tally,
    epoch_seed,
    evaluate,
    train_epoch,
)

log = logging.getLogger(__name__)

HISTORY_SECONDS = 5.0  # history.json may be that much behind the checkpoint while a run trains


class Observer:
    """Who is told how a training goes on, and may end it; this one does neither.

    A sweep's trial and a test extend it. A tracker, on the floor beside, has the same methods.
    """

    prunes = False  # whether it may end a run

    def step(self, tally: Tally) -> None:
        """After every step, before anything is kept of it; to read its totals waits for a GPU."""

    def epoch(self, history: Sequence[Mapping[str, float]]) -> bool:
        """Before every epoch and at the end, with the epochs so far; True ends the training."""
        return False


NOBODY = Observer()


def fit(
    cfg: DictConfig,
    learner: Learner,
    batches: Batches,
    data: Dataset,
    directory: RunDirectory,
    observers: Sequence[Observer],
) -> Progress:
    """Train the epochs that are left, with a checkpoint after each; return the run's progress."""
    progress = restore(cfg.key, directory, learner)
    history = progress.history
    for epoch in range(len(history) + 1, cfg.num_epochs + 1):
        if tell(observers, history):  # before an epoch, so that a resumed run asks again
            return progress
        start = time.perf_counter()
        metrics = {"epoch": epoch, "lr": learner.schedule.get_last_lr()[0]}
        with signals.deferred() as noted:
            keep = keeper(cfg, directory, learner, progress, noted)
            order, totals = begin_epoch(data.train, cfg.seed, epoch, progress.inside)
            after_step = [*(observer.step for observer in observers), keep]
            metrics |= train_epoch(learner, batches, order, epoch, totals, after_step)
            # A signal waits for the validation, too: a trained epoch is worth more than seconds.
            with learner.average.applied():
                validated = evaluate(learner, batches, data.validation, "validation")
                metrics |= validated.measures("val")
                if metrics["val/accuracy"] > max((e["val/accuracy"] for e in history), default=-1):
                    progress.best_epoch = epoch
                    progress.best_state = checkpoint.copy_of(learner.trainable)
            learner.schedule.step()
            history.append(metrics)
            progress.seconds += time.perf_counter() - start
            metrics["ended"] = _now()
            progress.inside = None
            commit(cfg.key, directory, learner, progress)
            log_epoch(metrics, cfg.num_epochs)
    tell(observers, history)
    return progress


def tell(observers: Iterable[Observer], history: Sequence[Mapping[str, float]]) -> bool:
    """All of them; whether one ends the training."""
    answers = [observer.epoch(history) for observer in observers]
    return any(answers)


def restore(key: str, directory: RunDirectory, learner: Learner) -> Progress:
    """Go on from the run's last good checkpoint, or begin."""
    kept = checkpoint.load(directory.checkpoint, key, learner.parts)
    if kept is None:
        return Progress(started=_now())
    progress = Progress.of(kept)
    log.info("resuming %s after epoch %d", directory, len(progress.history))
    return progress


def commit(key: str, directory: RunDirectory, learner: Learner, progress: Progress) -> None:
    """Write a checkpoint, from which restore goes on bitwise as if nothing had happened.

    Raises:
        HeldError: another process goes on with the run; nothing is written.
    """
    directory.require_held()
    checkpoint.save(directory.checkpoint, key, learner.parts, progress.plain())
    if not _is_fresh(directory.history):
        write_sealed_json(directory.history, progress.told)


def begin_epoch(
    indices: Tensor, seed: int, epoch: int, inside: Inside | None
) -> tuple[Tensor, Totals]:
    """An epoch's own random order (n,), and its totals so far: of a checkpoint inside it, or 0."""
    torch.manual_seed(epoch_seed(seed, epoch))
    order = indices[torch.randperm(len(indices))]
    if inside is None:
        return order, Totals()
    checkpoint.set_generator_states(inside.generators)
    return order, inside.totals


def keeper(
    cfg: DictConfig,
    directory: RunDirectory,
    learner: Learner,
    progress: Progress,
    noted: signals.Noted,
) -> Callable[[Tally], None]:
    """What to do after a step: commit if it is time or a signal came, then let the signal act."""
    start = saved = time.perf_counter()

    def keep(tally: Tally) -> None:
        nonlocal saved
        now = time.perf_counter()
        if noted or now - saved > 60 * cfg.checkpoint_minutes:
            inside = Inside(tally.totals(), checkpoint.generator_states())
            seconds = progress.seconds + now - start
            commit(cfg.key, directory, learner, replace(progress, inside=inside, seconds=seconds))
            saved = now
        noted.deliver()

    return keep


def test_once(
    learner: Learner,
    batches: Batches,
    data: Dataset,
    model: Classifier,
    progress: Progress,
    directory: RunDirectory,
    keeps_logits: Callable[[int], bool],
) -> dict[str, dict[str, float]]:
    """Test once with the last and once with the best epoch's weights, and keep both models.

    The study does not say which of the two it used; its tables are compared with the last.

    Args:
        keeps_logits: whether a run keeps them, by the bytes of the weights that it trained.
    """
    with learner.average.applied():
        states = {"last": checkpoint.copy_of(learner.trainable), "best": progress.best_state}
    epochs = {"last": len(progress.history), "best": progress.best_epoch}
    measured, told, tested, frozen = {}, {}, None, frozen_names(model)
    trained_bytes = sum(tensor.nbytes for tensor in states["last"].values())
    is_kept = keeps_logits(trained_bytes)
    for name, state in states.items():
        if epochs[name] != tested:  # the best epoch may be the last
            learner.trainable.load_state_dict(state)
            evaluation, parts = scored(learner, batches, data, name)
            tested, calibration = epochs[name], logits.calibrated(parts, data)
        directory.require_held()
        checkpoint.save_weights(directory.weights(name), model, frozen)
        evaluation.save(directory.predictions(name), data.test)
        if is_kept:
            logits.write(directory, name, parts)
        measured[name], told[name] = evaluation.measures("test"), calibration
    logits.write_calibration(directory, told)
    logits.write_images(directory, data)
    return measured


def scored(
    learner: Learner, batches: Batches, data: Dataset, name: str
) -> tuple[Evaluation, dict[str, Scores]]:
    """The test, and the logits of validation and test, by the weights that the learner has."""
    tested = evaluate(learner, batches, data.test, f"test ({name})", with_logits=True)
    part = f"validation ({name})"
    validated = evaluate(learner, batches, data.validation, part, with_logits=True)
    scores = {"test": tested.scores(data.test), "validation": validated.scores(data.validation)}
    return tested, scores


def add_logits(
    learner: Learner, batches: Batches, data: Dataset, model: Classifier, directory: RunDirectory
) -> None:
    """Compute what a finished run has not kept, by its weights; nothing is trained.

    Raises:
        InputError: the weights do not give the answers of the run's test here.
    """
    manifest.verify(directory, [directory.result, *map(directory.weights, WEIGHTS)])
    told = {}
    for name in WEIGHTS:
        checkpoint.load_weights(directory.weights(name), model)
        evaluation, parts = scored(learner, batches, data, name)
        logits.require_same(directory, name, evaluation.predictions.numpy())
        logits.write(directory, name, parts)
        told[name] = logits.calibrated(parts, data)
    logits.write_calibration(directory, told)
    logits.write_images(directory, data)
    manifest.renew(directory)


def _now() -> int:
    """Milliseconds since 1970."""
    return int(time.time() * 1000)


def _is_fresh(path: Path) -> bool:
    """Whether it was written in the last seconds."""
    return path.is_file() and abs(time.time() - path.stat().st_mtime) < HISTORY_SECONDS


def log_epoch(metrics: Mapping[str, float], num_epochs: int) -> None:
    """One line an epoch: mean loss and accuracy of both parts, in 80 columns."""
    log.info(
        "epoch %d/%d  lr %.2g  train %.4f %5.2f%%  val %.4f %5.2f%%  %.0f images/s",
        metrics["epoch"], num_epochs, metrics["lr"], metrics["train/loss"],
        100 * metrics["train/accuracy"], metrics["val/loss"], 100 * metrics["val/accuracy"],
        metrics["images_per_second"],
    )  # fmt: skip
