"""One epoch of training, one pass of evaluation: sums over images, never means of batch means."""

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from omegaconf import DictConfig
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler
from tqdm import tqdm

from caltech.calibration import Scores
from caltech.config import build
from caltech.data.augment import sent
from caltech.errors import DivergedError
from caltech.files import replacing
from caltech.models.classifier import Classifier
from caltech.runs.progress import Totals
from caltech.training.average import Last
from caltech.training.device import compiled, explaining_determinism, received, step_as_built
from caltech.training.features import Inputs
from caltech.training.optimizers import optimizer_of
from caltech.training.precision import Precision
from caltech.training.schedule import require_steps

FROM_ITS_START = Totals()
# Steps whose numbers may be unread. A CPU has them at once, and no diverged one is gone on from.
UNREAD, UNREAD_ELSEWHERE = {"cpu": 0}, 50


@dataclass(frozen=True)
class Evaluation:
    """Of one split: mean loss, and for each image (n,) the answer and its probability."""

    loss: float
    labels: Tensor
    predictions: Tensor
    confidences: Tensor
    logits: Tensor | None = None  # (n, classes) float32, if they were asked for

    @property
    def accuracy(self) -> float:
        """Top-1 accuracy: the share of images whose most probable class is their label."""
        return (self.predictions == self.labels).double().mean().item()

    @property
    def accuracy_per_class(self) -> float:
        """Mean over the classes present of their own accuracy (macro average)."""
        images = self.labels.bincount().double()
        correct = self.labels[self.predictions == self.labels].bincount(minlength=len(images))
        return (correct / images)[images > 0].mean().item()

    def measures(self, split: str) -> dict[str, float]:
        """Under their names in tables and MLflow; the macro average for the test part alone."""
        named = {f"{split}/loss": self.loss, f"{split}/accuracy": self.accuracy}
        if split == "test":
            named["test/accuracy_per_class"] = self.accuracy_per_class
        return named

    def save(self, path: Path, indices: Tensor) -> None:
        """For paired tests and calibration: index of the image, label, class, probability."""
        arrays = {"indices": indices, "labels": self.labels}
        arrays |= {"predictions": self.predictions, "confidences": self.confidences}
        with replacing(path) as partial, partial.open("wb") as file:
            np.savez_compressed(file, **{name: tensor.numpy() for name, tensor in arrays.items()})

    def scores(self, indices: Tensor) -> Scores:
        """The logits, with the images' indices and labels."""
        return Scores(indices.numpy(), self.labels.numpy(), self.logits.numpy())


@dataclass(frozen=True, kw_only=True)
class Learner:
    """What learns, and all that changes it."""

    network: nn.Module  # the model, or its trained stages if the others' outputs are cached
    trainable: Classifier  # its trained stages
    loss: nn.Module  # of logits and labels, to train with
    optimizer: torch.optim.Optimizer
    schedule: LRScheduler
    average: Last  # or one that takes its place
    scaler: torch.amp.GradScaler
    precision: Precision

    @property
    def parts(self) -> dict[str, Any]:
        """All that has a state of its own; what is frozen comes from the weights again."""
        parts = {"trained": self.trainable, "schedule": self.schedule, "optimizer": self.optimizer}
        return parts | {"scaler": self.scaler, "average": self.average}


@dataclass(frozen=True, kw_only=True)
class Batches:
    """What it learns from, `size` images at a time."""

    inputs: Inputs
    labels: Tensor  # of all images, on the network's device
    size: int


class Tally:
    """The totals of an epoch that goes on; its steps' numbers stay on the device until asked for.

    A GPU is told what to do faster than it does it, and whoever reads a number waits until it has
    done everything. They are added in Python, so they are the same bits however seldom read.

    Args:
        totals: of the steps that were made before.
        error: what to raise when the loss of a step is not finite, with the totals up to it.
    """

    def __init__(self, totals: Totals, error: Callable[[Totals], Exception]) -> None:
        self.known = totals  # without the steps that are unread
        self.steps, self.images = totals.steps, totals.images  # with them
        self._error = error
        self._unread: list[tuple[Tensor, Tensor, int]] = []

    def add(self, loss: Tensor, correct: Tensor, images: int) -> None:
        """One more step: its mean loss and its hits, both () on the device; raises as totals."""
        self.steps, self.images = self.steps + 1, self.images + images
        self._unread.append((loss.detach(), correct, images))
        if len(self._unread) > UNREAD.get(loss.device.type, UNREAD_ELSEWHERE):
            self.totals()

    def totals(self) -> Totals:
        """Of all steps so far; raises the error given for the first that is not finite."""
        unread, self._unread = self._unread, []
        if unread:
            losses, hits, images = zip(*unread, strict=True)
            numbers = torch.stack([*losses, *hits]).tolist()
            for step in zip(numbers, map(int, numbers[len(losses) :]), images, strict=False):
                self.known = self.known.plus(*step)
                if not math.isfinite(self.known.last_loss):
                    raise self._error(self.known)
        return self.known


