"""Augmentations, against plain slicing."""

import pytest
import torch
from torchvision.transforms import functional as vision

from caltech.data.augment import FlipCrop, Trivial, Views, center_crop
from caltech.errors import InputError

PIXELS = torch.randint(
    256, (20, 40, 40, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)
INDICES = torch.tensor([3, 3, 19, 0, 7, 7, 7, 12])


@pytest.mark.parametrize("size", [40, 39, 33, 32, 1])
def test_center_crop_equals_torchvision(size):
    images = center_crop(PIXELS, INDICES, size)
    expected = vision.center_crop(PIXELS[INDICES].permute(0, 3, 1, 2), [size, size])
    assert torch.equal(images, expected)
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_one_view_is_the_centre_crop():
    assert torch.equal(
        Views(["plain"], ["plain"])(PIXELS, INDICES, 32), center_crop(PIXELS, INDICES, 32)
    )


def test_views_draw_each_with_equal_probability():
    indices = torch.zeros(2000, dtype=torch.long)
    torch.manual_seed(0)
    images = Views(["plain", "mirrored"], ["plain"])(PIXELS, indices, 32)
    plain = center_crop(PIXELS, indices[:1], 32)
    is_plain = (images == plain).flatten(1).all(1)
    is_mirrored = (images == plain.flip(-1)).flatten(1).all(1)
    assert (is_plain ^ is_mirrored).all()
    assert 900 < is_mirrored.sum() < 1100


def test_unknown_view():
    with pytest.raises(InputError, match=r"'upside_down'.*augment=flip"):
        Views(["plain"], ["upside_down"])
    with pytest.raises(InputError, match=r"need a view each.*augment=none"):
        Views([], ["plain"])


def test_flip_crop_gives_crops_and_their_mirror_images():
    indices = torch.zeros(400, dtype=torch.long)
    torch.manual_seed(0)
    images = FlipCrop(["plain"])(PIXELS, indices, 38)
    source = PIXELS[0].permute(2, 0, 1)
    crops = [source[:, y : y + 38, x : x + 38] for y in range(3) for x in range(3)]
    crops += [crop.flip(-1) for crop in crops]
    counts = [sum(torch.equal(image, crop) for image in images) for crop in crops]
    assert sum(counts) == 400
    assert min(counts) > 5  # of 22 expected: each of the 18 is drawn


@pytest.mark.parametrize(
    "augment", [FlipCrop(["plain"]), Trivial(["plain"]), Views(["plain", "mirrored"], ["plain"])]
)
def test_shape_type_and_dependence_on_the_seed_alone(augment):
    images = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        images.append(augment(PIXELS, INDICES, 32))
    assert images[0].shape == (8, 3, 32, 32)
    assert images[0].dtype == torch.uint8
    assert torch.equal(images[0], images[1])
    assert not torch.equal(images[0], images[2])


def test_pixels_are_never_changed():
    before = PIXELS.clone()
    for augment in (
        FlipCrop(["plain"]),
        Trivial(["plain"]),
        Views(["mirrored", "plain"], ["plain"]),
    ):
        augment(PIXELS, INDICES, 40)
    assert torch.equal(PIXELS, before)
