"""Decoded pixels: every image once, as one memory-mapped uint8 array shared by all runs.

Decoding costs more than a small network's forward pass, and no epoch needs it twice.
"""

import hashlib
import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from caltech import versions
from caltech.cache import CachedArray
from caltech.errors import DamagedError, InputError
from caltech.files import read_sealed_json, write_sealed_json

log = logging.getLogger(__name__)

# Whatever a file is called. Not all that Pillow knows: it gives PostScript to a program.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP")
MAX_PIXELS = 64_000_000  # an image of 64 megapixels takes 200 MB; Caltech-101's largest has 0.2
BLOCK_BYTES = 1 << 25  # decoded at a time, and then in memory


def content_digest(images: Path, files: list[str], cache: Path) -> str:
    """SHA-256 over the names and bytes of `files`, in order.

    Reading 130 MB at every start would cost more than a short trial, so the digest is kept under
    the files' sizes and modification times and is read from there while those are unchanged.

    Raises:
        InputError: a file cannot be read; names it.
    """
    stamp = hashlib.sha256(os.fsencode(images.resolve()))
    with naming_file():
        for file in files:
            status = os.stat(images / file)  # noqa: PTH116 (three times as fast as Path.stat)
            stamp.update(os.fsencode(file))
            stamp.update(f"\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    kept = cache / "digests" / f"{stamp.hexdigest()[:32]}.json"
    if kept.is_file():
        try:
            return read_sealed_json(kept, {"content": str})["content"]
        except DamagedError as error:
            log.warning("%s It is computed again.", error)
    content = hashlib.sha256()
    with naming_file():
        for file in files:
            content.update(os.fsencode(file) + b"\0")
            content.update(hashlib.sha256((images / file).read_bytes()).digest())
    write_sealed_json(kept, {"images": str(images), "content": content.hexdigest()})
    return content.hexdigest()


@contextmanager
def naming_file() -> Iterator[None]:
    """Turn what the system says of a file or folder that cannot be read into one InputError."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{error.filename} cannot be read: {error.strerror}. Restore it, or move it out of the "
            "data set."
        ) from error


def cached(images: Path, files: list[str], resize: int, content: str, cache: Path) -> CachedArray:
    """All images as (N, resize, resize, 3) uint8, for a content digest.

    Its methods raise InputError for an image that cannot be read, and name it.
    """
    row_bytes = resize * resize * 3

    def decode_all(rows: range, done: Callable[[int], object]) -> Tensor:
        """By as many threads as cores: Pillow releases Python's lock while it works."""
        block = np.empty((len(rows), resize, resize, 3), np.uint8)

        def put(row: int) -> None:
            file = images / files[row]
            try:
                block[row - rows.start] = decode(file, resize)
            except Exception as error:  # Pillow raises many types for a broken image
                raise InputError(
                    f"Cannot read the image {file}: {error}. Restore it from the archive, or move "
                    "it out of the data set."
                ) from error

        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            for _ in pool.map(put, rows):
                done(1)
        return torch.from_numpy(block)

    return CachedArray(
        path=cache / "pixels" / f"{content[:32]}-{resize}-{versions.name(versions.decoding())}.bin",
        rows=len(files),
        block_rows=max(1, BLOCK_BYTES // row_bytes),
        compute=decode_all,
        doing="decoding %d images once",
        row_bytes=row_bytes,
    )


def decode(path: Path, resize: int) -> np.ndarray:
    """One image as (resize, resize, 3) uint8: short side to `resize`, bilinear, antialias, centre.

    A centre crop of this is pixel-equal to torchvision's Resize(resize) and CenterCrop(crop) where
    resize - crop is a multiple of four, as 256 - 224 is; else rounding may shift it by one pixel.
    """
    from torchvision.transforms import functional as vision

    with Image.open(path, formats=FORMATS) as image:
        # After resizing a long strip has more pixels than before.
        factor = max(1, resize / min(image.size)) ** 2
        if factor * image.width * image.height > MAX_PIXELS:
            raise ValueError(
                f"{image.width} x {image.height} pixels; more than {MAX_PIXELS} are not read"
            )
        rgb = _eight_bit(image).convert("RGB")
    return np.asarray(vision.center_crop(vision.resize(rgb, resize), resize))


def enlarge(grey: np.ndarray, side: int) -> np.ndarray:
    """A grey image (H, W) uint8 as (side, side, 3), bilinear."""
    image = Image.fromarray(grey).convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
    return np.array(image)


def _eight_bit(image: Image.Image) -> Image.Image:
    """16-bit grey scaled to 8 bit; Pillow's own conversion cuts off at 255 and gives white."""
    if not image.mode.startswith("I;16"):
        return image
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
