"""Mixed batches, against torchvision's functions and their own definition."""

import pytest
import torch
from torchvision.transforms import v2

from caltech.data.augmentation.mix import CutMix, MixUp, MixUpOrCutMix, Unmixed, classes_of
from caltech.errors import InputError

IMAGES = torch.randint(
    256, (6, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)
LABELS = torch.tensor([0, 1, 2, 3, 3, 1])


@pytest.mark.parametrize("mix", [MixUp(4, 0.2), CutMix(4, 1.0), MixUpOrCutMix(4, 0.2, 1.0)])
def test_shares_sum_to_one_and_depend_on_the_seed_alone(mix):
    found = []
    for _ in range(2):
        torch.manual_seed(1)
        found.append([mix(IMAGES, LABELS) for _ in range(8)])
    for (images, targets), again in zip(*found, strict=True):
        assert torch.equal(images, again[0]) and torch.equal(targets, again[1])
        assert images.shape == IMAGES.shape and targets.shape == (6, 4)
        torch.testing.assert_close(targets.sum(1), torch.ones(6))


@pytest.mark.parametrize(
    ("mix", "reference", "dtype"),
    [(MixUp(4, 0.4), v2.MixUp(alpha=0.4, num_classes=4), torch.float32),
     (CutMix(4, 1.0), v2.CutMix(alpha=1.0, num_classes=4), torch.uint8)],
)  # fmt: skip
def test_it_is_torchvision_s(mix, reference, dtype):
    torch.manual_seed(2)
    images, targets = mix(IMAGES, LABELS)
    torch.manual_seed(2)
    expected = reference(IMAGES.to(dtype), LABELS)
    assert images.dtype == dtype
    assert torch.equal(images, expected[0]) and torch.equal(targets, expected[1])


@pytest.mark.parametrize("shape", [(5,), (7, 3), (4, 2, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_features_of_any_shape_are_mixed_by_the_shares_of_their_labels(shape, dtype):
    features = torch.randn(3, *shape).to(dtype)
    mixed, targets = MixUp(3, 1.0)(features, torch.arange(3))
    expected = torch.einsum("ij,j...->i...", targets, features.float())
    torch.testing.assert_close(mixed, expected)


def test_either_of_two_is_drawn():
    torch.manual_seed(0)
    mix, images = MixUpOrCutMix(4, 1.0, 1.0), torch.tensor([0.0, 255.0]).view(2, 1, 1, 1)
    images = images.expand(2, 3, 8, 8).contiguous()
    cut = [set(mix(images, LABELS[:2])[0].unique().tolist()) <= {0, 255} for _ in range(200)]
    assert 70 < sum(cut) < 130


def test_without_a_mix_nothing_is_copied():
    images, labels = Unmixed(4)(IMAGES, LABELS)
    assert images is IMAGES and labels is LABELS


def test_an_answer_is_compared_with_the_label_of_the_larger_share():
    assert torch.equal(classes_of(torch.tensor([[0.4, 0.6], [0.7, 0.3]])), torch.tensor([1, 0]))
    assert classes_of(LABELS) is LABELS


@pytest.mark.parametrize("alpha", [0, -1, 1e-4, float("nan"), float("inf"), None, "a", True, 1e9])
def test_an_alpha_that_is_not_positive_or_beyond_bounds_is_refused(alpha):
    for build in (MixUp, CutMix):
        with pytest.raises(InputError, match=r"mix\.alpha=.* is not allowed.*mix=none.*Type"):
            build(4, alpha)
    with pytest.raises(InputError, match=r"mix\.cutmix_alpha="):
        MixUpOrCutMix(4, 1.0, alpha)
