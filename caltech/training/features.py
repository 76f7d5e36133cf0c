"""Where batches come from: crops of the pixels, or what a frozen part makes of them, once or anew.

With the leading stages frozen (no gradient, eval mode) and finitely many views of each image, the
trained part's input for an image and view never changes: not between epochs, and not between the
trials of a sweep. It is computed for all images, kept on disk, and every run trains on that.
"""

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from caltech import files, versions
from caltech.amounts import size_of
from caltech.cache import CachedArray
from caltech.data.augment import VIEWS, Views, center_crop, rows_of, sent
from caltech.data.augmentation.mix import Unmixed
from caltech.data.dataset import Dataset
from caltech.data.pixels import keep_pace
from caltech.errors import InputError
from caltech.models.freeze import digest, folded
from caltech.training.device import each
from caltech.training.memory import InParts, pixels_on, placed_views
from caltech.training.precision import Precision

log = logging.getLogger(__name__)

# Images through the frozen part at a time, whatever a run's batch size. Small batches stay in a
# CPU's cache: 16 was 1.18 times as fast as 64 (tests/bench/tried.py). A GPU wants large ones.
BATCH = {"cpu": 16, "cuda": 256, "mps": 256}
ROWS_PER_BLOCK = 1024  # a multiple of both, so that a block's values do not depend on the others
BLOCK_BYTES = 1 << 29  # of a block in memory, at most, as long as it is a batch


class Inputs(Protocol):
    """What the loop asks of either."""

    def training(self, indices: Tensor) -> Tensor: ...

    def evaluation(self, indices: Tensor) -> list[Tensor]: ...


class Images:
    """What a network is fed with: crops of the pixels, augmented in training."""

    def __init__(self, data: Dataset, augment: Callable, device: torch.device) -> None:
        self.pixels = pixels_on(device, data)
        self.crop = data.crop
        self.augment = augment

    def training(self, indices: Tensor) -> Tensor:
        """Augmented crops (n, 3, crop, crop) uint8 of the images at `indices` (n,)."""
        return self.augment(self.pixels, indices, self.crop)

    def evaluation(self, indices: Tensor) -> list[Tensor]:
        """Their centre crops, once for each view whose logits are averaged."""
        images = center_crop(self.pixels, indices, self.crop)
        return [VIEWS[name](images) for name in self.augment.test]


class Features:
    """What a trained part is fed with when the stages before it are frozen and cached."""

    def __init__(self, views: Mapping[str, Tensor], augment: Views, device: torch.device) -> None:
        self.views = placed_views(views, device)  # each (N, ...)
        self.augment = augment

    def training(self, indices: Tensor) -> Tensor:
        """Features of the views drawn for the images at `indices` (n,), as augment.Views draws."""
        drawn, (first, *others) = self.augment.draw(len(indices)), self.augment.train
        if self._stay_here(indices):
            return self._of_views([self.augment.train[n] for n in drawn.tolist()], indices)
        drawn = sent(drawn, indices.device)
        features = self.views[first].index_select(0, indices)
        for number, name in enumerate(others, start=1):
            is_drawn = (drawn == number).view(-1, *[1] * (features.ndim - 1))
            features = torch.where(is_drawn, self.views[name].index_select(0, indices), features)
        return features

    def evaluation(self, indices: Tensor) -> list[Tensor]:
        """Their features in each view whose logits are averaged."""
        if self._stay_here(indices):
            return [self._of_views([name] * len(indices), indices) for name in self.augment.test]
        return [self.views[name].index_select(0, indices) for name in self.augment.test]

    def _stay_here(self, indices: Tensor) -> bool:
        return next(iter(self.views.values())).device != indices.device

    def _of_views(self, names: Sequence[str], indices: Tensor) -> Tensor:
        """From the host, of each image its view of that name."""
        rows = zip(names, rows_of(indices), strict=True)
        features = sent(torch.stack([self.views[name][row] for name, row in rows]), indices.device)
        keep_pace()
        return features


class Outputs:
    """Outputs of the frozen part, computed for every batch, of any augmentation. Where Features has
    them from the cache, these are equal up to rounding."""

    def __init__(self, frozen: nn.Module, images: Images, precision: Precision) -> None:
        self.images = images
        self.of = InParts(partial(_output_of, frozen.eval(), precision))  # and no circle with self

    def training(self, indices: Tensor) -> Tensor:
        """Of the frozen part, for the augmented images at `indices` (n,)."""
        return self.of(self.images.training(indices))

    def evaluation(self, indices: Tensor) -> list[Tensor]:
        """Of the frozen part, in each view whose logits are averaged."""
        return [self.of(view) for view in self.images.evaluation(indices)]


@torch.no_grad()
def _output_of(frozen: nn.Module, precision: Precision, images: Tensor) -> Tensor:
    with precision.autocast(images.device):
        return frozen(images)


