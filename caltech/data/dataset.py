"""A data set as the rest of the package sees it: images, labels, and three index sets."""

import functools
import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, uint8

from caltech.amounts import counted
from caltech.errors import InputError

log = logging.getLogger(__name__)

_told: set[tuple] = set()  # of what is warned once

PARTS = ("train", "validation", "test")
SHORT = {"train": "train", "validation": "val", "test": "test"}  # as they are typed


@dataclass(frozen=True)
class Collection:
    """Which images there are, before they are split and decoded."""

    place: Path | str  # where they are, for messages
    files: Sequence[str]  # (N,) names, unique, in an order that does not change
    labels: Sequence[int]  # (N,) into classes
    classes: tuple[str, ...]
    given: Mapping[str, Sequence[int]] | None = None  # rows of the parts that they come in


@dataclass(frozen=True)
class Reading:
    """How images become pixels."""

    resize: int
    crop: int
    cache: Path = Path()
    cache_pixels: bool = True
    upright: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.crop <= self.resize:
            raise InputError(
                f"data.crop={self.crop} is not allowed with data.resize={self.resize}: the crop "
                "must be at least 1 and at most the resized side, for example data.resize=256 "
                "data.crop=224."
            )


@dataclass(frozen=True)
class Dataset:
    """Decoded images, their labels, and the three index sets into both."""

    name: str
    read_pixels: Callable[[], Any]  # called at most once: reading verifies every byte
    side: int  # S, in pixels
    labels: Tensor  # (N,) int64
    classes: tuple[str, ...]
    files: tuple[str, ...]  # (N,) names, unique
    train: Tensor  # indices, int64
    validation: Tensor
    test: Tensor
    crop: int  # side of the images that a model sees, at most S
    content: str  # SHA-256 of every image's name and bytes, in order
    # Decodes what is missing of the pixels' cache, once all else has been looked at.
    complete: Callable[[], Any] = lambda: None

    @functools.cached_property
    def pixels(self) -> Any:
        """(N, S, S, 3) uint8, a tensor, possibly memory-mapped, or pixels.Decoded.

        A run on cached features never reads it.

        Raises:
            InputError: they are something else.
        """
        pixels, shape = self.read_pixels(), (len(self.labels), self.side, self.side, 3)
        found = getattr(pixels, "dtype", uint8), tuple(getattr(pixels, "shape", ()))
        if found != (uint8, shape):
            told = f"{found[0]} {found[1]}" if found[1] else type(pixels).__name__
            raise InputError(
                f"The data set {self.name} gives pixels of {told}. They are to be a tensor of "
                f"torch.uint8, {shape}: images, sides, and red, green, blue from 0 to 255."
            )
        return pixels

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


def parts_of(images: Collection, split: Any) -> Mapping[str, Tensor]:
    """Which images are for what: rows of each of PARTS.

    Args:
        split: of conf/split/, a class of split.py.

    Raises:
        InputError: a part is empty, there is one class, or the images cannot be split so.
    """
    if not hasattr(split, "parts"):
        raise InputError(
            f"data.split={split} is not allowed: the split is a group of its own. Type split=own, "
            "rule, folders, files, fraction or per_class, and its values as split.seed=1."
        )
    parts = split.parts(images)
    require_parts(images, parts)
    tell_untested(images, parts)
    return parts


def require_parts(images: Collection, parts: Mapping[str, Tensor]) -> None:
    """Raise InputError unless there are two classes or more, and images in every part."""
    if len(images.classes) < 2:
        raise InputError(
            f"{images.place} has images in one category folder only, {images.classes[0]!r}: there "
            "is nothing to tell apart. Type data.root= with a folder of at least two."
        )
    for part, indices in parts.items():
        if not len(indices):
            _require_enough(images)
            raise InputError(
                f"The {part} part of {images.place} is empty: {sum(map(len, parts.values()))} "
                "images are too few, or their groups too large. Add images, or type split=fraction "
                "or split=per_class."
            )


def require_training(images: Collection, parts: Mapping[str, Tensor]) -> None:
    """Raise InputError if a class has no image to learn from."""
    seen = {images.labels[row] for row in parts["train"].tolist()}
    if absent := sorted(set(images.labels) - seen):
        _require_enough(images)
        first, unseen = absent[0], [images.classes[label] for label in absent]
        count = counted(len(unseen), "class", "classes")
        raise InputError(
            f"{images.place} has {count} without a training image, {unseen[0]!r} with "
            f"{counted(images.labels.count(first), 'image')} for one: too small for this split, or "
            "in one group. Add images, or move the folder out of the data set; or type another "
            "split=: fraction and per_class draw from each class."
        )


def tell_untested(images: Collection, parts: Mapping[str, Tensor]) -> None:
    """Warn, once a process, of classes of which nothing is measured in validation or test."""
    for part in ("validation", "test"):
        seen = {images.labels[row] for row in parts[part].tolist()}
        absent = sorted(set(images.labels) - seen)
        if absent and (told := (str(images.place), part, *absent)) not in _told:
            _told.add(told)
            log.warning(
                "%d of %d classes have no %s image, %s (%s) for one: its accuracies say nothing of "
                "them. Add images of them, or type split=per_class, which gives each class as many "
                "as are typed.", len(absent), len(images.classes), part,
                ascii(images.classes[absent[0]])[1:-1],
                counted(images.labels.count(absent[0]), "image"),
            )  # fmt: skip


def _require_enough(images: Collection) -> None:
    """Raise InputError if no other split would do: each part and each class takes an image."""
    if len(images.files) < (needed := len(images.classes) + 2):
        raise InputError(
            f"{images.place} has {counted(len(images.files), 'image')} of "
            f"{len(images.classes)} classes, and no split can do with fewer than {needed}: one of "
            "each class to learn from, one for validation and one for the test. Add images."
        )
