"""The data sets, a function each: which images there are, and where their pixels are.

A new one is a function here and a file in conf/data/. If its images are files in category folders,
most of its function is a call of `_of_files`.
"""

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from caltech.data import download as downloads
from caltech.data import folders, pixels, split
from caltech.data.dataset import Dataset
from caltech.errors import InputError


def caltech101(
    root: str,
    download: bool | str,
    resize: int,
    crop: int,
    train_files: str | None,
    test_files: str | None,
    cache: str,
) -> Dataset:
    """Caltech-101 (Fei-Fei, Fergus and Perona, 2004) without its background class.

    Args:
        root: folder of `caltech101/101_ObjectCategories`, as torchvision lays it out.
        download: the archive, if the images are not there: "auto" only into the cache's own folder
            of data sets, true into any root, false never.
        resize: length in pixels to which an image's short side is resized.
        crop: side in pixels of the centre crop that models see.
        train_files, test_files: text files with a `category/image.jpg` a line, both or none, that
            replace the split rule; every fourth training file is then for validation.
        cache: folder for the decoded pixels.

    Raises:
        InputError: the images are missing or unreadable, or the lists overlap or repeat.
    """
    _require_crop(crop, resize)
    images = caltech101_images(root)
    if not images.is_dir():
        own = Path(cache).expanduser() / "datasets"
        downloads.caltech101(images, _is_wanted(download, Path(root).expanduser() == own))
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


def caltech101_images(root: str) -> Path:
    """Where the category folders are."""
    return Path(root).expanduser() / folders.CALTECH101


def _of_files(
    name: str, images: Path, resize: int, crop: int, lists: tuple[str | None, ...], cache: str
) -> Dataset:
    """The images in category folders, decoded; split by two lists of files or by the rule."""
    found = folders.listing(images)
    files = found.files
    folders.tell_strays(images, found.stray)
    names = [file.split("/")[0] for file in files]
    classes = tuple(dict.fromkeys(names))
    parts = split.of(files, *lists)
    split.require_parts(images, classes, parts)
    kept = Path(cache).expanduser()
    content = pixels.content_digest(images, files, kept)
    array = pixels.cached(images, files, resize, content, kept)
    try:
        if array.ensure() and (
            folders.list_images(images) != files
            or pixels.content_digest(images, files, kept) != content
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


def _is_wanted(download: bool | str, is_own_place: bool) -> bool:
    if download not in (True, False, "auto"):
        raise InputError(
            f"data.download={download} is not allowed: it is auto (only into the cache), true or "
            "false."
        )
    return is_own_place if download == "auto" else bool(download)


def _require_crop(crop: int, resize: int) -> None:
    if not 1 <= crop <= resize:
        raise InputError(
            f"data.crop={crop} is not allowed with data.resize={resize}: the crop must be at least "
            "1 and at most the resized side, for example data.resize=256 data.crop=224."
        )
