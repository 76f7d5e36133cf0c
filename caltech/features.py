"""Frozen-feature cache: what a frozen part gives out is a constant, so it is computed once.

With the leading stages frozen (no gradient, eval mode) and finitely many views of each image, the
trained part's input for an image and view never changes: not between epochs, and not between the
trials of a sweep. It is computed for all images, kept on disk, and every run trains on that.
"""

import hashlib
import json
import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor
from tqdm import tqdm

from caltech.augment import VIEWS, Views, center_crop
from caltech.data import Dataset
from caltech.freeze import digest
from caltech.model import Classifier
from caltech.pixels import replacing
from caltech.precision import Precision

log = logging.getLogger(__name__)

# Images through the frozen part at a time, whatever a run's batch size. Small batches stay in a
# CPU's cache: 16 was 1.18 times as fast as 64 (tests/bench/tried.py). A GPU wants large ones.
BATCH = {"cpu": 16, "cuda": 256}
ROWS_PER_NOTE = 1024  # how often progress is noted, so that an interrupted pass goes on


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
    weight, boundary, crop, view or type is another name, and nothing stale is ever read.
    """
    common = (
        data.content,
        str(tuple(data.pixels.shape)),
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
    binary = path.with_suffix(".bin")
    if _good_rows(binary)[0] < len(data.labels):
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            # Another process may have computed them while this one waited.
            if _good_rows(binary)[0] < len(data.labels):
                _extract_view(binary, frozen, data, view, precision, device)
    kept = _good_rows(binary)[1]
    shape, dtype = kept["shape"], getattr(torch, kept["dtype"])
    return torch.from_file(str(binary), size=math.prod(shape), dtype=dtype).view(shape)


def _good_rows(binary: Path) -> tuple[int, dict[str, Any]]:
    """How many rows of the file are complete by its note and by its size, and the note."""
    note = binary.with_suffix(".json")
    if not (note.is_file() and binary.is_file()):
        return 0, {"row_bytes": 0}
    kept = json.loads(note.read_text())
    return min(kept["rows"], binary.stat().st_size // kept["row_bytes"]), kept


@torch.inference_mode()
def _extract_view(
    path: Path,
    frozen: Classifier,
    data: Dataset,
    view: str,
    precision: Precision,
    device: torch.device,
) -> None:
    """Append batch after batch to `path`; the note says how many rows of it are good."""
    total, batch = len(data.labels), BATCH[device.type]
    rows, kept = _good_rows(path)
    log.info("computing the frozen part's outputs for %d images once (%s)", total - rows, view)
    frozen.eval()
    with (
        path.open("ab") as file,
        tqdm(
            total=total, initial=rows, desc=f"features ({view})", unit="image", disable=None
        ) as bar,
    ):
        file.truncate(rows * kept["row_bytes"])
        for indices in torch.arange(rows, total).split(batch):
            images = center_crop(data.pixels, indices, data.crop).to(device)
            with precision.autocast(device):
                values = frozen(VIEWS[view](images)).cpu().contiguous()
            file.write(values.view(torch.uint8).numpy())
            rows += len(indices)
            bar.update(len(indices))
            if rows == total or rows % ROWS_PER_NOTE < batch:
                file.flush()
                os.fsync(file.fileno())
                _note(path.with_suffix(".json"), rows, total, values)


def _note(note: Path, rows: int, total: int, values: Tensor) -> None:
    row_bytes = values[0].numel() * values.element_size()
    shape, dtype = [total, *values.shape[1:]], str(values.dtype).removeprefix("torch.")
    with replacing(note) as partial:
        partial.write_text(
            json.dumps({"rows": rows, "row_bytes": row_bytes, "shape": shape, "dtype": dtype})
        )
