"""One epoch of training, one pass of evaluation: sums over images, never means of batch means."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from caltech.errors import DivergedError
from caltech.precision import Precision


class Inputs(Protocol):
    """Where batches come from: data.Images, or features.Features of a frozen part."""

    def training(self, indices: Tensor) -> Tensor: ...

    def evaluation(self, indices: Tensor) -> Tensor: ...


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


def train_epoch(
    network: nn.Module,
    inputs: Inputs,
    labels: Tensor,
    order: Tensor,
    batch_size: int,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    precision: Precision,
    epoch: int,
) -> Mapping[str, float]:
    """Train on the images at `order` (n,), `batch_size` at a time, the rest of them as a last batch.

    Args:
        labels: of all images, on the network's device.
        epoch: counted from 1, for messages.

    Raises:
        DivergedError: the loss is not a finite number; names epoch and step.
    """
    network.train()
    start = time.perf_counter()
    loss_sum = loss = correct = seen = 0.0
    with _bar(len(order), f"epoch {epoch}") as bar:
        for step, indices in enumerate(order.split(batch_size), start=1):
            batch, targets = inputs.training(indices), labels[indices]
            with precision.autocast(labels.device):
                logits = network(batch)
                batch_loss = F.cross_entropy(logits, targets)
            loss = batch_loss.item()
            if not math.isfinite(loss):
                rates = sorted({group["lr"] for group in optimizer.param_groups})
                raise DivergedError(
                    f"The training loss is {loss} at epoch {epoch}, step {step}, with the learning "
                    f"rate at {rates[-1]:g}. Try a smaller one, for example lr={rates[-1] / 10:g}."
                )
            optimizer.zero_grad()
            scaler.scale(batch_loss).backward()
            scaler.step(optimizer)
            scaler.update()
            loss_sum += loss * len(indices)
            correct += (logits.argmax(1) == targets).sum().item()
            seen += len(indices)
            bar.set_postfix(loss=f"{loss:.3f}", accuracy=f"{correct / seen:.3f}", refresh=False)
            bar.update(len(indices))
    return {
        "train/loss": loss_sum / len(order),
        "train/accuracy": correct / len(order),
        "train/loss_last_step": loss,
        "images_per_second": len(order) / (time.perf_counter() - start),
    }


@torch.inference_mode()
def evaluate(
    network: nn.Module,
    inputs: Inputs,
    labels: Tensor,
    indices: Tensor,
    batch_size: int,
    precision: Precision,
    name: str,
) -> Evaluation:
    """Loss and answers on the images at `indices` (n,), in that order."""
    network.eval()
    loss_sum = 0.0
    confidences, predictions = [], []
    with _bar(len(indices), name) as bar:
        for part in indices.split(batch_size):
            with precision.autocast(labels.device):
                logits = network(inputs.evaluation(part)).float()
            loss_sum += F.cross_entropy(logits, labels[part], reduction="sum").item()
            confidence, prediction = logits.softmax(1).max(1)
            confidences.append(confidence.cpu())
            predictions.append(prediction.cpu())
            bar.update(len(part))
    return Evaluation(
        loss=loss_sum / len(indices),
        labels=labels.cpu()[indices],
        predictions=torch.cat(predictions),
        confidences=torch.cat(confidences),
    )


def _bar(total: int, description: str) -> tqdm:
    """Images and images per second, on a terminal only; a finished bar makes room for the next."""
    return tqdm(total=total, desc=description, unit="image", disable=None, leave=False)
