"""Frozen-feature cache: what a frozen part gives out is a constant, so it is computed once.

With the leading stages frozen (no gradient, eval mode) and finitely many views of each image, the
trained part's input for an image and view never changes: not between epochs, and not between the
trials of a sweep. It is computed for all images, kept on disk, and every run trains on that.
"""

import hashlib
import logging
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor
from tqdm import tqdm

from caltech.data.augment import VIEWS, Views, center_crop
from caltech.data.dataset import Dataset
from caltech.errors import DamagedError
from caltech.files import (
    explaining_full_disk,
    read_sealed_json,
    replacing,
    require_room,
    sum_of,
    write_at,
    write_sealed_json,
)
from caltech.models.classifier import Classifier
from caltech.models.freeze import digest
from caltech.training.precision import Precision

log = logging.getLogger(__name__)

# Images through the frozen part at a time, whatever a run's batch size. Small batches stay in a
# CPU's cache: 16 was 1.18 times as fast as 64 (tests/bench/tried.py). A GPU wants large ones.
BATCH = {"cpu": 16, "cuda": 256}
ROWS_PER_BLOCK = 1024  # with a checksum; progress is noted after each, so that a pass can go on


class Features:
    """What a trained part is fed with when the stages before it are frozen and cached."""

    def __init__(self, views: Mapping[str, Tensor], augment: Views, device: torch.device) -> None:
        self.views = {name: values.to(device) for name, values in views.items()}  # each (N, ...)
        self.augment = augment

    def training(self, indices: Tensor) -> Tensor:
        """Features of the views drawn for the images at `indices` (n,), as augment.Views draws."""
        drawn = self.augment.draw(len(indices))
        first, *others = self.augment.train
        features = self.views[first][indices]
        for number, name in enumerate(others, start=1):
            features[drawn == number] = self.views[name][indices[drawn == number]]
        return features

    def evaluation(self, indices: Tensor) -> list[Tensor]:
        """Their features in each view whose logits are averaged."""
        return [self.views[name][indices] for name in self.augment.test]


def extract(
    frozen: Classifier,
    data: Dataset,
    augment: Views,
    precision: Precision,
    device: torch.device,
    cache: Path,
) -> Features:
    """Outputs of `frozen` for every image and view, from the cache or computed into it.

    The name in the cache is a hash of all that decides the values, so another data set, model,
    weight, boundary, crop, view or type is another name, and nothing stale is ever read. Every byte
    is compared with a checksum each time; what is damaged is named and computed again.

    Raises:
        DiskError: there is no room for the features.
    """
    common = (
        data.content,
        str((len(data.labels), data.side, data.side, 3)),
        str(data.crop),
        digest([frozen]),
        str(frozen),
        precision.name,
        device.type,
    )
    views = {}
    for view in dict.fromkeys((*augment.train, *augment.test)):
        key = hashlib.sha256("\n".join((*common, view)).encode()).hexdigest()[:32]
        views[view] = _cached(cache / "features" / key, frozen, data, view, precision, device)
    return Features(views, augment, device)


def _cached(
    path: Path,
    frozen: Classifier,
    data: Dataset,
    view: str,
    precision: Precision,
    device: torch.device,
) -> Tensor:
    binary, total = path.with_suffix(".bin"), len(data.labels)
    if (values := _read(binary, total)) is None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            # Another process may have computed them while this one waited.
            if (values := _read(binary, total)) is None:
                _extract_view(binary, frozen, data, view, precision, device)
                values = _read(binary, total)
    if values is None:
        raise DamagedError(f"{binary} is not what was just written to it: look after this disk.")
    return values


def _read(binary: Path, total: int) -> Tensor | None:
    """All features if they are there and whole."""
    note = _noted(binary)
    if note is None or sum(rows for rows, _ in note["blocks"]) < total:
        return None
    if _good_blocks(binary, note) < len(note["blocks"]):
        log.warning("%s was cut short or changed. What is damaged is computed again.", binary)
        return None
    shape, dtype = note["shape"], getattr(torch, note["dtype"])
    return torch.from_file(str(binary), size=math.prod(shape), dtype=dtype).view(shape)


def _noted(binary: Path) -> dict[str, Any] | None:
    """Of what was computed: bytes a row, shape, type, and rows and checksum of every block."""
    note = binary.with_suffix(".json")
    try:
        kept = read_sealed_json(note) if note.is_file() and binary.is_file() else {}
        return kept if "blocks" in kept else None  # not that of an earlier version
    except DamagedError as error:
        log.warning("%s The features are computed again.", error)
        return None


def _good_blocks(binary: Path, note: Mapping[str, Any]) -> int:
    """How many of the file's leading blocks match their checksum."""
    first, bytes_there = 0, binary.stat().st_size if binary.is_file() else 0
    for good, (rows, checksum) in enumerate(note["blocks"]):
        size = rows * note["row_bytes"]
        if first + size > bytes_there:
            return good
        if sum_of(np.memmap(binary, np.uint8, "r", first, (size,))) != checksum:
            return good
        first += size
    return len(note["blocks"])


@torch.inference_mode()
def _extract_view(
    path: Path,
    frozen: Classifier,
    data: Dataset,
    view: str,
    precision: Precision,
    device: torch.device,
) -> None:
    """Append block after block to `path`, after the good ones that are there; note each."""
    note = _noted(path) or {"row_bytes": 0, "blocks": []}
    blocks = note["blocks"][: _good_blocks(path, note)]
    first, total = sum(rows for rows, _ in blocks), len(data.labels)
    log.info("computing the frozen part's outputs for %d images once (%s)", total - first, view)
    frozen.eval()
    _keep(path, first * note["row_bytes"])
    bar = tqdm(total=total, initial=first, desc=f"features ({view})", unit="image", disable=None)
    with bar, path.open("rb+") as file:
        for rows in torch.arange(first, total).split(ROWS_PER_BLOCK):
            values = torch.cat(list(_outputs(frozen, data, rows, view, precision, device, bar)))
            data_bytes = values.view(torch.uint8).numpy()
            size = (total - int(rows[0])) * values[0].nbytes
            require_room(path, size)
            with explaining_full_disk(path, size):
                write_at(file.fileno(), data_bytes, int(rows[0]) * values[0].nbytes)
                os.fsync(file.fileno())
            blocks.append((len(rows), sum_of(data_bytes)))
            note = {"row_bytes": values[0].nbytes, "shape": [total, *values.shape[1:]]}
            note |= {"dtype": str(values.dtype).removeprefix("torch."), "blocks": blocks}
            write_sealed_json(path.with_suffix(".json"), note)


def _outputs(
    frozen: Classifier,
    data: Dataset,
    rows: Tensor,
    view: str,
    precision: Precision,
    device: torch.device,
    bar: tqdm,
) -> Iterator[Tensor]:
    """What `frozen` gives for the images at `rows`, a batch at a time, on the CPU."""
    for indices in rows.split(BATCH[device.type]):
        images = center_crop(data.pixels, indices, data.crop).to(device)
        with precision.autocast(device):
            yield frozen(VIEWS[view](images)).cpu().contiguous()
        bar.update(len(indices))


def _keep(path: Path, size: int) -> None:
    """Cut the file to its good bytes, as another file: a process may have mapped the old one."""
    with replacing(path, size) as fresh:
        good = path.read_bytes()[:size] if path.is_file() else b""
        fresh.write_bytes(good)
