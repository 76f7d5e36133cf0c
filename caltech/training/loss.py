"""Losses to train with. Validation and test use plain cross-entropy, so that runs compare.

Each is a mean over the n images of a batch, weighted or not: so the mean over parts of a batch,
each times its share of the images, is the mean over the whole. Targets are labels (n,) or, where
images are mixed, shares (n, classes) that sum to 1.
"""

import logging
import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from caltech.amounts import is_number
from caltech.data.augmentation.mix import Unmixed
from caltech.errors import InputError

log = logging.getLogger(__name__)


def cross_entropy(label_smoothing: float) -> nn.Module:
    """The training loss of logits (n, classes) and targets, a mean over the n images.

    Source: Szegedy et al., CVPR 2016, for the share of every label that is spread over the classes.
    """
    _require_smoothing(label_smoothing)
    return nn.CrossEntropyLoss(label_smoothing=label_smoothing)


class Weighing(nn.Module):
    """A loss of which each class has a weight, by the training part's counts.

    `balanced` is N / (K n_c), of N images in K classes with n_c of class c (King and Zeng,
    Political Analysis 2001; scikit-learn's class_weight). Numbers that are given count by their
    proportions. Both have a mean of 1 over the training images, so the loss is as large as without
    weights, and no batch is divided by the sum of its own.

    Args:
        class_weights: balanced, a number for each class in the order of their names, or null.

    Raises:
        InputError: they are none of these.
    """

    def __init__(self, class_weights: str | Sequence[float] | None) -> None:
        super().__init__()
        if isinstance(class_weights, Sequence) and not isinstance(class_weights, str):
            class_weights = list(class_weights)
        if not (class_weights in (None, "balanced") or _are_weights(class_weights)):
            raise InputError(
                f"loss.class_weights={class_weights} is not allowed: it is null, balanced, or a "
                "list of a positive number for each class. Type loss.class_weights=balanced."
            )
        self.class_weights = class_weights
        # Not `weight`: by that name weight_of takes a loss for a mean by the labels' weights, as
        # torch's are, and this one divides by the number of images.
        self.weights: Tensor | None = None

    def weigh(self, counts: Tensor) -> None:
        """Compute the weights from the images (classes,) that training has of each class.

        Raises:
            InputError: another number of weights was given than there are classes, or they are
                further apart than float32 can tell.
        """
        if self.class_weights is None:
            return
        device, counts = counts.device, counts.cpu().double()
        if self.class_weights == "balanced":
            if absent := int((counts == 0).sum()):
                log.warning(
                    "loss.class_weights=balanced counts %d of %d classes, which have no training "
                    "image, as if they had one. Of smoothed labels they have a large share: type "
                    "loss.label_smoothing=0.", absent, len(counts),
                )  # fmt: skip
            weights = 1 / counts.clamp(min=1)
        elif len(self.class_weights) == len(counts):
            weights = torch.tensor(self.class_weights, dtype=torch.float64)
        else:
            raise InputError(
                f"loss.class_weights has {len(self.class_weights)} numbers, and the data has "
                f"{len(counts)} classes. Give one for each, in the order of their names, or type "
                "loss.class_weights=balanced."
            )
        self.weights = (weights * counts.sum() / (weights * counts).sum()).float().to(device)
        if not (self.weights.isfinite() & (self.weights > 0)).all():
            raise InputError(
                f"loss.class_weights={self.class_weights} are too far apart to count together. "
                "Type loss.class_weights=balanced."
            )


class WeightedCrossEntropy(Weighing):
    """Cross-entropy with a weight for each class, as torch's but divided by the number of images.

    Args:
        class_weights: as of Weighing.
        label_smoothing: as of cross_entropy.

    Raises:
        InputError: one of them is not allowed.
    """

    def __init__(self, class_weights: str | Sequence[float] | None, label_smoothing: float) -> None:
        super().__init__(class_weights)
        _require_smoothing(label_smoothing)
        self.label_smoothing = label_smoothing

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Of logits (n, classes) and targets: the sum of the weighted losses, over n."""
        given = {"weight": self.weights, "label_smoothing": self.label_smoothing}
        return F.cross_entropy(logits.float(), targets, reduction="sum", **given) / len(logits)


class Focal(Weighing):
    """The focal loss, - (1 - p)^gamma log p of the label's probability p (Lin et al., ICCV 2017).

    Of mixed images it is the mean of both labels' losses by their shares, as mixup has it of any
    loss. With class_weights, which are the paper's alpha, each label's loss has its weight.

    Args:
        gamma: how much less an image counts that is nearly right; 0 is cross-entropy.
        class_weights: as of Weighing.

    Raises:
        InputError: one of them is not allowed.
    """

    def __init__(self, gamma: float, class_weights: str | Sequence[float] | None) -> None:
        super().__init__(class_weights)
        if not (is_number(gamma) and 0 <= gamma < math.inf):
            raise InputError(
                f"loss.gamma={gamma} is not allowed: it is a number that is not negative, and 0 is "
                "cross-entropy. Type loss.gamma=2."
            )
        self.gamma = gamma

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Of logits (n, classes) and targets: the sum of the images' losses, over n."""
        known = logits.float().log_softmax(1)
        # A root has no finite slope at 0, where an image is right and nothing is to be learned.
        wrong = (-known.expm1()).clamp(min=torch.finfo(known.dtype).tiny)
        losses = -known * wrong**self.gamma
        if self.weights is not None:
            losses = losses * self.weights
        if targets.ndim == 1:
            targets = F.one_hot(targets, logits.shape[1])
        return (losses * targets).sum() / len(logits)


