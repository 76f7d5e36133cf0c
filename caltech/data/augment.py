"""Augmentation on the device, a whole batch at a time, from images kept decoded as uint8.

Each option is called with the pixels (N, S, S, 3) of all images, the indices (n,) of a batch and
the crop's size, and gives uint8 images (n, 3, size, size) in channels_last order. Random numbers
come from torch's global CPU generator, which a run seeds anew for every epoch.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

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
        images = center_crop(pixels, indices, size)
        drawn = self.draw(len(indices)).to(pixels.device)
        for number, name in enumerate(self.train):
            if name != "plain":
                chosen = drawn == number
                images[chosen] = VIEWS[name](images[chosen])
        return images


class FlipCrop:
    """A crop at a random place, mirrored with probability one half.

    Args:
        test: names of the views whose logits are averaged in validation and test.
    """

    def __init__(self, test: Sequence[str]) -> None:
        self.test = _known_views(test)

    def __call__(self, pixels: Tensor, indices: Tensor, size: int) -> Tensor:
        room = pixels.shape[1] - size + 1
        tops, lefts = torch.randint(room, (2, len(indices))).tolist()
        images = _crop(pixels, indices, tops, lefts, size)
        chosen = (torch.rand(len(indices)) < 0.5).to(pixels.device)
        images[chosen] = images[chosen].flip(-1)
        return images


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
        groups = [self.augment(group) for group in images.split(self.GROUP)]
        return torch.cat(groups).contiguous(memory_format=torch.channels_last)


def center_crop(pixels: Tensor, indices: Tensor, size: int) -> Tensor:
    """The centre crops (n, 3, size, size), pixel-equal to torchvision's CenterCrop."""
    start = round((pixels.shape[1] - size) / 2)
    starts = [start] * len(indices)
    return _crop(pixels, indices, starts, starts, size)


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


def _crop(pixels: Tensor, indices: Tensor, tops: list[int], lefts: list[int], size: int) -> Tensor:
    """Stacked slices: on a CPU four times as fast as one indexing operation over the batch."""
    if isinstance(pixels, Decoded):
        pixels, indices = pixels.at(indices.tolist()), torch.arange(len(indices))
    places = zip(indices.tolist(), tops, lefts, strict=True)
    crops = [pixels[i, top : top + size, left : left + size] for i, top, left in places]
    return torch.stack(crops).permute(0, 3, 1, 2)
