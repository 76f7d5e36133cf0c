"""Augmentation on the device, a whole batch at a time, from images kept decoded as uint8.

Each option is called with the pixels (N, S, S, 3) of all images, the indices (n,) of a batch on
the same device and the crop's size, and gives uint8 images (n, 3, size, size) in channels_last
order. Random numbers come from torch's global CPU generator, which a run seeds anew for every
epoch, so that a GPU gets the same crops. None waits for the device.
"""

import weakref
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from caltech.data.pixels import Decoded
from caltech.errors import InputError

VIEWS = {
    "plain": lambda images: images,
    "mirrored": lambda images: images.flip(-1),
}


class Views:
    """The centre crop in one or more fixed views, one drawn per image and epoch.

    Since the views are finitely many, a frozen backbone's outputs for them can be computed
    once (features.py); the draws are the same with and without that.

    Args:
        train: names of the views drawn from in training.
        test: names of the views whose logits are averaged in validation and test.
    """

    def __init__(self, train: Sequence[str], test: Sequence[str]) -> None:
        self.train = _known_views(train)
        self.test = _known_views(test)

    def draw(self, count: int) -> Tensor:
        """Which training view each of `count` images gets: (count,) int64."""
        return torch.randint(len(self.train), (count,))

    def __call__(self, pixels: Tensor, indices: Tensor, size: int) -> Tensor:
        is_mirrored = torch.tensor([name == "mirrored" for name in self.train])
        return _crop(
            pixels,
            indices,
            _centre(pixels, indices, size),
            is_mirrored[self.draw(len(indices))],
            size,
        )


class FlipCrop:
    """A crop at a random place, mirrored with probability one half.

    Args:
        test: names of the views whose logits are averaged in validation and test.
    """

    def __init__(self, test: Sequence[str]) -> None:
        self.test = _known_views(test)

    def __call__(self, pixels: Tensor, indices: Tensor, size: int) -> Tensor:
        room = pixels.shape[1] - size + 1
        corners = torch.randint(room, (2, len(indices)))
        return _crop(pixels, indices, corners, torch.rand(len(indices)) < 0.5, size)


class Trivial:
    """FlipCrop, then TrivialAugment (Mueller and Hutter, ICCV 2021; torchvision's Wide space).

    One operation and strength is drawn for each group of eight images rather than for each
    image, so that the device works on groups; a batch is a random sample, so groups are too.
    """

    GROUP = 8

    def __init__(self, test: Sequence[str]) -> None:
        from torchvision.transforms.v2 import TrivialAugmentWide

        self.test = _known_views(test)
        self.flip_crop = FlipCrop(test)
        self.augment = TrivialAugmentWide()

    def __call__(self, pixels: Tensor, indices: Tensor, size: int) -> Tensor:
        images = self.flip_crop(pixels, indices, size)
        with Unwaited():
            groups = [self.augment(group) for group in images.split(self.GROUP)]
        return torch.cat(groups).contiguous(memory_format=torch.channels_last)


def center_crop(pixels: Tensor, indices: Tensor, size: int) -> Tensor:
    """The centre crops (n, 3, size, size), pixel-equal to torchvision's CenterCrop."""
    plain = torch.zeros(len(indices), dtype=torch.bool)
    return _crop(pixels, indices, _centre(pixels, indices, size), plain, size)


def held(pixels: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels as a tensor and where the images are in it; those not kept are decoded now."""
    if isinstance(pixels, Decoded):
        pixels = pixels.at(rows_of(indices))
        indices = torch.arange(len(pixels), device=pixels.device)
    return pixels, indices


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """To the device, without waiting for it: a GPU copies from pinned memory in its own time."""
    if device.type != "cuda":
        return tensor.to(device)
    there = tensor.pin_memory().to(device, non_blocking=True)
    if tensor.dtype == torch.int64 and tensor.ndim == 1:
        _remember(tensor, there)
    return there


class Unwaited(TorchFunctionMode):
    """Where torchvision's turns, shears and sharpness send a few numbers to a GPU at each call.

    torch.tensor(..., device=...) waits until the device has done all that it was told.
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        where = (kwargs or {}).get("device")
        if function is not torch.tensor or where is None:
            return function(*args, **kwargs or {})
        return sent(torch.tensor(*args, **kwargs | {"device": "cpu"}), torch.device(where))


# What was sent, by its address on the device, for as long as it is there.
_sent: dict[int, tuple[weakref.ref, Tensor]] = {}


def _remember(here: Tensor, there: Tensor) -> None:
    address = there.data_ptr()
    _sent[address] = weakref.ref(there, lambda _: _sent.pop(address, None)), here


def rows_of(indices: Tensor) -> list[int]:
    """Indices (n,) on a device as numbers here.

    Of a part of what was sent (the order of an epoch, the images of a split) nothing is read back,
    which would wait until the device has done all that it was told.
    """
    there, here = _sent.get(indices.untyped_storage().data_ptr(), (lambda: None, None))
    if there() is None or not indices.is_contiguous() or indices.dtype != torch.int64:
        return indices.tolist()
    first = indices.storage_offset()
    return here[first : first + len(indices)].tolist()


def _known_views(names: Sequence[str]) -> tuple[str, ...]:
    for name in names:
        if name not in VIEWS:
            raise InputError(
                f"augment has the view '{name}': views are {', '.join(VIEWS)}. "
                "Type augment=none or augment=flip."
            )
    if not names:
        raise InputError("augment.train and augment.test need a view each. Type augment=none.")
    return tuple(names)


def _centre(pixels: Tensor, indices: Tensor, size: int) -> Tensor:
    return torch.full((2, len(indices)), round((pixels.shape[1] - size) / 2))


def _crop(pixels: Tensor, indices: Tensor, corners: Tensor, mirrored: Tensor, size: int) -> Tensor:
    """Crops (n, 3, size, size) at `corners` (2, n), tops and lefts, `mirrored` (n,) or not."""
    pixels, indices = held(pixels, indices)
    of_device = _slices if pixels.device.type == "cpu" else _gathered
    return of_device(pixels, indices, corners, mirrored, size)


def _slices(
    pixels: Tensor, indices: Tensor, corners: Tensor, mirrored: Tensor, size: int
) -> Tensor:
    """On a CPU five times as fast as the other; a GPU would make a call for each image."""

    def crop(image: int, top: int, left: int, is_mirrored: bool) -> Tensor:
        found = pixels[image, top : top + size, left : left + size]
        return found.flip(1) if is_mirrored else found

    places = zip(indices.tolist(), *corners.tolist(), mirrored.tolist(), strict=True)
    return torch.stack([crop(*place) for place in places]).permute(0, 3, 1, 2)


def _gathered(
    pixels: Tensor, indices: Tensor, corners: Tensor, mirrored: Tensor, size: int
) -> Tensor:
    """One indexing operation."""
    tops, lefts, is_mirrored = sent(torch.cat((corners, mirrored[None])), pixels.device)[..., None]
    steps = torch.arange(size, device=pixels.device)
    rows, columns = tops + steps, lefts + torch.where(is_mirrored > 0, size - 1 - steps, steps)
    return pixels[indices[:, None, None], rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)
