"""What fits into a device's memory: what stays outside, and what is done or said if it does not."""

import gc
import logging
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor

from caltech.amounts import counted, size_of
from caltech.data.dataset import Dataset
from caltech.data.pixels import Decoded
from caltech.errors import OutOfMemoryError

log = logging.getLogger(__name__)

Found = TypeVar("Found")
# How torch says it on a CPU (on Linux, on Windows), on CUDA, by cuBLAS.
OUT_OF_MEMORY = "allocate memory|not enough memory|out of memory|OutOfMemory|alloc_failed"
# cuDNN's, where it has no memory or no algorithm: half as many images tell which.
UNCLEAR = "unable to find an engine"
SHARE = 0.25  # of a GPU's memory that pixels may fill, or features


# Of a process's last job. The next has most often the same, and need not verify and send them.
_pixels: dict[tuple, Tensor] = {}


def pixels_on(device: torch.device, data: Dataset) -> Tensor:
    """All images (N, S, S, 3) uint8 for the device, once for all jobs of a process that share them.

    Those of another data set are let go before.
    """
    identity = (data.content, data.side, data.name, device)
    if identity not in _pixels:
        _pixels.clear()
        _pixels[identity] = placed(data.pixels, device)
    return _pixels[identity]


def placed(pixels: Tensor | Decoded, device: torch.device) -> Tensor | Decoded:
    """All pixels on the device, or on the host if they would fill more than a quarter of a GPU.

    A batch of those is pinned and copied while the device computes the one before.
    """
    if isinstance(pixels, Decoded) or not _stays("pixels", pixels.nbytes, device):
        return pixels.to(device)
    return Decoded(lambda row: pixels[row].numpy(), len(pixels), pixels.shape[1], device)


def placed_views(views: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Features (N, ...) of each view on the device, or all of them on the host likewise."""
    size = sum(values.nbytes for values in views.values())
    where = torch.device("cpu") if _stays("features", size, device) else device
    return {name: values.to(where) for name, values in views.items()}


def _stays(what: str, size: int, device: torch.device) -> bool:
    if device.type != "cuda":
        return False
    is_large = size > torch.cuda.get_device_properties(device).total_memory * SHARE
    if is_large:
        log.info(
            "the %s take %s, more than a quarter of the GPU's memory: they stay on the host",
            what, size_of(size),
        )  # fmt: skip
    return is_large


class InParts:
    """What `call` gives for items (n, ...), as many at a time as there is room for.

    For calls that take nothing from one item to another: they are equal up to rounding. How many
    there is room for is found out once, by halves.
    """

    def __init__(self, call: Callable[[Tensor], Tensor]) -> None:
        self.call = call
        self.most: int | None = None

    def __call__(self, items: Tensor) -> Tensor:
        """Of all items.

        Raises:
            OutOfMemoryError: there is no room for one.
        """
        while (found := self._tried(items)) is None:
            _release()  # not before here: an error holds on to all that was there
        return found

    def _tried(self, items: Tensor) -> Tensor | None:
        size = min(self.most or len(items), len(items))
        try:
            if size == len(items):
                return self.call(items)
            return torch.cat([self.call(part) for part in items.split(size)])
        except (MemoryError, RuntimeError) as error:
            is_clear = _is_of_memory(error)
            if not is_clear and (size == 1 or UNCLEAR not in str(error)):
                raise
        if size == 1:
            raise OutOfMemoryError(
                "The network does not fit into memory with one image. Type a smaller model=, or "
                "device=cpu."
            )
        self.most = (size + 1) // 2
        return None


def within_memory(
    call: Callable[[int], Found], images: int, what: str, reset: Callable[[], object] = bool
) -> Found:
    """What `call` gives for so many images at a time, if there is memory for it.

    Args:
        reset: forgets what a call that ended halfway left, before another is tried.

    Raises:
        OutOfMemoryError: there is none; names the largest half, quarter, ... for which there is,
            found by calling it for these.
    """
    try:
        return call(images)
    except (MemoryError, RuntimeError) as error:
        if not _is_of_memory(error) and UNCLEAR not in str(error):
            raise
        unclear = None if _is_of_memory(error) else f"{type(error).__name__}: {error}"
    # Not before here: an error holds on to all that was there when it was raised.
    fitting = images // 2
    while fitting and not _fits(call, fitting, reset):
        fitting //= 2
    if unclear and not fitting:  # it was not for want of memory
        raise RuntimeError(unclear)
    advice = (
        f"As was tried, {fitting} would. Type micro_batch={fitting}: the batch_size stays, and the "
        "gradients of its parts are summed."
        if fitting
        else "One does not fit, either. Type a smaller model=, or freeze= with more of it frozen."
    )
    fits = "does" if images == 1 else "do"
    raise OutOfMemoryError(
        f"{what}: {counted(images, 'image')} at a time {fits} not fit into memory. {advice}"
    )


def _fits(call: Callable[[int], Any], images: int, reset: Callable[[], object]) -> bool:
    reset()
    gc.collect()
    _release()
    try:
        call(images)
    except (MemoryError, RuntimeError, ValueError) as error:
        is_unclear = UNCLEAR in str(error)
        if isinstance(error, ValueError) or is_unclear or _is_of_memory(error):
            return False  # BatchNorm cannot be trained on a single image
        raise
    return True


def _is_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or bool(re.search(OUT_OF_MEMORY, str(error), re.I))


def _release() -> None:
    """Give back what torch keeps for later; nothing, where no GPU is used."""
    torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
