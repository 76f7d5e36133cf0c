"""Decoded pixels: every image once, as one memory-mapped uint8 array shared by all runs.

Decoding costs more than a small network's forward pass, and no epoch needs it twice. The file is
the N images one after the other, then N checksums, one an image.
"""

import hashlib
import logging
import os
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from caltech.errors import DamagedError, InputError
from caltech.files import read_sealed_json, replacing, require_room, write_at, write_sealed_json

log = logging.getLogger(__name__)

# Whatever a file is called. Not all that Pillow knows: it gives PostScript to a program.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP")
MAX_PIXELS = 64_000_000  # an image of 64 megapixels takes 200 MB; Caltech-101's largest has 0.2


def content_digest(images: Path, files: list[str], cache: Path) -> str:
    """SHA-256 over the names and bytes of `files`, in order.

    Reading 130 MB at every start would cost more than a short trial, so the digest is kept under
    the files' sizes and modification times and is read from there while those are unchanged.
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
            return read_sealed_json(kept)["content"]
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


def place(content: str, resize: int, cache: Path) -> Path:
    """Where the pixels of images with this digest are, or will be."""
    return cache / "pixels" / f"{content[:32]}-{resize}.bin"


def ensure(images: Path, files: list[str], resize: int, path: Path) -> bool:
    """Decode all images into `path` if it is not there; whether that was done.

    Raises:
        InputError: an image cannot be read; names it.
        DiskError: there is no room for the pixels.
    """
    if path.is_file():
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock"):
        if path.is_file():  # another process has built it while this one waited
            return False
        _build(images, files, resize, path)
    return True


def read(images: Path, files: list[str], resize: int, path: Path) -> Tensor:
    """All images as (N, resize, resize, 3) uint8, memory-mapped, every byte of them verified.

    A damaged file is named and built again.

    Raises:
        InputError, DiskError: as ensure.
    """
    shape = (len(files), resize, resize, 3)
    ensure(images, files, resize, path)
    try:
        return _map_verified(path, shape)
    except DamagedError as error:
        log.warning("%s The images are decoded again.", error)
    with FileLock(f"{path}.lock"):
        try:
            return _map_verified(path, shape)  # another process has built it meanwhile
        except DamagedError:
            _build(images, files, resize, path)
    return _map_verified(path, shape)


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


def _eight_bit(image: Image.Image) -> Image.Image:
    """16-bit grey scaled to 8 bit; Pillow's own conversion cuts off at 255 and gives white."""
    if not image.mode.startswith("I;16"):
        return image
    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))


def enlarge(grey: np.ndarray, side: int) -> np.ndarray:
    """A grey image (H, W) uint8 as (side, side, 3), bilinear."""
    image = Image.fromarray(grey).convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
    return np.array(image)


def _build(images: Path, files: list[str], resize: int, path: Path) -> None:
    """Decode with as many threads as cores: Pillow releases Python's lock while it works."""
    sums, image_bytes = np.zeros(len(files), np.uint32), resize * resize * 3
    size = len(files) * image_bytes + sums.nbytes
    require_room(path, size)
    log.info("decoding %d images once into %s", len(files), path)
    with replacing(path, size) as partial, partial.open("wb") as output:

        def put(index: int) -> None:
            file = images / files[index]
            try:
                image = decode(file, resize)
            except Exception as error:  # Pillow raises many types for a broken image
                raise InputError(
                    f"Cannot read the image {file}: {error}. Restore it from the archive, or move "
                    "it out of the data set."
                ) from error
            sums[index] = zlib.crc32(image)
            # A memory map would end the process (SIGBUS) where a write tells that the disk is full.
            write_at(output.fileno(), image, index * image_bytes)

        bar = tqdm(total=len(files), desc="decoding images", unit="image", disable=None)
        with ThreadPoolExecutor(torch.get_num_threads()) as pool, bar:
            try:
                for _ in pool.map(put, range(len(files))):
                    bar.update()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        write_at(output.fileno(), sums, len(files) * image_bytes)


def _map_verified(path: Path, shape: tuple[int, ...]) -> Tensor:
    """Compare each image with its checksum, on as many threads as cores: 0.6 s for 1.7 GB on 2."""
    count, image_bytes = shape[0], int(np.prod(shape[1:]))
    size = count * (image_bytes + 4)
    if path.stat().st_size != size:
        raise DamagedError(f"{path} has {path.stat().st_size} bytes instead of {size}.")
    # Copy-on-write: a tensor can share the memory, and nothing can change the file.
    array = np.memmap(path, np.uint8, "c", shape=shape)
    expected = np.fromfile(path, np.uint32, offset=count * image_bytes)

    def damaged_in(chunk: range) -> int:
        return sum(zlib.crc32(array[index]) != expected[index] for index in chunk)

    chunks = [range(count)[first : first + 256] for first in range(0, count, 256)]
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        damaged = sum(pool.map(damaged_in, chunks))
    if damaged:
        raise DamagedError(f"{path}: {damaged} of {count} images do not match their checksum.")
    return torch.from_numpy(array)
