"""The data sets, a function each: which images there are, and where their pixels are.

A new one is a function here and a file in conf/data/. If its images are files, most of its function
is a call of `_of_files`.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from caltech.cache import CachedArray
from caltech.data import folders, own, pixels
from caltech.data.dataset import (
    Collection,
    Dataset,
    Reading,
    parts_of,
    require_training,
)
from caltech.data.download import caltech101_at
from caltech.data.split import OWN, Files, Parts, Split
from caltech.errors import InputError


def caltech101(
    root: str,
    download: bool | str,
    resize: int,
    crop: int,
    train_files: str | None,
    test_files: str | None,
    cache: str,
    split: Split = OWN,  # configs of before have none
    cache_pixels: bool = True,
) -> Dataset:
    """Caltech-101 (Fei-Fei, Fergus and Perona, 2004) without its background class.

    Args:
        root: folder of `caltech101/101_ObjectCategories`, as torchvision lays it out.
        download: the archive, if the images are not there: "auto" only into the cache's own folder
            of data sets, true into any root, false never.
        resize: length in pixels to which an image's short side is resized.
        crop: side in pixels of the centre crop that models see.
        train_files, test_files: text files with a `category/image.jpg` a line, both or none, that
            replace the split; every fourth training file is then for validation.
        cache: folder for the decoded pixels.
        split: which images are for what.
        cache_pixels: decode once, or else each image whenever it is used.

    Raises:
        InputError: the images are missing or unreadable, or cannot be split so.
    """
    reading = Reading(resize, crop, Path(cache).expanduser(), cache_pixels)
    if train_files or test_files:
        if split != OWN:
            raise InputError(
                "data.train_files and data.test_files are a split already: leave them or split= "
                "out, or type split=files with split.train_files and split.test_files."
            )
        split = Files(train_files, None, test_files, of="data")
    images = caltech101_at(root, download, reading.cache)
    return _of_files("caltech101", images, folders.listing, folders.collection, split, reading)


def caltech101_background(
    root: str,
    download: bool | str,
    resize: int,
    crop: int,
    cache: str,
    split: Split,
    cache_pixels: bool,
) -> Dataset:
    """Caltech-101 with its background as one more class, as most papers measure it.

    Args, Raises: as of caltech101.
    """
    reading = Reading(resize, crop, Path(cache).expanduser(), cache_pixels)
    images = caltech101_at(root, download, reading.cache)
    name, listing = "caltech101_background", caltech101_background_listing
    return _of_files(name, images, listing, folders.collection, split, reading)


def folder(
    root: str | None,
    name: str | None,
    upright: bool,
    resize: int,
    crop: int,
    split: Split,
    cache_pixels: bool,
    cache: str,
) -> Dataset:
    """One's own images: a folder for each class, or such in folders train, val and test.

    What lies deeper is its class's. All of folders.FORMATS is read, of an animation the first
    frame; grey, palettes and 16 bits become RGB of 8, and transparency is dropped.

    Args:
        root: the folder of the classes, or of the parts.
        name: what the data set is called in reports and by `run=best data=NAME`.
        upright: turn images as their EXIF orientation says.
        resize, crop, split, cache_pixels, cache: as of caltech101.

    Raises:
        InputError: it is not that, an image is in two classes or parts or cannot be read, a class
            has none for training, or the images cannot be split so.
    """
    if not root:
        raise InputError(
            "data=folder needs data.root=DIR: the folder that has a folder of images for each "
            "class, or the folders train, val and test of such."
        )
    place = Path(root).expanduser()
    reading = Reading(resize, crop, Path(cache).expanduser(), cache_pixels, upright)
    listing, collection = own.listing, own.collection
    return _of_files(name or place.resolve().name, place, listing, collection, split, reading)


def digits(resize: int, crop: int, split: Split = OWN) -> Dataset:
    """scikit-learn's 1797 handwritten digits, in order of their class."""
    from sklearn.datasets import load_digits

    reading = Reading(resize, crop)
    bunch = load_digits()
    order = np.argsort(bunch.target, kind="stable")
    grey = np.round(bunch.images[order] * (255 / 16)).astype(np.uint8)
    content = hashlib.sha256(grey.tobytes() + bunch.target[order].tobytes()).hexdigest()

    def enlarged() -> Tensor:
        return torch.stack([torch.from_numpy(pixels.enlarge(image, resize)) for image in grey])

    images = Collection(
        place="data=digits",
        files=[f"{bunch.target[i]}/{i:04d}" for i in order],
        labels=bunch.target[order].tolist(),
        classes=tuple(str(name) for name in bunch.target_names),
    )
    return assemble("digits", images, parts_of(images, split), enlarged, reading, content)