def computed_apart(
    frozen: nn.Sequential, augment: Callable, mix: Unmixed, option: str, size: int
) -> nn.Module | None:
    """What the trained part is fed by, where it is fed with outputs and not with images; or None.

    It is where outputs are computed once, and also where they are not, if what the trained part is
    given is mixed: a run is the same with and without a cache.

    Args:
        frozen: the leading stages that are; none if it is empty.
        option: `features` as typed; "folded" has other bits, and so another name in the cache.
        size: of the images, in pixels.

    Raises:
        InputError: outputs are computed once, and the mix is of images; or they cannot be folded.
    """
    if len(frozen) == 0 or not _are_kept(augment, option):
        if option == "folded":
            log.warning(
                "features=folded does nothing here: nothing is computed once. It needs a frozen "
                "backbone (freeze=backbone), and augment=none, flip or flip_both."
            )
        return frozen if len(frozen) > 0 and mix.mixes == "inputs" else None
    if mix.mixes == "images":
        raise InputError(
            "This mix is of images, and the frozen part's outputs are computed once, of whole "
            "ones. Type mix=mixup, which mixes these outputs; features=off, which computes them in "
            "every epoch, of mixed images; or freeze=none."
        )
    if option != "folded":
        return frozen
    constant = folded(frozen, size)
    if constant is frozen:
        log.warning("features=folded does nothing here: no BatchNorm follows a convolution.")
    return constant


def inputs_of(
    frozen: nn.Module | None,
    data: Dataset,
    augment: Callable,
    precision: Precision,
    device: torch.device,
    option: str,
    cache: Path,
    code: str = "",
) -> Inputs:
    """What batches come from: `frozen` is of computed_apart, `code` of config.code_of."""
    if frozen is None:
        return Images(data, augment, device)
    if _are_kept(augment, option):
        return extract(frozen, data, augment, precision, device, cache, code)
    return Outputs(frozen, Images(data, augment, device), precision)


def way(apart: nn.Module | None, augment: Callable, option: str) -> str:
    """By which option of `features` outputs are computed in truth; they differ by rounding."""
    return option if apart is not None and _are_kept(augment, option) else "off"


def _are_kept(augment: Callable, option: str) -> bool:
    return isinstance(augment, Views) and option != "off"


def extract(
    frozen: nn.Module,
    data: Dataset,
    augment: Views,
    precision: Precision,
    device: torch.device,
    cache: Path,
    code: str = "",
) -> Features:
    """Outputs of `frozen` for every image and view, from the cache or computed into it.

    The name in the cache is a hash of all that decides the values, so another data set, model,
    weight, boundary, crop, view, type or version of a library is another name, and nothing stale is
    ever read.

    The room they take on the disk is said, and asked for, before anything is computed.

    Raises:
        DiskError: there is no room for the features.
    """
    common = (
        data.content,
        str((len(data.labels), data.side, data.side, 3)),
        str(data.crop),
        digest([frozen]),
        str(frozen),
        precision.on(device),
        device.type,
        versions.name(versions.decoding() | versions.computing(device)),
        *filter(None, [code]),  # what a plugin's forward does by is in no weight
    )
    arrays = {}
    for view in dict.fromkeys((*augment.train, *augment.test)):
        key = hashlib.sha256("\n".join((*common, view)).encode()).hexdigest()[:32]
        arrays[view] = CachedArray(
            path=cache / "features" / f"{key}.bin",
            rows=len(data.labels),
            block_rows=ROWS_PER_BLOCK,
            compute=partial(_outputs, frozen, data, view, precision, device),
            doing=f"computing the frozen part's outputs for %s once ({view})",
        )
    if not all(array.is_complete() for array in arrays.values()):
        # Found by running it on an image, which a warm trial need not wait for.
        arrays = _sized(arrays, _row_bytes(frozen, data, precision, device), BATCH[device.type])
    views = {view: array.read() for view, array in arrays.items()}
    return Features(views, augment, device)


def _sized(arrays: Mapping[str, CachedArray], row_bytes: int, batch: int) -> dict[str, CachedArray]:
    """The same, told how large a row is, once there is room for what is missing."""
    missing = [array for array in arrays.values() if not array.path.is_file()]
    if missing:
        files.require_room(missing[0].path, sum(array.rows for array in missing) * row_bytes)
    block_rows = max(batch, min(ROWS_PER_BLOCK, BLOCK_BYTES // row_bytes // batch * batch))
    return {
        view: replace(
            array,
            block_rows=block_rows,
            row_bytes=row_bytes,
            doing=f"{array.doing[:-1]}, {size_of(row_bytes * array.rows)})",
        )
        for view, array in arrays.items()
    }


@torch.inference_mode()
def _row_bytes(frozen: nn.Module, data: Dataset, precision: Precision, device: torch.device) -> int:
    """Bytes of what `frozen` gives for an image."""
    image = torch.zeros(1, 3, data.crop, data.crop, dtype=torch.uint8, device=device)
    with precision.autocast(device):
        return frozen.eval()(image).nbytes


@torch.inference_mode()
def _outputs(
    frozen: nn.Module,
    data: Dataset,
    view: str,
    precision: Precision,
    device: torch.device,
    rows: range,
    done: Callable[[int], object],
) -> Tensor:
    """What `frozen` gives for the images at `rows`, computed a batch at a time, on the CPU."""
    frozen.eval()
    pixels = data.pixels

    @torch.inference_mode()
    def output(indices: Tensor) -> Tensor:
        images = center_crop(pixels, indices, data.crop).to(device)
        with precision.autocast(device):
            return frozen(VIEWS[view](images)).cpu().contiguous()

    # A hidden layer's product of few rows has other bits by one thread than by two.
    is_split = device.type == "cpu" and not hasattr(frozen, "hidden")
    outputs = []
    batches = torch.arange(rows.start, rows.stop).split(BATCH[device.type])
    for values in (each if is_split else map)(InParts(output), batches):
        outputs.append(values)
        done(len(values))
    return torch.cat(outputs)
