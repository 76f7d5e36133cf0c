"""Losses to train with. Validation and test use plain cross-entropy, so that runs compare."""

from torch import nn

from caltech.errors import InputError


def cross_entropy(label_smoothing: float) -> nn.Module:
    """The training loss of logits (n, classes) and labels (n,), a mean over the n images.

    Source: Szegedy et al., CVPR 2016, for the share of every label that is spread over the classes.
    """
    if not 0 <= label_smoothing < 1:
        raise InputError(
            f"loss.label_smoothing={label_smoothing} is not allowed: it is a share of every "
            "label, at least 0 and below 1, for example loss.label_smoothing=0.1."
        )
    return nn.CrossEntropyLoss(label_smoothing=label_smoothing)
