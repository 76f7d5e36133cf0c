"""The data sets, a function each: which images there are, and where their pixels are.

A new one is a function here and a file in conf/data/. If its images are files in category folders,
it has a line in FOLDERS, too, and most of its function is a call of `_of_files`.
"""

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from caltech.data import download as downloads
from caltech.data import pixels, split
from caltech.data.dataset import Dataset
from caltech.errors import InputError

FOLDERS = {"caltech101": "caltech101/101_ObjectCategories"}  # of the categories, below data.root
BACKGROUND = "BACKGROUND_Google"
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")


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
    images = folder(root, "caltech101")
    if not images.is_dir():
        downloads.caltech101(images, download)
    return _of_files("caltech101", images, resize, crop, (train_files, test_files), cache)


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
        **split.by_rule(len(order)),
        crop=crop,
        content=content,
    )


def folder(root: str, name: str) -> Path:
    """Where the category folders of the data set of that name are."""
    return Path(root).expanduser() / FOLDERS[name]


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
            f"holds {'/'.join(images.parts[-2:])}."
        )
    return files


def _of_files(
    name: str, images: Path, resize: int, crop: int, lists: tuple[str | None, ...], cache: str
) -> Dataset:
    """The images in category folders, decoded; split by two lists of files or by the rule."""
    files = list_images(images)
    names = [file.split("/")[0] for file in files]
    classes = tuple(dict.fromkeys(names))
    parts = split.of(files, *lists)
    split.require_parts(images, classes, parts)
    kept = Path(cache).expanduser()
    content = pixels.content_digest(images, files, kept)
    array = pixels.cached(images, files, resize, content, kept)
    try:
        if array.ensure() and (
            list_images(images) != files or pixels.content_digest(images, files, kept) != content
        ):
            raise InputError(f"{images} changed while it was read. Type the command again.")
    except InputError:
        array.discard()  # once the images are as they should be, it has another name
        raise
    number = {name: index for index, name in enumerate(classes)}
    return Dataset(
        name=name,
        read_pixels=array.read,
        side=resize,
        labels=torch.tensor([number[name] for name in names]),
        classes=classes,
        files=tuple(files),
        **parts,
        crop=crop,
        content=content,
    )


def _require_crop(crop: int, resize: int) -> None:
    if not 1 <= crop <= resize:
        raise InputError(
            f"data.crop={crop} is not allowed with data.resize={resize}: the crop must be at least "
            "1 and at most the resized side, for example data.resize=256 data.crop=224."
        )
