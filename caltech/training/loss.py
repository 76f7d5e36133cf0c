"""Losses to train with. Validation and test use plain cross-entropy, so that runs compare."""

from typing import Any

import torch
from torch import Tensor, nn

from caltech.errors import InputError


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


def weight_of(loss: Any, labels: Tensor) -> Tensor | int:
    """What a part of a batch counts in the batch's mean loss.

    torch's losses with a weight for each class divide by the weights of the labels (n,) and not by
    their number; by soft labels (n, classes), and all others, by the number of images.
    """
    weight = getattr(loss, "weight", None)
    if weight is None or labels.is_floating_point():
        return len(labels)
    return weight[labels].sum()


def require_parts(loss: Any, target: str, num_classes: int) -> None:
    """Raise InputError unless a batch's loss is the mean of its parts', each by its weight.

    Asked of any loss that a micro_batch is used with, by two parts of five images.
    """
    where = getattr(getattr(loss, "weight", None), "device", "cpu")
    logits = torch.linspace(-1, 1, 5 * num_classes, device=where).sin().view(5, num_classes)
    labels = torch.arange(5, device=where) % num_classes
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        parts = zip(logits.split(3), labels.split(3), strict=True)
        shares = [loss(a, b) * (weight_of(loss, b) / weight_of(loss, labels)) for a, b in parts]
        whole = loss(logits, labels)
    if not torch.isclose(sum(shares), whole, rtol=1e-3):
        raise InputError(
            f"micro_batch= is not possible with {target}: its loss of a batch is not the mean of "
            "the images' losses, so parts do not add up to it. Type micro_batch=null, or give the "
            "loss the attribute weight (classes,) if it is a mean weighted by the labels' classes."
        )
