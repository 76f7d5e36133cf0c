"""Parts of one's own, an example of each: README.md beside this file says how they are used."""

import hashlib
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from caltech.data.augment import center_crop
from caltech.data.dataset import Collection, Dataset
from caltech.data.sources import Reading, assemble, parts_of
from caltech.data.split import Split
from caltech.models.classifier import Classifier, cut


class Poly(nn.Module):
    """A loss (Leng et al., ICLR 2022): cross-entropy, and a multiple of what a label lacks to 1."""

    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Of logits (n, classes) and labels (n,): their mean."""
        known = logits.log_softmax(1).gather(1, labels[:, None])
        return (self.epsilon * (1 - known.exp()) - known).mean()


def small_network(num_classes: int, channels: int, load: bool = True, size: int | None = None):
    """A model: features (n, channels) and the head that takes them, with the images' mean and std.

    `load` is False where a finished run's weights follow; `size` is the images' side.
    """
    features = [nn.Conv2d(3, channels, 5, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    half = (0.5, 0.5, 0.5)
    head = nn.Linear(channels, num_classes)
    model: Classifier = cut(nn.Sequential(*features), head, half, half, weights="none")
    model.from_scratch = partial(small_network, num_classes, channels)
    return model


class SignDescent(Optimizer):
    """An optimizer: a step of the same size for each weight."""

    def __init__(self, params, lr: float) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    weight -= group["lr"] * weight.grad.sign()


def halving(optimizer: Optimizer, every: int) -> LambdaLR:
    """A schedule, stepped once an epoch."""
    return LambdaLR(optimizer, lambda epoch: 0.5 ** (epoch // every))


def stripes(resize: int, crop: int, images: int, split: Split) -> Dataset:
    """A data set: stripes that run down, and stripes that run across."""
    random = np.random.default_rng(0)
    labels = np.arange(images) % 2
    lines = np.repeat(random.integers(0, 256, (images, 1, resize), np.uint8), resize, axis=1)
    lines[labels == 1] = lines[labels == 1].transpose(0, 2, 1)
    names = [f"{label}/{number}" for number, label in enumerate(labels)]
    found = Collection("stripes", names, labels.tolist(), ("down", "across"))
    pixels = torch.from_numpy(lines)[..., None].expand(-1, -1, -1, 3).contiguous()
    parts, reading = parts_of(found, split), Reading(resize, crop)
    content = hashlib.sha256(lines.tobytes() + labels.tobytes()).hexdigest()  # other data, another
    return assemble("stripes", found, parts, lambda: pixels, reading, content)


class Darker:
    """An augmentation of a batch: pixels (N, S, S, 3) and indices (n,) to (n, 3, size, size)."""

    test = ("plain",)  # the views whose logits are averaged at the test

    def __init__(self, least: float) -> None:
        self.least = least

    def __call__(self, pixels: Tensor, indices: Tensor, size: int) -> Tensor:
        images = center_crop(pixels, indices, size)
        light = torch.empty(len(images), 1, 1, 1).uniform_(self.least, 1).to(images.device)
        return (images * light).to(torch.uint8)
