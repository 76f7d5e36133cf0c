"""One epoch of training, one pass of evaluation: sums over images, never means of batch means."""

import math
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial, reduce
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim.lr_scheduler import LRScheduler
from tqdm import tqdm

from caltech.calibration import Scores
from caltech.data.augment import sent
from caltech.data.augmentation.mix import Unmixed, classes_of
from caltech.errors import DivergedError
from caltech.files import replacing
from caltech.models.classifier import Classifier
from caltech.runs.progress import Tally, Totals
from caltech.training.average import Last
from caltech.training.device import explaining_determinism, received
from caltech.training.features import Inputs
from caltech.training.loss import weight_of
from caltech.training.memory import within_memory
from caltech.training.precision import Precision

FROM_ITS_START = Totals()
UNMIXED = Unmixed(0)


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
    loss: nn.Module  # of logits and targets, to train with
    optimizer: torch.optim.Optimizer
    schedule: LRScheduler
    average: Last  # or one that takes its place
    scaler: torch.amp.GradScaler
    precision: Precision
    clip_norm: float | None = None  # of all gradients together; None leaves them as they are
    mix: Unmixed = UNMIXED  # or one that takes its place

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
    part: int | None = None  # of these, so many are computed at a time; None is all


def train_epoch(
    learner: Learner,
    batches: Batches,
    order: Tensor,
    epoch: int,
    totals: Totals = FROM_ITS_START,
    after_step: Iterable[Callable[[Tally], None]] = (),
) -> dict[str, float]:
    """Train on the images at `order` (n,) a batch at a time; the last batch may be smaller.

    The accuracy of mixed images is how often the answer is the label of the larger share.

    Args:
        epoch: counted from 1, for messages.
        totals: of the steps of this epoch that were made before, which are passed over.
        after_step: each is called with the tally after every step.

    Raises:
        DivergedError: the loss is not a finite number; names epoch and step. On a GPU it is found
            out some steps later, always before anything is kept.
        OutOfMemoryError: a step does not fit into memory; names a micro_batch with which it does.
    """
    learner.network.train()
    start, made_before = time.perf_counter(), totals.images
    tally = Tally(totals, partial(_diverged, learner.optimizer, epoch))
    order, forget = sent(order, batches.labels.device), partial(_forget, learner)
    with _bar(len(order), f"epoch {epoch}", made_before) as bar, explaining_determinism():
        for first in range(made_before, len(order), batches.size):
            indices = order[first : first + batches.size]
            at_a_time = min(batches.part or batches.size, len(indices))
            called = partial(step, learner, batches, indices)
            tally.add(*within_memory(called, at_a_time, f"epoch {epoch}", forget), len(indices))
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


def step(
    learner: Learner, batches: Batches, indices: Tensor, at_a_time: int
) -> tuple[Tensor, Tensor]:
    """One step on the images at `indices` (n,): its mean loss and its hits, both () on the device.

    A batch is drawn as a whole and computed in parts, whose gradients are summed: up to rounding
    those of the whole, unless a layer depends on what else is computed with an image (BatchNorm)
    or draws by itself (dropout). Nothing is read from the device.

    Raises:
        RuntimeError, MemoryError: it does not fit into memory.
    """
    learner.optimizer.zero_grad()
    batch, targets = learner.mix(batches.inputs.training(indices), batches.labels[indices])
    whole, losses, hits = weight_of(learner.loss, targets), [], []
    for part, expected in zip(batch.split(at_a_time), targets.split(at_a_time), strict=True):
        with learner.precision.autocast(targets.device):
            logits = learner.network(part)
            loss = learner.loss(logits, expected) * (weight_of(learner.loss, expected) / whole)
        learner.scaler.scale(loss).backward()
        losses.append(loss.detach())
        hits.append((logits.argmax(1) == classes_of(expected)).sum(dtype=torch.float32))
    if learner.clip_norm is not None:
        learner.scaler.unscale_(learner.optimizer)
        groups = learner.optimizer.param_groups
        clip_grad_norm_([each for group in groups for each in group["params"]], learner.clip_norm)
    learner.scaler.step(learner.optimizer)
    learner.scaler.update()
    learner.average.update()
    return reduce(torch.add, losses), reduce(torch.add, hits)


@torch.inference_mode()
def evaluate(
    learner: Learner, batches: Batches, indices: Tensor, name: str, with_logits: bool = False
) -> Evaluation:
    """Loss and answers on the images at `indices` (n,), in that order.

    Logits are the average over the views that the inputs give of each image. They are not kept
    unless they are asked for: of many classes and images they take more than a GPU has.

    Raises:
        DivergedError: the loss is not a finite number.
        OutOfMemoryError: as train_epoch.
    """
    learner.network.eval()
    size = min(batches.part or batches.size, batches.size)  # as the key has it
    device = batches.labels.device
    indices = sent(indices, device)
    labels, losses, answers, given = batches.labels[indices], [], [], []
    with _bar(len(indices), name) as bar:
        for part, expected in zip(indices.split(size), labels.split(size), strict=True):
            views = within_memory(partial(_views, learner, batches, part), len(part), name)
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


def _forget(learner: Learner) -> None:
    """What a step that ended halfway left in optimizer and scaler: the run ends by its error."""
    learner.optimizer.zero_grad()
    learner.optimizer.state.clear()
    for name in ("grad_scale", "found_inf"):  # the scaler's, of a fused step
        vars(learner.optimizer).pop(name, None)
    with suppress(AssertionError):  # it has not scaled yet
        learner.scaler.update(learner.scaler.get_scale())


def _views(learner: Learner, batches: Batches, indices: Tensor, at_a_time: int) -> list[Tensor]:
    """Logits (n, classes) of the images at `indices` (n,) in each of their views."""
    with learner.precision.autocast(indices.device):
        return [
            torch.cat([learner.network(part) for part in view.split(at_a_time)])
            for view in batches.inputs.evaluation(indices)
        ]


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