def caltech101_background_listing(images: Path) -> folders.Listing:
    """As folders.listing, with the background."""
    return folders.listing(images, background=True)


def content_of_pixels(content: str, upright: bool) -> str:
    """Digest of images that are turned or not: the same bytes are other pixels then."""
    return hashlib.sha256(f"{content} upright".encode()).hexdigest() if upright else content


def _of_files(
    name: str,
    place: Path,
    listing: Callable[[Path], folders.Listing],
    collection: Callable[[Path, folders.Listing], Collection],
    split: Split,
    reading: Reading,
) -> Dataset:
    """Image files, listed and made a collection as the data set does, split and decoded."""
    found = listing(place)
    is_own = collection is own.collection
    typed = ("folder", place) if is_own else (name, place.parents[1])
    folders.tell_strays(place, found.stray, folders.audit_command(*typed))
    images = collection(place, found)
    parts = parts_of(images, split)
    require, tell = len, bool
    if is_own:
        own.require_read(place, found)
        require_training(images, parts)
        require, tell = own.require_distinct(images), partial(own.tell_apart, images, parts)
    cache = reading.cache
    content = folders.content_digest(place, found.files, cache, require, tell)

    def require_unchanged() -> None:
        if (
            listing(place).files != found.files
            or folders.content_digest(place, found.files, cache, require) != content
        ):
            raise InputError(f"{place} changed while it was read. Type the command again.")

    pixels_content = content_of_pixels(content, reading.upright)
    decoded = pixels.of_files(
        place, found.files, reading.resize, reading.upright, is_watched=not reading.cache_pixels
    )
    read = kept(decoded, pixels_content, reading, require_unchanged)
    return assemble(name, images, parts, read, reading, pixels_content)


def kept(
    decoded: pixels.Decoded, content: str, reading: Reading, require_unchanged: Callable[[], None]
) -> "Kept | pixels.Unkept":
    """What reads the pixels: out of the cache, or each when it is used."""
    if not reading.cache_pixels:
        return pixels.Unkept(decoded, content, reading.cache)
    return Kept(pixels.cached(decoded, content, reading.cache), decoded, require_unchanged)


@dataclass(frozen=True)
class Kept:
    """Pixels in the cache, which is made complete before it is read."""

    array: CachedArray
    decoded: pixels.Decoded
    require_unchanged: Callable[[], None]

    def complete(self) -> None:
        pixels.announce(self.array, self.decoded)
        try:
            if self.array.ensure():
                self.require_unchanged()
        except InputError:
            self.array.discard()  # once the images are as they should be, it has another name
            raise

    def __call__(self) -> Tensor:
        self.complete()
        return self.array.read()


def assemble(
    name: str,
    images: Collection,
    parts: Parts,
    read_pixels: Callable[[], Tensor | pixels.Decoded],
    reading: Reading,
    content: str,
) -> Dataset:
    """What all other rooms see."""
    return Dataset(
        name=name,
        read_pixels=read_pixels,
        side=reading.resize,
        labels=torch.tensor(images.labels, dtype=torch.int64),
        classes=images.classes,
        files=tuple(images.files),
        **parts,
        crop=reading.crop,
        content=content,
        complete=getattr(read_pixels, "complete", lambda: None),
    )
