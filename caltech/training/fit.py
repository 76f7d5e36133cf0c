"""The epochs of a run: from where it stopped to where it ends, with a checkpoint after each."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from caltech.config import build
from caltech.data.augmentation.mix import Unmixed
from caltech.data.dataset import Dataset
from caltech.errors import CaltechError, DiskError
from caltech.files import write_sealed_json
from caltech.models.classifier import Classifier
from caltech.runs import checkpoint, provenance
from caltech.runs.directory import RunDirectory
from caltech.runs.progress import Inside, Progress, Tally, Totals
from caltech.training import signals
from caltech.training.device import compiled, step_as_built
from caltech.training.epoch import UNMIXED, Batches, Learner, evaluate, train_epoch
from caltech.training.optimizers import optimizer_of
from caltech.training.schedule import first_difference, require_steps

log = logging.getLogger(__name__)

HISTORY_SECONDS = 5.0  # history.json may be that much behind the checkpoint while a run trains


class Observer:
    """Who is told how a training goes on, and may end it; this one does neither.

    A sweep's trial and a test extend it. tracking.tracker.Watch has the same methods; tracking and
    training do not import each other.
    """

    prunes = False  # whether it may end a run

    def step(self, tally: Tally) -> None:
        """After every step, before anything is kept of it; to read its totals waits for a GPU."""

    def epoch(self, history: Sequence[Mapping[str, float]]) -> bool:
        """Before every epoch and at the end, with the epochs so far; True ends the training."""
        return False


NOBODY = Observer()


def learner_of(
    cfg: DictConfig,
    network: nn.Module,
    trainable: Classifier,
    depths: Callable[[], Mapping[str, int]],
    device: torch.device,
    mix: Unmixed = UNMIXED,
) -> Learner:
    """What learns: optimizer, schedule, average and precision on the stages that are not frozen."""
    optimizer = optimizer_of(cfg.optimizer, trainable, depths, device)
    optimizer.register_load_state_dict_pre_hook(step_as_built)
    require_steps(partial(build, cfg.schedule), cfg.num_epochs)
    precision = build(cfg.precision)
    precision.prepare(device)
    return Learner(
        network=compiled(network, device) if cfg.compile else network,
        trainable=trainable,
        loss=build(cfg.loss),
        optimizer=optimizer,
        schedule=build(cfg.schedule, optimizer),
        average=build(cfg.average, trainable),
        scaler=precision.scaler(device),
        precision=precision,
        clip_norm=cfg.clip_norm,
        mix=mix,
    )


def rates_differ(
    cfg: DictConfig, learner: Learner, shorter: DictConfig, epochs: int
) -> tuple[int, float, float] | None:
    """Where a run would have other rates if it went on after the epochs of a shorter one."""
    schedules = (partial(build, each.schedule) for each in (shorter, cfg))
    return first_difference(*schedules, learner.optimizer.param_groups, epochs, cfg.num_epochs)


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
    with _told_how_far(directory, progress):
        while not progress.is_over(cfg.num_epochs, cfg.patience):
            if tell(observers, history):  # before an epoch, so that a resumed run asks again
                return progress
            epoch = len(history) + 1
            start = time.perf_counter()
            # The rate is the first group's, the head's, where groups have rates of their own.
            metrics = {"epoch": epoch, "lr": learner.schedule.get_last_lr()[0]}
            with signals.deferred() as noted:
                keep = keeper(cfg, directory, learner, progress, noted)
                order, totals = begin_epoch(data.train, cfg.seed, epoch, progress.inside)
                after_step = [*(observer.step for observer in observers), keep]
                metrics |= train_epoch(learner, batches, order, epoch, totals, after_step)
                learner.average.end_epoch()
                # A signal waits for the validation, too: a trained epoch is worth the seconds.
                with learner.average.applied():
                    validated = evaluate(learner, batches, data.validation, "validation")
                    metrics |= validated.measures("val")
                    highest = max((each["val/accuracy"] for each in history), default=-1)
                    if metrics["val/accuracy"] > highest:
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


@contextmanager
def _told_how_far(directory: RunDirectory, progress: Progress) -> Iterator[None]:
    """Whatever ends a training: `caltech runs` and reports read in its history how far it came."""
    try:
        yield
    except BaseException:
        with suppress(CaltechError, OSError):
            directory.require_held()
            write_sealed_json(directory.history, progress.told)
        raise


def tell(observers: Iterable[Observer], history: Sequence[Mapping[str, float]]) -> bool:
    """All of them; whether one ends the training."""
    answers = [observer.epoch(history) for observer in observers]
    return any(answers)


def restore(key: str, directory: RunDirectory, learner: Learner) -> Progress:
    """Go on from the run's last good checkpoint, or begin."""
    kept = checkpoint.load(directory.checkpoint, key, learner.parts)
    origin = provenance.origin(provenance.read(directory))
    if kept is None:
        return Progress(started=_now(), origin=origin)
    progress = Progress.of(kept)
    progress.origin = origin
    log.info("resuming %s after epoch %d", directory, len(progress.history))
    return progress


def commit(key: str, directory: RunDirectory, learner: Learner, progress: Progress) -> None:
    """Write a checkpoint, from which restore goes on bitwise as if nothing had happened.

    Raises:
        HeldError: another process goes on with the run; nothing is written.
    """
    directory.require_held()
    try:
        checkpoint.save(directory.checkpoint, key, learner.parts, progress.plain())
    except DiskError:
        directory.require_held()  # another one removes temporary files where no locks reach it
        raise
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
    set_generator_states(inside.generators)
    return order, inside.totals


def epoch_seed(seed: int, epoch: int) -> int:
    """All randomness of an epoch is a function of the run's seed and the epoch's number.

    So between epochs a run needs no generator's state to go on exactly as it would have.
    """
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0])


def generator_states() -> dict[str, Any]:
    """States of torch's global generators, on the CPU and on the GPU that this process uses."""
    uses_gpu = torch.cuda.is_initialized()
    return {"cpu": torch.get_rng_state(), "cuda": [torch.cuda.get_rng_state()] if uses_gpu else []}


def set_generator_states(states: Mapping[str, Any]) -> None:
    """Go on with what generator_states gave, be it on another GPU of this machine."""
    torch.set_rng_state(states["cpu"])
    if states["cuda"] and torch.cuda.is_initialized():
        torch.cuda.set_rng_state(states["cuda"][0])


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
            inside = Inside(tally.totals(), generator_states())
            seconds = progress.seconds + now - start
            commit(cfg.key, directory, learner, replace(progress, inside=inside, seconds=seconds))
            saved = now
        noted.deliver()

    return keep


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
