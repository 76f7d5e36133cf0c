"""Decoded pixels: every image once, as one memory-mapped uint8 array shared by all runs.

Decoding costs more than a small network's forward pass, and no epoch needs it twice.
"""

import hashlib
import json
import logging
import os
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

from caltech.errors import InputError

log = logging.getLogger(__name__)


def content_digest(images: Path, files: list[str], cache: Path) -> str:
    """SHA-256 over the names and bytes of `files`, in order.

    Reading 130 MB at every start would cost more than a short trial, so the digest is kept under
    the files' sizes and modification times and is read from there while those are unchanged.
    """
    stamp = hashlib.sha256(str(images.resolve()).encode())
    for file in files:
        status = os.stat(images / file)  # noqa: PTH116 (three times as fast as Path.stat)
        stamp.update(f"{file}\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    kept = cache / "digests" / f"{stamp.hexdigest()[:32]}.json"
    if kept.is_file():
        return json.loads(kept.read_text())["content"]
    content = hashlib.sha256()
    for file in files:
        content.update(file.encode() + b"\0")
        content.update(hashlib.sha256((images / file).read_bytes()).digest())
    with replacing(kept) as partial:
        partial.write_text(json.dumps({"images": str(images), "content": content.hexdigest()}))
    return content.hexdigest()


def decoded(images: Path, files: list[str], resize: int, content: str, cache: Path) -> Tensor:
    """All images as (N, resize, resize, 3) uint8, memory-mapped; decoded on the first call.

    Raises:
        InputError: an image cannot be read; names it.
    """
    path = cache / "pixels" / f"{content[:32]}-{resize}.npy"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            if not path.is_file():  # another process may have built it while this one waited
                _build(images, files, resize, path)
    # Copy-on-write: a tensor can share the memory, and nothing can change the file.
    return torch.from_numpy(np.load(path, mmap_mode="c"))


def decode(path: Path, resize: int) -> np.ndarray:
    """One image as (resize, resize, 3) uint8: short side to `resize`, bilinear, antialias, centre.

    A centre crop of this is pixel-equal to torchvision's Resize(resize) and CenterCrop(crop) where
    resize - crop is a multiple of four, as 256 - 224 is; else rounding may shift it by one pixel.
    """
    from torchvision.transforms import functional as vision

    with Image.open(path) as image:
        rgb = image.convert("RGB")
    return np.asarray(vision.center_crop(vision.resize(rgb, resize), resize))


def enlarge(grey: np.ndarray, side: int) -> np.ndarray:
    """A grey image (H, W) uint8 as (side, side, 3), bilinear."""
    image = Image.fromarray(grey).convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
    return np.array(image)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary name in the same folder that takes the place of `path` once it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _build(images: Path, files: list[str], resize: int, path: Path) -> None:
    """Decode with as many threads as cores: Pillow releases Python's lock while it works."""
    log.info("decoding %d images once into %s", len(files), path)
    shape = (len(files), resize, resize, 3)
    with replacing(path) as partial:
        array = np.lib.format.open_memmap(partial, mode="w+", dtype=np.uint8, shape=shape)

        def put(index: int) -> None:
            file = images / files[index]
            try:
                array[index] = decode(file, resize)
            except Exception as error:  # Pillow raises many types for a broken image
                raise InputError(
                    f"Cannot read the image {file}: {error}. Restore it from the archive, or move "
                    "it out of the data set."
                ) from error

        bar = tqdm(total=len(files), desc="decoding images", unit="image", disable=None)
        with ThreadPoolExecutor(torch.get_num_threads()) as pool, bar:
            try:
                for _ in pool.map(put, range(len(files))):
                    bar.update()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        array.flush()
