"""Mixing: two images of a batch become one, and their labels the shares of both.

Each option is called with a batch and its labels (n,) and gives a batch and targets: labels (n,)
as they are, or shares (n, classes) that sum to 1. `mixes` says what of: "nothing"; "inputs", what
the trained part is given, be it images or a frozen part's outputs; or "images" alone.

One share is drawn for a batch, and every image is mixed with the one before it in the batch, as
torchvision does; the order is random, so these are random pairs.
"""

from typing import Any

from torch import Tensor

from caltech.data.augmentation.recipe import require_number


class Unmixed:
    """Batch and labels as they are; what the loop asks of any mix."""

    mixes = "nothing"

    def __init__(self, num_classes: int) -> None:
        """Nothing of it is needed."""

    def __call__(self, batch: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return batch, labels


class MixUp(Unmixed):
    """Weighted means of two inputs (Zhang et al., ICLR 2018).

    Where leading stages are frozen, their outputs are mixed and not the images, as in Verma et al.
    (ICML 2019, manifold mixup) at a layer that stays the same: so that these outputs can be
    computed once. Images are mixed as float32 from 0 to 255, without rounding.

    Args:
        num_classes: of the labels.
        alpha: of the Beta distribution of the share; 0.2 mixes little, 1 draws it uniformly.

    Raises:
        InputError: alpha is not positive.
    """

    mixes = "inputs"

    def __init__(self, num_classes: int, alpha: float) -> None:
        self._mix = _mixup(num_classes, "alpha", alpha)

    def __call__(self, batch: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        # torchvision asks for images; features (n, ...) are such of one pixel. A view, no copy.
        is_image = batch.ndim == 4
        images = batch.float() if is_image else batch.float().reshape(len(batch), -1, 1, 1)
        mixed, targets = self._mix(images, labels)
        return mixed if is_image else mixed.reshape(batch.shape), targets


class CutMix(Unmixed):
    """A rectangle of another image in each, labels by area (Yun et al., ICCV 2019).

    Args:
        num_classes, alpha: as of MixUp; the share is the area that stays.

    Raises:
        InputError: alpha is not positive.
    """

    mixes = "images"

    def __init__(self, num_classes: int, alpha: float) -> None:
        self._mix = _cutmix(num_classes, "alpha", alpha)

    def __call__(self, batch: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return self._mix(batch, labels)


class MixUpOrCutMix(Unmixed):
    """Either, drawn for each batch with equal probability; of images alone.

    Args:
        num_classes: of the labels.
        mixup_alpha, cutmix_alpha: alpha of each.

    Raises:
        InputError: one is not positive.
    """

    mixes = "images"

    def __init__(self, num_classes: int, mixup_alpha: float, cutmix_alpha: float) -> None:
        from torchvision.transforms import v2

        mixup = _mixup(num_classes, "mixup_alpha", mixup_alpha)
        self._mix = v2.RandomChoice([mixup, _cutmix(num_classes, "cutmix_alpha", cutmix_alpha)])

    def __call__(self, batch: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        return self._mix(batch.float(), labels)


def classes_of(targets: Tensor) -> Tensor:
    """What an answer (n,) is compared with: the labels, or of mixed ones those of larger share."""
    return targets if targets.ndim == 1 else targets.argmax(1)


def _mixup(num_classes: int, name: str, alpha: float) -> Any:
    from torchvision.transforms import v2

    _require_alpha(name, alpha)
    return v2.MixUp(alpha=float(alpha), num_classes=num_classes)


def _cutmix(num_classes: int, name: str, alpha: float) -> Any:
    from torchvision.transforms import v2

    _require_alpha(name, alpha)
    return v2.CutMix(alpha=float(alpha), num_classes=num_classes)


def _require_alpha(name: str, alpha: float) -> None:
    rule = "of the Beta distribution of the shares, from 0.001 to 1000; mix=none mixes nothing"
    require_number(f"mix.{name}", alpha, lambda v: 1e-3 <= v <= 1e3, rule, "0.2")
