"""Temperature and calibration error, against cases that can be computed by hand."""

import numpy as np
import pytest

from caltech import calibration
from caltech.errors import InputError


def test_the_calibration_error_of_two_bins():
    """0.9 promised and 0.5 kept, 0.3 promised and 0.3 kept, as many answers in each."""
    confidences = np.array([0.9] * 10 + [0.3] * 10)
    correct = np.array([True] * 5 + [False] * 5 + [True] * 3 + [False] * 7)
    result = calibration.calibration(confidences, correct)
    assert result.error == pytest.approx(0.2) and result.count.sum() == 20
    assert calibration.calibration(np.ones(4), np.ones(4, bool)).error == 0


def test_the_temperature_of_two_classes_is_that_of_the_odds():
    """Of a distance of 4 and three of four right, sigmoid(4 / T) = 3/4: T = 4 / log(3)."""
    logits = np.tile(np.array([[4.0, 0.0]], np.float32), (8, 1))
    labels = np.array([0, 0, 0, 1] * 2)
    assert calibration.temperature(logits, labels) == pytest.approx(4 / np.log(3), rel=1e-9)


def test_a_temperature_is_the_least_loss_and_the_same_each_time():
    random = np.random.default_rng(0)
    logits = random.normal(size=(200, 7)).astype(np.float32) * 5
    labels = np.where(random.random(200) < 0.6, logits.argmax(1), random.integers(7, size=200))

    def loss(by: float) -> float:
        return -np.log(calibration.probabilities(logits, by)[np.arange(200), labels]).mean()

    found = calibration.temperature(logits, labels)
    assert found == calibration.temperature(logits, labels)
    assert loss(found) < min(loss(1.0), loss(found * 1.01), loss(found / 1.01))


def test_no_temperature_changes_an_answer():
    """Not of logits that are neighbours in float32, either."""
    logits = np.random.default_rng(1).normal(size=(300, 5)).astype(np.float32)
    logits[:, 3] = np.nextafter(logits[:, :3].max(1), np.float32(9), dtype=np.float32)
    for by in (0.05, 1.0, 1.7, 50.0):
        assert (calibration.probabilities(logits, by).argmax(1) == logits.argmax(1)).all()


@pytest.mark.parametrize(
    ("logits", "labels", "said"),
    [
        ([[3.0, 0.0], [0.0, 2.0]], [0, 1], "all 2 validation images are answered rightly"),
        ([[3.0, 0.0], [0.0, 2.0]], [1, 0], "rises above 100"),
        ([[1.0, 1.0], [1.0, 1.0]], [0, 1], "falls below|rises above"),
        ([[0.0, -np.inf], [0.0, 1.0]], [1, 1], "probability zero"),
    ],
)
def test_where_there_is_no_temperature_the_reason_is_told(logits, labels, said):
    with pytest.raises(InputError, match=said):
        calibration.temperature(np.array(logits, np.float32), np.array(labels))
