"""Where batches come from: crops of the pixels, or what a frozen part has made of them."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from caltech.data.augment import VIEWS, center_crop
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
