"""One epoch of training, one pass of evaluation: sums over images, never means of batch means."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from caltech.average import Average
from caltech.errors import DivergedError, InputError
from caltech.precision import Precision


class Inputs(Protocol):
    """Where batches come from: data.Images, or features.Features of a frozen part."""

    def training(self, indices: Tensor) -> Tensor: ...

    def evaluation(self, indices: Tensor) -> list[Tensor]: ...


@dataclass(frozen=True)
class Evaluation:
    """Of one split: mean loss, and for each image (n,) the answer and its probability."""

    loss: float
    labels: Tensor
    predictions: Tensor
    confidences: Tensor

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


@dataclass(frozen=True)
class Setup:
    """What training and evaluation work with, as long as a run lasts."""

    network: nn.Module  # the model, or its trained stages if the others' outputs are cached
    inputs: Inputs
    labels: Tensor  # of all images, on the network's device
    batch_size: int
    loss: nn.Module  # of logits and labels, to train with
    optimizer: torch.optim.Optimizer
    average: Average
    scaler: torch.amp.GradScaler
    precision: Precision


@dataclass(frozen=True)
class Totals:
    """What an epoch has added up so far: all that is needed, with the weights, to go on with it."""

    steps: int = 0
    images: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    last_loss: float = math.nan

    def plus(self, loss: float, correct: int, images: int) -> "Totals":
        """After one more step with this mean loss."""
        return Totals(
            self.steps + 1,
            self.images + images,
            self.loss_sum + loss * images,
            self.correct + correct,
            loss,
        )


def train_epoch(
    setup: Setup,
    order: Tensor,
    epoch: int,
    totals: Totals = Totals(),
    after_step: Callable[[Totals], None] = lambda totals: None,
) -> dict[str, float]:
    """Train on the images at `order` (n,) a batch at a time; the last batch may be smaller.

    Args:
        epoch: counted from 1, for messages.
        totals: of the steps of this epoch that were made before, which are passed over.
        after_step: called with the totals after every step.

    Raises:
        DivergedError: the loss is not a finite number; names epoch and step.
    """
    setup.network.train()
    start, made_before = time.perf_counter(), totals.images
    with _bar(len(order), f"epoch {epoch}", made_before) as bar:
        for first in range(made_before, len(order), setup.batch_size):
            indices = order[first : first + setup.batch_size]
            batch, labels = setup.inputs.training(indices), setup.labels[indices]
            with setup.precision.autocast(labels.device):
                logits = setup.network(batch)
                loss = setup.loss(logits, labels)
            totals = totals.plus(loss.item(), _correct(logits, labels), len(indices))
            if not math.isfinite(totals.last_loss):
                raise _diverged(totals, setup.optimizer, epoch)
            setup.optimizer.zero_grad()
            setup.scaler.scale(loss).backward()
            setup.scaler.step(setup.optimizer)
            setup.scaler.update()
            setup.average.update()
            after_step(totals)
            accuracy = totals.correct / totals.images
            bar.set_postfix_str(f"loss={totals.last_loss:.3f}, accuracy={accuracy:.3f}", False)
            bar.update(len(indices))
    return {
        "train/loss": totals.loss_sum / totals.images,
        "train/accuracy": totals.correct / totals.images,
        "train/loss_last_step": totals.last_loss,
        "images_per_second": (totals.images - made_before) / (time.perf_counter() - start),
    }


def cross_entropy(label_smoothing: float) -> nn.Module:
    """The training loss of logits (n, classes) and labels (n,), a mean over the n images.

    Source: Szegedy et al., CVPR 2016, for the share of every label that is spread over the classes.
    """
    if not 0 <= label_smoothing < 1:
        raise InputError(
            f"loss.label_smoothing={label_smoothing} is not allowed: it is a share of every "
            "label, at least 0 and below 1, for example loss.label_smoothing=0.1."
        )
    return nn.CrossEntropyLoss(label_smoothing=label_smoothing)


@torch.inference_mode()
def evaluate(setup: Setup, indices: Tensor, name: str) -> Evaluation:
    """Loss and answers on the images at `indices` (n,), in that order.

    Logits are the average over the views that the inputs give of each image.

    Raises:
        DivergedError: the loss is not a finite number.
    """
    setup.network.eval()
    loss_sum = 0.0
    confidences, predictions = [], []
    with _bar(len(indices), name) as bar:
        for part in indices.split(setup.batch_size):
            labels = setup.labels[part]
            with setup.precision.autocast(labels.device):
                views = [setup.network(view) for view in setup.inputs.evaluation(part)]
            logits = torch.stack(views).float().mean(0)
            loss_sum += F.cross_entropy(logits, labels, reduction="sum").item()
            confidence, prediction = logits.softmax(1).max(1)
            confidences.append(confidence.cpu())
            predictions.append(prediction.cpu())
            bar.update(len(part))
    if not math.isfinite(loss_sum):
        raise DivergedError(
            f"The loss on the {name} images is {loss_sum}: the weights are beyond finite numbers. "
            "Try a smaller learning rate, or precision=fp32."
        )
    return Evaluation(
        loss=loss_sum / len(indices),
        labels=setup.labels.cpu()[indices],
        predictions=torch.cat(predictions),
        confidences=torch.cat(confidences),
    )


def epoch_seed(seed: int, epoch: int) -> int:
    """All randomness of an epoch is a function of the run's seed and the epoch's number.

    So between epochs a run needs no generator's state to go on exactly as it would have.
    """
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0])


def _correct(logits: Tensor, labels: Tensor) -> int:
    return int((logits.argmax(1) == labels).sum().item())


def _diverged(totals: Totals, optimizer: torch.optim.Optimizer, epoch: int) -> DivergedError:
    rate = max(group["lr"] for group in optimizer.param_groups)
    return DivergedError(
        f"The training loss is {totals.last_loss} at epoch {epoch}, step {totals.steps}, with the "
        f"learning rate at {rate:g}. Try a smaller one, for example lr={rate / 10:g}."
    )


def _bar(total: int, description: str, initial: int = 0) -> tqdm:
    """Images and images per second, on a terminal only; a finished bar makes room for the next."""
    return tqdm(
        total=total, initial=initial, desc=description, unit="image", disable=None, leave=False
    )
