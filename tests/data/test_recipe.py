"""Random changes of a batch, against torchvision's operations on the same draws."""

import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as vision

from caltech.data.augment import FlipCrop
from caltech.data.augmentation.recipe import GROUP, Recipe
from caltech.data.augmentation.rectangles import (
    _by_products,
    _one_by_one,
    draw,
    erased,
    resized,
)
from caltech.errors import InputError

PIXELS = torch.randint(
    256, (20, 40, 40, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)
INDICES = torch.tensor([3, 3, 19, 0, 7, 7, 7, 12, 1, 2])
NOTHING = {"test": ["plain"], "num_ops": 0, "magnitude": 9, "erase": 0.0, "scale": None}
NOTHING |= {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0, "ratio": [0.75, 1.3]}


def varied(seed: int = 0, **strengths) -> torch.Tensor:
    torch.manual_seed(seed)
    return Recipe(**NOTHING | strengths)(PIXELS, INDICES, 32)


def test_without_strengths_it_is_the_crop_alone():
    images = varied()
    torch.manual_seed(0)
    assert torch.equal(images, FlipCrop(["plain"])(PIXELS, INDICES, 32))


def test_a_crop_of_all_is_the_whole_image_resized():
    images = varied(scale=[1, 1], ratio=[1, 1])
    whole = vision.resize(PIXELS[INDICES].permute(0, 3, 1, 2), [32, 32], antialias=True)
    for image, expected in zip(images, whole, strict=True):
        assert torch.equal(image, expected) or torch.equal(image, expected.flip(-1))


@pytest.mark.parametrize("way", [_one_by_one, _by_products])
def test_resized_crops_are_torchvision_s_on_the_same_draw(way):
    """A CPU takes torchvision's way for bytes, which rounds; a GPU its way for float32."""
    rectangles, found = draw(len(INDICES), 40, [0.08, 1], [0.5, 2])
    mirrored = torch.arange(len(INDICES)) % 2 == 1
    assert found.all()
    images = way(PIXELS, INDICES, rectangles, mirrored, 32)
    assert images.is_contiguous(memory_format=torch.channels_last)
    for number, (image, place) in enumerate(zip(images, rectangles.T.tolist(), strict=True)):
        source = PIXELS[INDICES[number]].permute(2, 0, 1)
        source = source.float() if way is _by_products else source
        expected = vision.resized_crop(source, *place, [32, 32], antialias=True).round()
        expected = expected.flip(-1) if mirrored[number] else expected
        assert (image - expected.float()).abs().max() <= (way is _by_products)
        assert (image == expected).float().mean() > 0.99  # a half may be rounded either way


@pytest.mark.parametrize(
    ("scale", "ratio"), [([0.08, 1], [0.75, 1.33]), ([0.02, 0.33], [0.3, 3.3])]
)
def test_rectangles_are_inside_with_areas_and_ratios_as_asked(scale, ratio):
    (tops, lefts, heights, widths), found = draw(2000, 200, scale, ratio)
    assert found.all() and min(tops.min(), lefts.min()) >= 0
    assert (tops + heights).max() <= 200 and (lefts + widths).max() <= 200
    shares = heights * widths / 200**2
    assert 0.9 * scale[0] < shares.min() and shares.max() < 1.1 * scale[1]
    crop, image = v2.RandomResizedCrop(1, scale, ratio), torch.zeros(3, 200, 200)
    drawn = [crop.make_params([image]) for _ in range(2000)]  # torchvision's
    expected = sum(one["height"] * one["width"] for one in drawn) / 2000 / 200**2
    assert shares.mean() == pytest.approx(expected, rel=0.1)
    ratios = widths / heights
    assert 0.9 * ratio[0] < ratios.min() and ratios.max() < 1.1 * ratio[1]


def test_what_does_not_fit_is_not_found_and_such_a_crop_is_in_the_middle():
    rectangles, found = draw(5, 40, [1, 1], [2, 2])
    assert not found.any() and not rectangles.any()
    images = varied(scale=[1, 1], ratio=[2, 2])
    middle = vision.resized_crop(PIXELS[3].permute(2, 0, 1), 10, 0, 20, 40, [32, 32])
    assert torch.equal(images[0], middle) or torch.equal(images[0], middle.flip(-1))


@pytest.mark.parametrize(
    ("strengths", "change"),
    [({"num_ops": 2, "magnitude": 14}, v2.RandAugment(2, 14)),
     ({"brightness": 0.4, "hue": 0.1}, v2.ColorJitter(0.4, 0, 0, 0.1))],
    ids=["RandAugment", "jitter"],
)  # fmt: skip
def test_groups_are_changed_as_torchvision_changes_them(strengths, change):
    torch.manual_seed(0)
    images = FlipCrop(["plain"])(PIXELS, INDICES, 32)
    expected = torch.cat([change(group) for group in images.split(GROUP)])
    assert torch.equal(varied(**strengths), expected) and not torch.equal(expected, images)


def test_erased_rectangles_hold_noise_as_torchvision_s_erase_puts_it():
    images = PIXELS[:6].permute(0, 3, 1, 2)
    rectangles, _ = draw(6, 40, [0.1, 0.3], [0.5, 2])
    rectangles[:, 2] = 0
    torch.manual_seed(3)
    found = erased(images, rectangles)
    torch.manual_seed(3)
    noise = torch.randint(256, (3, 40, 40), dtype=torch.uint8)
    for image, source, (top, left, height, width) in zip(found, images, rectangles.T, strict=True):
        part = noise[:, top : top + height, left : left + width]
        assert torch.equal(image, vision.erase(source, top, left, height, width, part))
    assert torch.equal(found[2], images[2])


def test_as_many_images_are_erased_as_asked():
    torch.manual_seed(0)
    blank = torch.zeros(1, 8, 8, 3, dtype=torch.uint8)
    images = Recipe(**NOTHING | {"erase": 0.25})(blank, torch.zeros(2000, dtype=torch.long), 8)
    assert 400 < images.flatten(1).any(1).sum() < 600


ALL = {"num_ops": 2, "brightness": 0.4, "hue": 0.1, "erase": 0.5, "scale": [0.08, 1]}


def test_it_depends_on_the_seed_alone_and_changes_no_pixels():
    before = PIXELS.clone()
    images = varied(**ALL)
    assert images.shape == (10, 3, 32, 32) and images.dtype == torch.uint8
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(images, varied(**ALL)) and not torch.equal(images, varied(1, **ALL))
    assert torch.equal(PIXELS, before)


def test_crops_and_rectangles_wait_for_no_device():
    """On `meta` no number can be read."""
    recipe = Recipe(**NOTHING | {"erase": 0.5, "scale": [0.08, 1]})
    assert recipe(PIXELS.to("meta"), INDICES.to("meta"), 32).shape == (10, 3, 32, 32)


def test_resizing_needs_no_pixels_in_memory(monkeypatch):
    class Kept:
        def at(self, rows):
            return PIXELS[rows]

    monkeypatch.setattr("caltech.data.augment.Decoded", Kept)
    rectangles, mirrored = torch.tensor([[2, 3, 20, 30]]).T.repeat(1, 10), torch.zeros(10)
    found = resized(Kept(), INDICES, rectangles, mirrored, 32)
    assert torch.equal(found, resized(PIXELS, INDICES, rectangles, mirrored, 32))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [("num_ops", -1, "whole number"), ("num_ops", 1.5, "whole number"),
     ("magnitude", 31, "0 to 30"), ("num_ops", float("inf"), "whole"), ("num_ops", 99, "0 to 10"),
     ("brightness", 1.1, "0 to 1"), ("contrast", float("nan"), "0 to 1"),
     ("saturation", "abc", "0 to 1"), ("hue", 0.6, "0.5"), ("erase", -0.1, "share"),
     ("erase", None, "share"), ("erase", True, "share"), ("scale", [0.5, 1.1], "0.01 to 1"),
     ("scale", [1e-9, 1], "0.01 to 1"), ("ratio", [1e-9, 1], "0.1 to 10"),
     ("scale", [0.9, 0.1], "least"), ("scale", 0.5, "least"),
     ("scale", ["a", "b"], "least"), ("ratio", [0.5, float("inf")], "least"),
     ("ratio", [1, 2, 3], "least"), ("ratio", None, "least")],
)  # fmt: skip
def test_a_strength_out_of_its_range_is_refused(name, value, said):
    with pytest.raises(InputError, match=rf"augment\.{name}=.* is not allowed.*{said}.*Type"):
        Recipe(**NOTHING | {name: value})
