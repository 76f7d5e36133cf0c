"""Where batches come from: crops of the pixels, or what a frozen part has made of them."""

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor

from caltech.data.augment import VIEWS, Views, center_crop
from caltech.data.dataset import Dataset


class Inputs(Protocol):
    """What the loop asks of either."""

    def training(self, indices: Tensor) -> Tensor: ...

    def evaluation(self, indices: Tensor) -> list[Tensor]: ...


class Images:
    """What a network is fed with: crops of the pixels, augmented in training."""

    def __init__(self, data: Dataset, augment: Callable, device: torch.device) -> None:
        self.pixels = data.pixels.to(device)
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
        drawn = self.augment.draw(len(indices))
        first, *others = self.augment.train
        features = self.views[first][indices]
        for number, name in enumerate(others, start=1):
            features[drawn == number] = self.views[name][indices[drawn == number]]
        return features

    def evaluation(self, indices: Tensor) -> list[Tensor]:
        """Their features in each view whose logits are averaged."""
        return [self.views[name][indices] for name in self.augment.test]