def learner_of(
    cfg: DictConfig,
    network: nn.Module,
    trainable: Classifier,
    depths: Callable[[], Mapping[str, int]],
    device: torch.device,
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
    )


def train_epoch(
    learner: Learner,
    batches: Batches,
    order: Tensor,
    epoch: int,
    totals: Totals = FROM_ITS_START,
    after_step: Iterable[Callable[[Tally], None]] = (),
) -> dict[str, float]:
    """Train on the images at `order` (n,) a batch at a time; the last batch may be smaller.

    Args:
        epoch: counted from 1, for messages.
        totals: of the steps of this epoch that were made before, which are passed over.
        after_step: each is called with the tally after every step.

    Raises:
        DivergedError: the loss is not a finite number; names epoch and step. On a GPU it is found
            out some steps later, always before anything is kept.
    """
    learner.network.train()
    start, made_before = time.perf_counter(), totals.images
    tally = Tally(totals, partial(_diverged, learner.optimizer, epoch))
    order = sent(order, batches.labels.device)
    with _bar(len(order), f"epoch {epoch}", made_before) as bar, explaining_determinism():
        for first in range(made_before, len(order), batches.size):
            indices = order[first : first + batches.size]
            batch, labels = batches.inputs.training(indices), batches.labels[indices]
            with learner.precision.autocast(labels.device):
                logits = learner.network(batch)
                loss = learner.loss(logits, labels)
            tally.add(loss, (logits.argmax(1) == labels).sum(dtype=torch.float32), len(indices))
            learner.optimizer.zero_grad()
            learner.scaler.scale(loss).backward()
            learner.scaler.step(learner.optimizer)
            learner.scaler.update()
            learner.average.update()
            for call in after_step:
                call(tally)
            bar.set_postfix_str(_shown(tally.known), False)
            bar.update(len(indices))
        totals = tally.totals()
    return {
        "train/loss": totals.loss_sum / totals.images,
        "train/accuracy": totals.correct / totals.images,
        "train/loss_last_step": totals.last_loss,
        "images_per_second": (totals.images - made_before) / (time.perf_counter() - start),
    }


@torch.inference_mode()
def evaluate(
    learner: Learner, batches: Batches, indices: Tensor, name: str, with_logits: bool = False
) -> Evaluation:
    """Loss and answers on the images at `indices` (n,), in that order.

    Logits are the average over the views that the inputs give of each image. They are not kept
    unless they are asked for: of many classes and images they take more than a GPU has.

    Raises:
        DivergedError: the loss is not a finite number.
    """
    learner.network.eval()
    device = batches.labels.device
    indices = sent(indices, device)
    labels, losses, answers, given = batches.labels[indices], [], [], []
    with _bar(len(indices), name) as bar:
        for part, expected in zip(
            indices.split(batches.size), labels.split(batches.size), strict=True
        ):
            with learner.precision.autocast(device):
                views = [learner.network(view) for view in batches.inputs.evaluation(part)]
            logits = torch.stack(views).float().mean(0)
            losses.append(F.cross_entropy(logits, expected, reduction="sum"))
            answers.append(logits.softmax(1).max(1))
            given += [logits.cpu()] if with_logits else []
            bar.update(len(part))
    confidences, predictions = map(torch.cat, zip(*answers, strict=True))
    losses, *kept = received(torch.stack(losses), labels, predictions, confidences)
    loss_sum = 0.0
    for loss in losses.tolist():  # not sum(), which rounds otherwise from Python 3.12
        loss_sum += loss
    if not math.isfinite(loss_sum):
        raise DivergedError(
            f"The loss on the {name} images is {loss_sum}: the weights are beyond finite numbers. "
            "Try a smaller learning rate, or precision=fp32."
        )
    return Evaluation(loss_sum / len(indices), *kept, torch.cat(given) if given else None)


def epoch_seed(seed: int, epoch: int) -> int:
    """All randomness of an epoch is a function of the run's seed and the epoch's number.

    So between epochs a run needs no generator's state to go on exactly as it would have.
    """
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0])


def _diverged(optimizer: torch.optim.Optimizer, epoch: int, totals: Totals) -> DivergedError:
    rate = max(group["lr"] for group in optimizer.param_groups)
    return DivergedError(
        f"The training loss is {totals.last_loss} at epoch {epoch}, step {totals.steps}, with the "
        f"learning rate at {rate:g}. Try a smaller one, for example lr={rate / 10:g}."
    )


def _shown(totals: Totals) -> str:
    if totals.images == 0:
        return ""
    return f"loss={totals.last_loss:.3f}, accuracy={totals.correct / totals.images:.3f}"


def _bar(total: int, description: str, initial: int = 0) -> tqdm:
    """Images and images per second, on a terminal only; a finished bar makes room for the next."""
    return tqdm(
        total=total, initial=initial, desc=description, unit="image", disable=None, leave=False
    )
