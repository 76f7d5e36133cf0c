"""Decoded pixels: every image once, as one memory-mapped uint8 array shared by all runs.

Decoding costs more than a small network's forward pass, and no epoch needs it twice.
"""

import logging
import shutil
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from caltech import versions
from caltech.amounts import counted, size_of
from caltech.cache import CachedArray
from caltech.data.folders import FORMATS, signature
from caltech.data.images import opened, require_moderate
from caltech.errors import DamagedError, DiskError, InputError

log = logging.getLogger(__name__)

BLOCK_BYTES = 1 << 25  # decoded at a time, and then in memory
SAMPLED = 16  # images by which the time is told
MAX_CACHE_BYTES = 100_000_000_000  # more is asked for in so many words, by data.cache_pixels=false


@dataclass(frozen=True)
class Decoded:
    """Pixels (N, S, S, 3) uint8 of which each image is decoded when it is asked for.

    As far as a data set's pixels are used, it is like the tensor of all: bit for bit the same.

    Args:
        decode: of a row, (S, S, 3) uint8; raises InputError that names the image.
    """

    decode: Callable[[int], np.ndarray]
    rows: int
    side: int
    device: torch.device | str = "cpu"

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return self.rows, self.side, self.side, 3

    def to(self, device: torch.device) -> "Decoded":
        """The same, which gives its images there."""
        return replace(self, device=device)

    def at(self, indices: Sequence[int], done: Callable[[int], object] = int) -> Tensor:
        """(n, S, S, 3), by as many threads as cores: Pillow releases Python's lock at work."""
        is_far = torch.device(self.device).type == "cuda"  # copied there while the host goes on
        shape = len(indices), *self.shape[1:]
        block = torch.empty(shape, dtype=torch.uint8, pin_memory=is_far)
        rows = block.numpy()

        def put(place: int) -> None:
            rows[place] = self.decode(indices[place])

        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            for _ in pool.map(put, range(len(indices))):
                done(1)
        there = block.to(self.device, non_blocking=is_far)
        if is_far:
            keep_pace()
        return there

    def __getitem__(self, place: Tensor | int | tuple) -> Tensor:
        if isinstance(place, Tensor):
            return self.at(place.tolist())
        row, *inside = place if isinstance(place, tuple) else (place,)
        return self.at([int(row)])[(0, *inside)]


# Copies that a GPU has not been seen to have made, of the last few.
_on_the_way: deque["torch.cuda.Event"] = deque()
MOST_ON_THE_WAY = 2


def keep_pace() -> None:
    """After a large copy to a GPU: wait until the one before the last was made.

    Each takes pinned memory, which is used again once it is made. The host is faster than a GPU
    that trains, and would pin a batch for each step that waits there.
    """
    _on_the_way.append(torch.cuda.Event())
    _on_the_way[-1].record()
    if len(_on_the_way) > MOST_ON_THE_WAY:
        _on_the_way.popleft().synchronize()


def of_files(
    images: Path, files: Sequence[str], resize: int, upright: bool = False, is_watched: bool = False
) -> Decoded:
    """The pixels of image files.

    Args:
        upright: turn them as EXIF says.
        is_watched: refuse a file that has changed since this call.
    """
    before = [signature(images / file) for file in files] if is_watched else None

    def decode_row(row: int) -> np.ndarray:
        path = images / files[row]
        if before and signature(path) != before[row]:
            raise InputError(f"{path} changed while it was used. Type the command again.")
        try:
            return decode(path, resize, upright)
        except Exception as error:  # Pillow raises many types for a broken image
            raise InputError(
                f"Cannot read the image {path}: {str(error).rstrip('.')}. Restore it, or move it "
                "out of the data set."
            ) from error

    return Decoded(decode_row, len(files), resize)


