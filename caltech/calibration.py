"""What a probability is worth: temperature scaling and the calibration error (Guo et al., 2017).

C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger: On Calibration of Modern Neural Networks, ICML 2017.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from caltech.errors import InputError

BINS = 15
LOWEST, HIGHEST = 0.01, 100.0  # temperatures that are looked at


class Scores(NamedTuple):
    """What a network gave for the images of a part."""

    indices: np.ndarray  # (n,) of the images in their data set
    labels: np.ndarray  # (n,)
    logits: np.ndarray  # (n, classes) float32


@dataclass(frozen=True)
class Calibration:
    """Answers in bins of their probability: what was promised, and what was true."""

    error: float  # expected calibration error: mean distance, weighted by the bins' answers
    confidence: np.ndarray  # (bins,) mean, NaN in empty bins
    accuracy: np.ndarray  # (bins,)
    count: np.ndarray  # (bins,)


def calibration(confidences: np.ndarray, correct: np.ndarray, bins: int = BINS) -> Calibration:
    """Expected calibration error with bins of equal width, closed above.

    Args:
        confidences: (n,) probabilities of the answers.
        correct: (n,) bool, whether each is right.
    """
    which = np.clip(np.ceil(confidences * bins).astype(int) - 1, 0, bins - 1)
    confidence, count = means(which, confidences, bins)
    accuracy, _ = means(which, correct, bins)
    error = np.nansum(np.abs(confidence - accuracy) * count) / len(confidences)
    return Calibration(float(error), confidence, accuracy, count)


def means(groups: np.ndarray, values: np.ndarray, total: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each of `total` groups the mean, NaN of none, and the number of values."""
    count = np.bincount(groups, minlength=total)
    with np.errstate(invalid="ignore"):
        return np.bincount(groups, values, total) / count, count


def probabilities(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """softmax(logits / T) of logits (n, classes), in float64."""
    # Relative to the largest, so that no other one can become equal to it by the division.
    relative = logits.astype(float) - logits.max(1, keepdims=True)
    scaled = np.exp(relative / temperature)
    return scaled / scaled.sum(1, keepdims=True)


def temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The T of the smallest mean negative log-likelihood of softmax(logits / T).

    In 1 / T it is convex, so its derivative has one zero, which Brent's method finds: the same one
    each time.

    Args:
        logits: (n, classes) of images that the model was not trained on, or log-probabilities.
        labels: (n,).

    Raises:
        InputError: there is none from 0.01 to 100, and why.
    """
    from scipy.optimize import brentq

    relative = logits.astype(float) - logits.max(1, keepdims=True)
    right = relative[np.arange(len(labels)), labels]

    def slope(log_inverse: float) -> float:
        """The derivative by 1 / T: what logits are expected less what the labels have."""
        weights = np.exp(np.exp(log_inverse) * relative)
        # A class of probability zero has a logit of -inf, and is not expected.
        finite = np.where(weights > 0, relative, 0.0)
        return float(((weights * finite).sum(1) / weights.sum(1) - right).mean())

    if not np.isfinite(right).all():
        raise InputError("a label has probability zero, which no temperature can mend")
    least, most = -np.log(HIGHEST), -np.log(LOWEST)
    if not slope(most) > 0:
        raise InputError(
            f"the temperature falls below {LOWEST:g}: all {len(labels)} validation images are "
            "answered rightly, so that no probability seems high enough"
            if (right == 0).all()
            else f"the temperature falls below {LOWEST:g}: the logits of an image are nearly equal"
        )
    if not slope(least) < 0:
        raise InputError(
            f"the temperature rises above {HIGHEST:g}: on the {len(labels)} validation images the "
            "logits say nothing of the labels"
        )
    return float(np.exp(-brentq(slope, least, most, xtol=1e-12)))
