"""Losses, against torch's own and scikit-learn's weights."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight
from torch import nn

from caltech.data.augmentation.mix import MixUp, Unmixed
from caltech.errors import InputError
from caltech.training.loss import Focal, WeightedCrossEntropy, cross_entropy, prepare

LABELS = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2, 2])
LOGITS = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
SHARES = torch.rand(10, 3, generator=torch.Generator().manual_seed(1)).softmax(1)
COUNTS = LABELS.bincount()
BALANCED = torch.from_numpy(
    compute_class_weight("balanced", classes=np.arange(3), y=LABELS.numpy())
)


def weighted(loss):
    prepare(loss, COUNTS, Unmixed(3), "")
    return loss


def test_balanced_weights_are_scikit_learn_s():
    torch.testing.assert_close(
        weighted(WeightedCrossEntropy("balanced", 0.0)).weights, BALANCED.float()
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("targets", [LABELS, SHARES], ids=["labels", "shares"])
def test_weighted_cross_entropy_is_torch_s_sum_over_the_images(targets, smoothing):
    loss = weighted(WeightedCrossEntropy([1, 2, 5.0], smoothing))
    expected = F.cross_entropy(
        LOGITS, targets, weight=loss.weights, reduction="sum", label_smoothing=smoothing
    )
    torch.testing.assert_close(loss(LOGITS, targets), expected / 10)
    assert (loss.weights * COUNTS).sum() / 10 == pytest.approx(1)  # whatever was given
    torch.testing.assert_close(loss.weights / loss.weights[0], torch.tensor([1, 2, 5.0]))


LOSSES = {
    "cross_entropy": cross_entropy(0.1),
    "balanced": weighted(WeightedCrossEntropy("balanced", 0.1)),
    "focal": weighted(Focal(2.0, "balanced")),
}


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize("targets", [LABELS, SHARES], ids=["labels", "shares"])
def test_parts_by_their_share_of_the_images_are_the_whole(loss, targets):
    parts = zip(LOGITS.split(4), targets.split(4), strict=True)
    summed = sum(loss(*part) * len(part[0]) for part in parts) / 10
    torch.testing.assert_close(summed, loss(LOGITS, targets))


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_whole_labels_are_shares_of_one(loss):
    torch.testing.assert_close(loss(LOGITS, F.one_hot(LABELS).float()), loss(LOGITS, LABELS))


@pytest.mark.parametrize("targets", [LABELS, SHARES], ids=["labels", "shares"])
def test_focal_without_focus_is_cross_entropy(targets):
    focal = weighted(Focal(0, None))
    torch.testing.assert_close(focal(LOGITS, targets), F.cross_entropy(LOGITS, targets))


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_is_its_formula_and_of_shares_the_mean_of_labels_by_them(gamma):
    focal = Focal(gamma, None)
    known = LOGITS.softmax(1).gather(1, LABELS[:, None])
    torch.testing.assert_close(focal(LOGITS, LABELS), -((1 - known) ** gamma * known.log()).mean())
    of_each = [
        (SHARES[:, c] * torch.stack([focal(x[None], torch.tensor([c])) for x in LOGITS])).mean()
        for c in range(3)
    ]
    torch.testing.assert_close(focal(LOGITS, SHARES), sum(of_each))


@pytest.mark.parametrize("gamma", [0, 0.01, 0.5, 1, 2.0])
def test_focal_has_a_gradient_where_an_image_is_right_or_wrong_beyond_doubt(gamma):
    logits = torch.tensor([[1e4, 0, 0], [0, 1e4, 0]], requires_grad=True)
    Focal(gamma, None)(logits, torch.tensor([0, 0])).backward()
    assert logits.grad.isfinite().all() and logits.grad[0].abs().max() < 1e-6


def hard(logits, labels):
    return -logits.log_softmax(1).gather(1, labels[:, None]).mean()


def unlike(logits, targets):
    return logits.mean() + targets.float().mean()


@pytest.mark.parametrize("loss", [hard, unlike])
def test_a_loss_of_labels_alone_is_refused_where_images_are_mixed(loss):
    prepare(loss, COUNTS, Unmixed(3), "mine.loss")
    with pytest.raises(InputError, match=r"mine\.loss cannot be trained on mixed.*mix=none"):
        prepare(loss, COUNTS, MixUp(3, 0.2), "mine.loss")


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_ours_are_not(loss):
    prepare(loss, COUNTS, MixUp(3, 0.2), "")


@pytest.mark.parametrize(
    ("build", "said"),
    [(lambda: Focal(-1, None), "loss.gamma=-1"), (lambda: Focal("a", None), "loss.gamma=a"),
     (lambda: Focal(float("nan"), None), "loss.gamma=nan"),
     (lambda: Focal(2, "equal"), "class_weights=equal"), (lambda: Focal(2, [1, 0]), "positive"),
     (lambda: Focal(2, [1, "a"]), "positive"), (lambda: Focal(2, 3), "class_weights=3"),
     (lambda: cross_entropy("a"), "smoothing=a"), (lambda: cross_entropy(None), "smoothing=None"),
     (lambda: WeightedCrossEntropy("balanced", 1), "smoothing=1"),
     (lambda: weighted(Focal(2, [1, 2])), "2 numbers.*3 classes"),
     (lambda: weighted(Focal(2, [1e-300, 1, 1])), "too far apart"),
     (lambda: weighted(Focal(2, [])), "0 numbers.*3 classes")],
)  # fmt: skip
def test_a_value_out_of_its_range_is_refused(build, said):
    with pytest.raises(InputError, match=said):
        build()


def test_a_loss_s_own_tensors_go_to_the_device():
    loss = nn.CrossEntropyLoss(weight=torch.ones(3))
    prepare(loss, torch.ones(3, device="meta"), Unmixed(3), "mine")
    assert loss.weight.device.type == "meta"


def test_a_class_without_an_image_is_told(caplog):
    """Smoothed labels ask for it too, and it counts as if it had one."""
    loss = WeightedCrossEntropy("balanced", 0.1)
    prepare(loss, torch.tensor([50, 50, 0]), Unmixed(3), "")
    assert "counts 1 of 3 classes, which have no training image" in caplog.text
