"""Rectangles drawn for a whole batch of images, and what is done with them on the device."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from caltech.data.augment import held, sent

TRIES = 10  # draws of an area and a ratio, until a rectangle is inside; as torchvision's


def draw(
    count: int, side: int, scale: Sequence[float], ratio: Sequence[float]
) -> tuple[Tensor, Tensor]:
    """Rectangles inside of squares, as torchvision's RandomResizedCrop draws one.

    Args:
        side: of the squares, in pixels.
        scale: least and most of a square's area, uniformly.
        ratio: least and most of width to height, uniformly in its logarithm.

    Returns:
        Tops, lefts, heights, widths (4, count) int64, and whether one was found (count,) bool in
        TRIES draws; those that were not are 0.
    """
    areas = side**2 * torch.empty(TRIES, count).uniform_(*scale)
    ratios = torch.empty(TRIES, count).uniform_(*map(math.log, ratio)).exp()
    heights, widths = (areas / ratios).sqrt().round(), (areas * ratios).sqrt().round()
    fits = (heights >= 1) & (heights <= side) & (widths >= 1) & (widths <= side)
    first = fits.int().argmax(0, keepdim=True)
    sides = torch.cat((heights.gather(0, first), widths.gather(0, first)))
    room = side - sides
    # A number just below 1, times the places that there are, may be rounded up to their number.
    corners = torch.minimum((torch.rand(2, count) * (room + 1)).floor(), room)
    found = fits.any(0)
    return (torch.cat((corners, sides)) * found).long(), found


def resized(
    pixels: Tensor, indices: Tensor, rectangles: Tensor, mirrored: Tensor, size: int
) -> Tensor:
    """The images' `rectangles` (4, n) in size x size, `mirrored` (n,) or not, bilinearly with
    antialiasing: uint8 (n, 3, size, size) in channels_last order.

    Args:
        pixels: (N, S, S, 3) uint8.
        indices: (n,) into them, on their device; the rectangles are on the CPU.
    """
    pixels, indices = held(pixels, indices)
    of_device = _one_by_one if pixels.device.type == "cpu" else _by_products
    return of_device(pixels, indices, rectangles, mirrored, size)


def erased(images: Tensor, rectangles: Tensor) -> Tensor:
    """Images (n, 3, S, S) uint8 with noise in a rectangle (4, n) of each, none where it is 0.

    Every pixel of the noise is a uniform random colour, drawn once for the batch.
    """
    side = images.shape[-1]
    noise = sent(torch.randint(256, (3, side, side), dtype=torch.uint8), images.device)
    tops, lefts, heights, widths = sent(rectangles, images.device)[..., None]
    steps = torch.arange(side, device=images.device)
    rows = (steps >= tops) & (steps < tops + heights)
    columns = (steps >= lefts) & (steps < lefts + widths)
    return torch.where((rows[:, :, None] & columns[:, None])[:, None], noise, images)


def _one_by_one(
    pixels: Tensor, indices: Tensor, rectangles: Tensor, mirrored: Tensor, size: int
) -> Tensor:
    """By torchvision's own operation, which has a fast way for bytes on a CPU."""
    from torchvision.transforms.v2 import functional as vision

    def crop(image: int, is_mirrored: bool, *rectangle: int) -> Tensor:
        channels_first = pixels[image].permute(2, 0, 1)
        found = vision.resized_crop(channels_first, *rectangle, [size, size], antialias=True)
        return found.flip(-1) if is_mirrored else found

    places = zip(indices.tolist(), mirrored.tolist(), *rectangles.tolist(), strict=True)
    images = torch.stack([crop(*place) for place in places])
    return images.contiguous(memory_format=torch.channels_last)


def _by_products(
    pixels: Tensor, indices: Tensor, rectangles: Tensor, mirrored: Tensor, size: int
) -> Tensor:
    """All at once: a resized row is a weighted sum of rows, and a column of columns."""
    given = sent(torch.cat((rectangles, mirrored[None])), pixels.device)
    tops, lefts, heights, widths, is_mirrored = given[..., None, None]
    side = pixels.shape[1]
    down, across = _weights(tops, heights, size, side), _weights(lefts, widths, size, side)
    across = torch.where(is_mirrored > 0, across.flip(1), across)
    images = pixels.index_select(0, indices).float()
    images = torch.einsum("nis,nstc->nitc", down, images)
    images = torch.einsum("njt,nitc->nijc", across, images)
    images = images.round_().clamp_(0, 255).to(torch.uint8).permute(0, 3, 1, 2)
    return images.contiguous(memory_format=torch.channels_last)


def _weights(starts: Tensor, lengths: Tensor, size: int, side: int) -> Tensor:
    """How much each of `side` pixels counts in each of `size` new ones: (n, size, side).

    A triangle around the new pixel's middle, as wide as two old pixels or two new ones, whichever
    is more; cut off at the ends of the length.
    """
    new = torch.arange(size, device=starts.device)[:, None] + 0.5
    old = torch.arange(side, device=starts.device)
    step = lengths / size
    distances = (old + 0.5 - starts - new * step).abs() / step.clamp(min=1)
    is_inside = (old >= starts) & (old < starts + lengths)
    weights = (1 - distances).clamp(min=0) * is_inside
    return weights / weights.sum(-1, keepdim=True)
