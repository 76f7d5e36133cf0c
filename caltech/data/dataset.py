"""A data set as the rest of the package sees it: images, labels, and three index sets."""

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Dataset:
    """Decoded images, their labels, and the three index sets into both."""

    name: str
    read_pixels: Callable[[], Tensor]  # called at most once: reading verifies every byte
    side: int  # S, in pixels
    labels: Tensor  # (N,) int64
    classes: tuple[str, ...]
    files: tuple[str, ...]  # (N,) names, unique
    train: Tensor  # indices, int64
    validation: Tensor
    test: Tensor
    crop: int  # side of the images that a model sees, at most S
    content: str  # SHA-256 of every image's name and bytes, in order

    @functools.cached_property
    def pixels(self) -> Tensor:
        """(N, S, S, 3) uint8, possibly memory-mapped; a run on cached features never reads it."""
        return self.read_pixels()

    @property
    def digest(self) -> str:
        """SHA-256 of the images and of the split: what a result depends on."""
        sha = hashlib.sha256(self.content.encode())
        for indices in (self.train, self.validation, self.test):
            sha.update(len(indices).to_bytes(8, "little") + indices.numpy().tobytes())
        return sha.hexdigest()

    @property
    def majority_accuracy(self) -> float:
        """Test accuracy of always answering the class most frequent in training."""
        majority = self.labels[self.train].bincount().argmax()
        return (self.labels[self.test] == majority).double().mean().item()

    def describe(self) -> dict[str, Any]:
        """What a report must know to name classes and to compute intervals; plain values."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        return {
            "name": self.name,
            "sha256": self.digest,
            "images": {name: len(indices) for name, indices in parts.items()},
            "majority_accuracy": self.majority_accuracy,
            "classes": list(self.classes),
        }
