"""A recipe of random changes, each of which has a strength and is not there at zero."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from caltech.amounts import is_number
from caltech.data.augment import FlipCrop, Unwaited
from caltech.data.augmentation.rectangles import draw, erased, resized
from caltech.errors import InputError

GROUP = 8  # images that share the draws of RandAugment and of the colour jitter, as of Trivial
MOST_OPS, MOST_MAGNITUDE = 10, 30
ERASED_AREA, ERASED_RATIO = (0.02, 0.33), (0.3, 3.3)  # Zhong et al., in torchvision's numbers


class Recipe:
    """A random crop, mirrored half of the time, then RandAugment, colour jitter and erasing.

    RandAugment and the jitter are drawn for each group of eight images rather than for each, so
    that the device works on groups; a batch is a random sample, so groups are too.

    Sources: the resized crop is that of Szegedy et al., CVPR 2015; RandAugment of Cubuk et al.,
    CVPR Workshops 2020, in torchvision's space; erasing of Zhong et al., AAAI 2020, with random
    pixels, a rectangle of 2 to 33 % of the image.

    Args:
        test: names of the views whose logits are averaged in validation and test.
        num_ops: operations of RandAugment, one after another, from 0 for none to 10.
        magnitude: their strength, a whole number from 0 to 30.
        brightness, contrast, saturation: a factor from 1 - x to 1 + x is drawn for each.
        hue: a turn by at most this share of the circle of colours, at most 0.5.
        erase: share of the images in which a rectangle is erased.
        scale: least and most area of a crop as a share of the image, which is then resized; null
            crops without resizing, as FlipCrop does.
        ratio: least and most of width to height of such a crop.

    Raises:
        InputError: a strength is out of its range.
    """

    def __init__(
        self,
        test: Sequence[str],
        num_ops: int,
        magnitude: int,
        brightness: float,
        contrast: float,
        saturation: float,
        hue: float,
        erase: float,
        scale: Sequence[float] | None,
        ratio: Sequence[float],
    ) -> None:
        strengths = (brightness, contrast, saturation, hue)
        _require_whole("num_ops", num_ops, MOST_OPS, "2")
        _require_whole("magnitude", magnitude, MOST_MAGNITUDE, "9")
        for name, value in zip(("brightness", "contrast", "saturation"), strengths, strict=False):
            require_number(f"augment.{name}", value, lambda v: 0 <= v <= 1, "from 0 to 1", "0.4")
        require_number("augment.hue", hue, lambda v: 0 <= v <= 0.5, "from 0 to 0.5", "0.1")
        require_number("augment.erase", erase, lambda v: 0 <= v <= 1, "a share from 0 to 1", "0.25")
        if scale is not None:
            _require_range("scale", scale, 0.01, 1, "area, shares of the image's", "[0.08,1]")
        _require_range("ratio", ratio, 0.1, 10, "width to height", "[0.75,1.3333]")
        self.flip_crop = FlipCrop(test)
        self.test = self.flip_crop.test
        self.scale = None if scale is None else tuple(scale)
        self.ratio, self.erase = tuple(ratio), erase
        self.changes = list(_changes(num_ops, magnitude, strengths))

    def __call__(self, pixels: Tensor, indices: Tensor, size: int) -> Tensor:
        images = self._cropped(pixels, indices, size)
        for change in self.changes:
            with Unwaited():
                images = torch.cat([change(group) for group in images.split(GROUP)])
        if self.erase > 0:
            rectangles, _ = draw(len(images), size, ERASED_AREA, ERASED_RATIO)
            images = erased(images, rectangles * (torch.rand(len(images)) < self.erase))
        return images.contiguous(memory_format=torch.channels_last)

    def _cropped(self, pixels: Tensor, indices: Tensor, size: int) -> Tensor:
        if self.scale is None:
            return self.flip_crop(pixels, indices, size)
        side = pixels.shape[1]
        rectangles, found = draw(len(indices), side, self.scale, self.ratio)
        whole = _whole(side, self.ratio)[:, None]
        mirrored = torch.rand(len(indices)) < 0.5
        return resized(pixels, indices, torch.where(found, rectangles, whole), mirrored, size)


def _changes(
    num_ops: int, magnitude: int, strengths: Sequence[float]
) -> Iterable[Callable[[Tensor], Tensor]]:
    """Of a group of images (n, 3, S, S), those that have a strength."""
    from torchvision.transforms import v2

    if num_ops > 0:
        yield v2.RandAugment(int(num_ops), int(magnitude))
    if any(strengths):
        yield v2.ColorJitter(*strengths)


def _whole(side: int, ratio: Sequence[float]) -> Tensor:
    """The largest rectangle (4,) of a ratio that is allowed, in the middle, as torchvision's."""
    least, most = ratio
    height, width = side, side
    if least > 1:
        height = round(side / least)
    elif most < 1:
        width = round(side * most)
    return torch.tensor([(side - height) // 2, (side - width) // 2, height, width])


def require_number(
    name: str, value: object, allowed: Callable[[float], bool], rule: str, example: str
) -> None:
    """Raise InputError unless the value is a number that is allowed."""
    if not (is_number(value) and allowed(value)):
        raise InputError(f"{name}={value} is not allowed: it is {rule}. Type {name}={example}.")


def _require_whole(name: str, value: object, most: int, example: str) -> None:
    rule = f"a whole number from 0 to {most}"
    is_whole = lambda v: 0 <= v <= most and float(v).is_integer()  # noqa: E731
    require_number(f"augment.{name}", value, is_whole, rule, example)


def _require_range(
    name: str, value: object, lowest: float, highest: float, what: str, example: str
) -> None:
    try:
        least, most = value  # type: ignore[misc]
        is_range = lowest <= least <= most <= highest
    except (TypeError, ValueError):
        is_range = False
    if not is_range:
        raise InputError(
            f"augment.{name}={value} is not allowed: it is the least and the most {what}, from "
            f"{lowest} to {highest}. Type augment.{name}={example}."
        )