def cached(decoded: Decoded, content: str, cache: Path) -> CachedArray:
    """All images as (N, resize, resize, 3) uint8, for a content digest.

    Its methods raise InputError for an image that cannot be read, and name it.
    """
    row_bytes = decoded.side**2 * 3
    decoding = versions.name(versions.decoding())
    return CachedArray(
        path=cache / "pixels" / f"{content[:32]}-{decoded.side}-{decoding}.bin",
        rows=decoded.rows,
        block_rows=max(1, BLOCK_BYTES // row_bytes),
        compute=decoded.at,
        doing="decoding %s once",
        row_bytes=row_bytes,
    )


def announce(array: CachedArray, decoded: Decoded) -> None:
    """Say how much room and time the cache will take, before it is built.

    Raises:
        DiskError: it is more than the limit, or than the disk has.
        InputError: an image cannot be read.
    """
    if array.is_complete():
        return
    array.path.parent.mkdir(parents=True, exist_ok=True)
    size = array.rows * array.row_bytes
    missing = size - (array.path.stat().st_size if array.path.is_file() else 0)
    free = shutil.disk_usage(array.path.parent).free
    told = (
        f"{counted(array.rows, 'image')} of {decoded.side} x {decoded.side} pixels take "
        f"{size_of(size)}"
    )
    if size > MAX_CACHE_BYTES or missing > free:
        limit = f"at most {size_of(MAX_CACHE_BYTES)} are kept" if size > MAX_CACHE_BYTES else ""
        raise DiskError(
            f"{array.path} cannot be written: {told}, and "
            f"{limit or f'no space is left for it: {size_of(free)} are free there'}. Type a "
            "smaller data.resize=, data.cache_pixels=false (each image is decoded whenever it is "
            "used), or cache=FOLDER on another disk."
        )
    if array.rows < 20 * SAMPLED:
        return  # a moment
    chosen = range(0, array.rows, max(1, array.rows // SAMPLED))
    start = time.monotonic()
    decoded.at(chosen)
    seconds = (time.monotonic() - start) / len(chosen) * missing / array.row_bytes
    log.info("%s in %s: about %.1f minutes, once", told, array.path.parent, seconds / 60)


@dataclass(frozen=True)
class Unkept:
    """Pixels that are decoded whenever they are used, once each image has been found readable."""

    decoded: Decoded
    content: str
    cache: Path

    def complete(self) -> None:
        """Decode what was never decoded, and keep a byte for each image that could be.

        Raises:
            InputError: an image cannot be read. It would end a run of hours else.
        """
        name = f"{self.content[:32]}-{self.decoded.side}-{versions.name(versions.decoding())}.bin"
        read = CachedArray(
            path=self.cache / "readable" / name,
            rows=self.decoded.rows,
            block_rows=max(1, BLOCK_BYTES // (self.decoded.side**2 * 3)),
            compute=self._found_readable,
            doing="reading %s once, before any is used",
            row_bytes=1,
        )
        try:
            read.ensure()
        except InputError:
            read.discard()  # once the images are as they should be, it has another name
            raise

    def _found_readable(self, rows: range, done: Callable[[int], object]) -> Tensor:
        self.decoded.at(rows, done)
        return torch.ones(len(rows), 1, dtype=torch.uint8)

    def __call__(self) -> Decoded:
        return self.decoded


def differing(array: CachedArray, decoded: Decoded) -> list[int]:
    """Rows of images that are others than in the cache, as far as there are any in it."""

    def refuse(rows: range, done: Callable[[int], object]) -> Tensor:
        raise DamagedError(f"{array.path} is damaged and cannot be compared: delete it.")

    if not array.is_complete():
        return []
    kept = replace(array, compute=refuse).read()  # never computed from other images

    def differs(row: int) -> bool:
        try:
            return not np.array_equal(decoded.decode(row), kept[row].numpy())
        except InputError:
            return True

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        return [
            row for row, is_other in enumerate(pool.map(differs, range(array.rows))) if is_other
        ]


def decode(path: Path, resize: int, upright: bool = False) -> np.ndarray:
    """One image as (resize, resize, 3) uint8: short side to `resize`, bilinear, antialias, centre.

    Of an animation it is the first frame. A centre crop of this is pixel-equal to torchvision's
    Resize(resize) and CenterCrop(crop) where resize - crop is a multiple of four, as 256 - 224 is;
    else rounding may shift it by one pixel.

    Args:
        upright: turn it as EXIF says.
    """
    with opened(path, FORMATS) as image:
        return fit(image, resize, upright)


def fit(image: Image.Image, resize: int, upright: bool = False) -> np.ndarray:
    """The same of an image that is open already."""
    from torchvision.transforms import functional as vision

    # After resizing a long strip has more pixels than before.
    require_moderate(image, max(1, resize / min(image.size)) ** 2)
    _require_grey(image)
    rgb = _eight_bit(ImageOps.exif_transpose(image) if upright else image).convert("RGB")
    return np.asarray(vision.center_crop(vision.resize(rgb, resize), resize))


def enlarge(grey: np.ndarray, side: int) -> np.ndarray:
    """A grey image (H, W) uint8 as (side, side, 3), bilinear."""
    image = Image.fromarray(grey).convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
    return np.array(image)


def _require_grey(image: Image.Image) -> None:
    """Raise ValueError for numbers that Pillow gives as they are stored, whatever they mean."""
    if image.mode == "F" or (image.mode == "I" and image.format not in ("PPM", "PNG")):
        raise ValueError(f"its pixels are numbers of 32 bits (Pillow's mode {image.mode})")
    if image.mode.startswith("I") and image.format == "TIFF" and image.tag_v2.get(262) == 0:
        raise ValueError("its 16-bit grey is stored inverted (WhiteIsZero); save it as PNG")


def _eight_bit(image: Image.Image) -> Image.Image:
    """16-bit grey scaled to 8 bit; Pillow's own conversion cuts off at 255 and gives white."""
    if not image.mode.startswith("I"):
        return image
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
