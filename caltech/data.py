"""The data sets: which images there are, how they are split, and their decoded pixels."""

import functools
import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from caltech import download as downloads
from caltech import pixels
from caltech.augment import VIEWS, center_crop
from caltech.errors import InputError

BACKGROUND = "BACKGROUND_Google"
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


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


def caltech101(
    root: str,
    download: bool,
    resize: int,
    crop: int,
    train_files: str | None,
    test_files: str | None,
    cache: str,
) -> Dataset:
    """Caltech-101 (Fei-Fei, Fergus and Perona, 2004) without its background class.

    Args:
        root: folder of `caltech101/101_ObjectCategories`, as torchvision lays it out.
        download: fetch the archive if it is not there.
        resize: length in pixels to which an image's short side is resized.
        crop: side in pixels of the centre crop that models see.
        train_files, test_files: text files with a `category/image.jpg` a line, both or none, that
            replace the split rule; every fourth training file is then for validation.
        cache: folder for the decoded pixels.

    Raises:
        InputError: the images are missing or unreadable, or the lists overlap or repeat.
    """
    _require_crop(crop, resize)
    images = Path(root).expanduser() / "caltech101" / "101_ObjectCategories"
    if not images.is_dir():
        downloads.caltech101(images, download)
    files = list_images(images)
    split = split_by_rule(len(files))
    if train_files or test_files:
        split = _split_by_files(files, train_files, test_files)
    names = [file.split("/")[0] for file in files]
    classes = tuple(dict.fromkeys(names))
    _require_parts(images, classes, split)
    number = {name: index for index, name in enumerate(classes)}
    content = pixels.content_digest(images, files, Path(cache).expanduser())
    path = pixels.place(content, resize, Path(cache).expanduser())
    if pixels.ensure(images, files, resize, path) and (
        list_images(images) != files
        or pixels.content_digest(images, files, Path(cache).expanduser()) != content
    ):
        path.unlink()  # it has the name of other images
        raise InputError(f"{images} changed while it was read. Type the command again.")
    return Dataset(
        name="caltech101",
        read_pixels=functools.partial(pixels.read, images, files, resize, path),
        side=resize,
        labels=torch.tensor([number[name] for name in names]),
        classes=classes,
        files=tuple(files),
        **split,
        crop=crop,
        content=content,
    )


def digits(resize: int, crop: int) -> Dataset:
    """scikit-learn's 1797 handwritten digits, in order of their class, split by the same rule."""
    from sklearn.datasets import load_digits

    _require_crop(crop, resize)
    bunch = load_digits()
    order = np.argsort(bunch.target, kind="stable")
    grey = np.round(bunch.images[order] * (255 / 16)).astype(np.uint8)
    content = hashlib.sha256(grey.tobytes() + bunch.target[order].tobytes()).hexdigest()

    def enlarged() -> Tensor:
        return torch.stack([torch.from_numpy(pixels.enlarge(image, resize)) for image in grey])

    return Dataset(
        name="digits",
        read_pixels=enlarged,
        side=resize,
        labels=torch.from_numpy(bunch.target[order].astype(np.int64)),
        classes=tuple(str(name) for name in bunch.target_names),
        files=tuple(f"{bunch.target[i]}/{i:04d}" for i in order),
        **split_by_rule(len(order)),
        crop=crop,
        content=content,
    )


def list_images(images: Path) -> list[str]:
    """`category/file` of every image: categories sorted without regard to case, files by name."""
    with pixels.naming_file():
        categories = [p for p in images.iterdir() if p.is_dir() and p.name != BACKGROUND]
        files = [
            f"{category.name}/{file.name}"
            for category in sorted(categories, key=lambda path: path.name.lower())
            for file in sorted(category.iterdir(), key=lambda path: path.name)
            if file.suffix.lower() in IMAGE_SUFFIXES
        ]
    if not files:
        raise InputError(
            f"{images} has no category folder with images. Type data.root= with the folder that "
            "holds caltech101/101_ObjectCategories."
        )
    return files


def split_by_rule(count: int) -> dict[str, Tensor]:
    """Every third of the ordered images is for test, every fourth of the others for validation.

    The test part is, file by file, that of the course the study was made in (8677 images: 2893);
    how the study drew its validation part of the same size (1446 of 5784) is unknown.
    """
    indices = torch.arange(count)
    is_test = indices % 3 == 0
    return _with_validation(indices[~is_test], indices[is_test])


def _with_validation(rest: Tensor, test: Tensor) -> dict[str, Tensor]:
    is_validation = torch.arange(len(rest)) % 4 == 0
    return {"train": rest[~is_validation], "validation": rest[is_validation], "test": test}


def _split_by_files(
    files: list[str], train_files: str | None, test_files: str | None
) -> dict[str, Tensor]:
    if not (train_files and test_files):
        missing = "data.test_files" if train_files else "data.train_files"
        raise InputError(f"{missing} is missing: data.train_files and data.test_files go together.")
    index = {file: position for position, file in enumerate(files)}
    parts = []
    for key, path in (("data.train_files", train_files), ("data.test_files", test_files)):
        if not Path(path).is_file():
            raise InputError(
                f"{key}={path} does not exist: a text file with a category/image.jpg a line."
            )
        lines = [line.strip() for line in Path(path).read_text("utf-8").splitlines()]
        listed = [line for line in lines if line]
        if unknown := [line for line in listed if line not in index]:
            raise InputError(f"{key}={path} lists {unknown[0]}, which is not in the data set.")
        if repeated := [file for file, times in Counter(listed).items() if times > 1]:
            raise InputError(
                f"{key}={path} lists {repeated[0]} more than once. Remove the repetition."
            )
        parts.append(listed)
    train, test = parts
    if overlap := sorted(set(train) & set(test)):
        raise InputError(
            f"{len(overlap)} files are in both data.train_files and data.test_files, "
            f"{overlap[0]} for one. Remove them from one of the two."
        )
    return _with_validation(
        torch.tensor([index[file] for file in train]), torch.tensor([index[file] for file in test])
    )


def _require_parts(images: Path, classes: tuple[str, ...], split: dict[str, Tensor]) -> None:
    if len(classes) < 2:
        raise InputError(
            f"{images} has images in one category folder only, {classes[0]}: there is nothing to "
            "tell apart. Type data.root= with a folder of at least two."
        )
    for part, indices in split.items():
        if not len(indices):
            raise InputError(
                f"The {part} part of {images} is empty: {sum(map(len, split.values()))} images are "
                "too few. Every third is for test and every fourth of the others for validation; "
                "data.train_files and data.test_files name others."
            )


def _require_crop(crop: int, resize: int) -> None:
    if not 1 <= crop <= resize:
        raise InputError(
            f"data.crop={crop} is not allowed with data.resize={resize}: the crop must be at least "
            "1 and at most the resized side, for example data.resize=256 data.crop=224."
        )


if __name__ == "__main__":
    from caltech import audit

    audit.main()