def prepare(loss: Any, counts: Tensor, mix: Unmixed, typed: str) -> None:
    """Make a loss ready for a training: its tensors on the device, the classes' weights computed.

    Args:
        counts: (classes,) training images of each class, on the device.
        typed: the loss's target, for messages.

    Raises:
        InputError: its weights are of another number of classes, or it cannot be trained with this
            mix.
    """
    if isinstance(loss, nn.Module):
        loss.to(counts.device)
    if isinstance(loss, Weighing):
        loss.weigh(counts)
    if mix.mixes != "nothing":
        _require_shares(loss, len(counts), typed, counts.device)


def weight_of(loss: Any, labels: Tensor) -> Tensor | int:
    """What a part of a batch counts in the batch's mean loss.

    torch's losses with a weight for each class divide by the weights of the labels (n,) and not by
    their number; by soft labels (n, classes), and all others, by the number of images.
    """
    weight = getattr(loss, "weight", None)
    if weight is None or labels.is_floating_point():
        return len(labels)
    return weight[labels].sum()


def require_parts(loss: Any, target: str, num_classes: int) -> None:
    """Raise InputError unless a batch's loss is the mean of its parts', each by its weight.

    Asked of any loss that a micro_batch is used with, by two parts of five images.
    """
    where = getattr(getattr(loss, "weight", None), "device", "cpu")
    logits = torch.linspace(-1, 1, 5 * num_classes, device=where).sin().view(5, num_classes)
    labels = torch.arange(5, device=where) % num_classes
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        parts = zip(logits.split(3), labels.split(3), strict=True)
        shares = [loss(a, b) * (weight_of(loss, b) / weight_of(loss, labels)) for a, b in parts]
        whole = loss(logits, labels)
    if not torch.isclose(sum(shares), whole, rtol=1e-3):
        raise InputError(
            f"micro_batch= is not possible with {target}: its loss of a batch is not the mean of "
            "the images' losses, so parts do not add up to it. Type micro_batch=null, or give the "
            "loss the attribute weight (classes,) if it is a mean weighted by the labels' classes."
        )


def _require_shares(loss: Any, num_classes: int, typed: str, device: torch.device) -> None:
    """Raise InputError unless a loss takes shares of labels, as mixed images have them.

    Of shares that are all of one label, it must be what it is of that label.
    """
    labels = torch.arange(2, device=device)
    logits = torch.linspace(-1, 1, 2 * num_classes, device=device).view(2, num_classes)
    found = "is not the same for a label and for a share of 1 in it"
    try:
        shares = F.one_hot(labels, num_classes).float()
        is_equal = torch.allclose(loss(logits, shares), loss(logits, labels), rtol=1e-4)
    except Exception as error:
        is_equal, found = False, f"gives {type(error).__name__}: {error}".splitlines()[0]
    if not is_equal:
        raise InputError(
            f"{typed} cannot be trained on mixed images, whose targets are shares (n, classes): "
            f"it {found.rstrip('.')}. Type mix=none, or another loss, for example "
            "loss=cross_entropy."
        )


def _require_smoothing(label_smoothing: float) -> None:
    if not (is_number(label_smoothing) and 0 <= label_smoothing < 1):
        raise InputError(
            f"loss.label_smoothing={label_smoothing} is not allowed: it is a share of every "
            "label, at least 0 and below 1, for example loss.label_smoothing=0.1."
        )


def _are_weights(values: Any) -> bool:
    return isinstance(values, list) and all(is_number(v) and 0 < v < math.inf for v in values)
