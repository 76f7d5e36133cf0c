"""Where batches come from: crops of the pixels, or what a frozen part has made of them."""

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor

from caltech.data.augment import VIEWS, Views, center_crop, sent
from caltech.data.dataset import Dataset


class Inputs(Protocol):
    """What the loop asks of either."""

    def training(self, indices: Tensor) -> Tensor: ...

    def evaluation(self, indices: Tensor) -> list[Tensor]: ...


class Images:
    """What a network is fed with: crops of the pixels, augmented in training."""

    def __init__(self, data: Dataset, augment: Callable, device: torch.device) -> None:
        self.pixels = pixels_on(device, data)
        self.crop = data.crop
        self.augment = augment

    def training(self, indices: Tensor) -> Tensor:
        """Augmented crops (n, 3, crop, crop) uint8 of the images at `indices` (n,)."""
        return self.augment(self.pixels, indices, self.crop)

    def evaluation(self, indices: Tensor) -> list[Tensor]:
        """Their centre crops, once for each view whose logits are averaged."""
        images = center_crop(self.pixels, indices, self.crop)
        return [VIEWS[name](images) for name in self.augment.test]


class Features:
    """What a trained part is fed with when the stages before it are frozen and cached."""

    def __init__(self, views: Mapping[str, Tensor], augment: Views, device: torch.device) -> None:
        self.views = {name: values.to(device) for name, values in views.items()}  # each (N, ...)
        self.augment = augment

    def training(self, indices: Tensor) -> Tensor:
        """Features of the views drawn for the images at `indices` (n,), as augment.Views draws."""
        drawn = sent(self.augment.draw(len(indices)), indices.device)
        first, *others = self.augment.train
        features = self.views[first].index_select(0, indices)
        for number, name in enumerate(others, start=1):
            is_drawn = (drawn == number).view(-1, *[1] * (features.ndim - 1))
            features = torch.where(is_drawn, self.views[name].index_select(0, indices), features)
        return features

    def evaluation(self, indices: Tensor) -> list[Tensor]:
        """Their features in each view whose logits are averaged."""
        return [self.views[name].index_select(0, indices) for name in self.augment.test]


# Of a process's last job. The next has most often the same, and need not verify and send them.
_pixels: dict[tuple, Tensor] = {}


def pixels_on(device: torch.device, data: Dataset) -> Tensor:
    """All images (N, S, S, 3) uint8 on the device, once for all jobs of a process that share them.

    Those of another data set are let go before.
    """
    identity = (data.content, data.side, data.name, device)
    if identity not in _pixels:
        _pixels.clear()
        _pixels[identity] = data.pixels.to(device)
    return _pixels[identity]
