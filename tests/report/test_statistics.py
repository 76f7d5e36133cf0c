"""Intervals and tests against published or hand-made values."""

import numpy as np
import pytest
from scipy.stats import norm, t

from caltech.metrics import collapsed
from caltech.report import statistics


def test_wilson_s_interval():
    """Values of Newcombe (1998), Table I, method 3."""
    for correct, count, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605)):
        interval = statistics.wilson(correct / count, count)
        assert (interval.low, interval.high) == pytest.approx((low, high), abs=5e-5)
    assert statistics.wilson(1.0, 29).high == 1.0


def test_seeds_widen_the_interval_of_images():
    alone = statistics.of_accuracy([0.5], 1000)
    assert alone == statistics.wilson(0.5, 1000)
    together = statistics.of_accuracy([0.48, 0.5, 0.52], 1000)
    assert together.low < alone.low and together.high > alone.high
    assert 0.5 in together and 0.6 not in together
    assert statistics.of_accuracy([0.97, 0.99], 599).high == 1.0
    assert statistics.of_accuracy([0.02, 0.05], 599).low == 0.0


def test_student_s_intervals():
    """Of the mean, and of one more seed, wider by the one's own chance; t(2) = 4.3027."""
    seeds = statistics.over_seeds([0.48, 0.5, 0.52])
    assert seeds.high - 0.5 == pytest.approx(4.3027 * 0.02 / 3**0.5, rel=1e-4)
    interval = statistics.of_one_more([2.0, 3.0, 4.0])
    assert interval.high - 3 == pytest.approx(4.3027 * (1 + 1 / 3) ** 0.5, rel=1e-4)
    assert 3 - interval.low == pytest.approx(interval.high - 3)
    assert statistics.of_one_more([2.0, 2.0]) == statistics.Interval(2.0, 2.0)


def test_mcnemar_s_test():
    """Exact: twice the binomial tail of the smaller count, here of 5 in 20."""
    first, second = np.zeros(100, bool), np.zeros(100, bool)
    first[:15], second[15:20] = True, True
    first[20:60] = second[20:60] = True
    only_first, only_second, p_value = statistics.mcnemar(first, second)
    assert (only_first, only_second) == (15, 5)
    assert p_value == pytest.approx(0.041389, abs=1e-6)
    assert statistics.mcnemar(first, first) == (0, 0, 1.0)


def test_holm_s_adjustment():
    """The example of R's p.adjust(c(0.01, 0.02, 0.03, 0.005), "holm")."""
    assert statistics.holm([0.01, 0.02, 0.03, 0.005]) == pytest.approx([0.03, 0.04, 0.04, 0.02])
    assert statistics.holm([]) == []


def test_a_collapsed_run_is_known_by_its_answers():
    labels = np.array([0] * 30 + [1] * 70)
    assert collapsed(labels, np.full(100, 1)) == 1
    assert collapsed(labels, np.array([0] * 5 + [1] * 95)) == 1
    assert collapsed(labels, np.array([0] * 6 + [1] * 94)) is None
    assert collapsed(np.zeros(9, int), np.zeros(9, int)) is None  # so are the labels


def test_the_classes_that_are_confused_most():
    """3 for 1 most often, then 0 for 2, and a third pair has no room."""
    labels = np.array([1] * 5 + [2] * 4 + [4, 0, 3])
    answers = np.array([3, 3, 3, 1, 1, 0, 0, 2, 2, 5, 0, 3])
    classes, counts, shares = statistics.confused(labels, answers, 4)
    assert classes == [0, 1, 2, 3]
    assert counts.tolist() == [[1, 0, 0, 0], [0, 2, 0, 3], [2, 0, 2, 0], [0, 0, 0, 1]]
    assert shares[1].tolist() == [0, 0.4, 0, 0.6]


@pytest.mark.parametrize("seeds", [1, 2, 5])
@pytest.mark.parametrize("deviation", [0.0, 0.01])
@pytest.mark.parametrize("accuracy", [0.1, 0.6, 0.95])
def test_at_most_five_percent_of_verdicts_are_false(accuracy, deviation, seeds):
    """Ours and the published run are of one method, and differ by images and seeds alone.

    Our seeds share their images, which is the worst case: more seeds then do not help.
    """
    random, images, times = np.random.default_rng(0), 2893, 1000
    true = np.clip(accuracy + deviation * random.standard_normal((times, seeds + 1)), 0.01, 0.99)
    shared = random.binomial(images, accuracy, times) / images - accuracy
    published = random.binomial(images, true[:, -1]) / images
    ours = np.clip(true[:, :-1] + shared[:, None], 0, 1)
    told = [statistics.differs(list(a), b, images) for a, b in zip(ours, published, strict=True)]
    error = 2 * (0.05 * 0.95 / times) ** 0.5  # of this simulation
    assert told.count(True) / times <= 0.05 + error


def test_what_is_another_method_is_told():
    differs = statistics.differs
    assert differs([0.4196], 0.2454, 2893) is True  # far apart: one seed is enough
    assert differs([0.2962], 0.2745, 2893) is False  # two runs on 2893 images differ by as much
    assert differs([0.3094], 0.2745, 2893) is None  # seeds may differ by as much
    assert differs([0.3094, 0.3090, 0.3099], 0.2745, 2893) is True  # these do not
    assert differs([0.29, 0.31, 0.33], 0.2745, 2893) is False
    assert differs([0.31], 0.5, 30) is False and differs([1.0], 0.0, 30) is True


@pytest.mark.parametrize("deviation", [0.0, 0.01, 0.02])
@pytest.mark.parametrize("seeds", [(2, 2), (3, 3), (5, 5), (1, 4), (1, 2)])
def test_at_most_five_percent_of_equal_recipes_differ(deviation, seeds):
    """Two ways of training that are the same in truth, on images of which some are hard.

    By the first seed's McNemar's test alone, half of them differ if seeds do by a point.
    """
    random = np.random.default_rng(0)
    found, by_one = [], []
    for _ in range(400):
        difficulty = random.normal(size=600)

        def right(count, difficulty=difficulty):
            accuracies = norm.ppf(0.9 + deviation * random.normal(size=(count, 1)).clip(-3, 3))
            chance = random.normal(size=(count, 600))
            return 0.9 * difficulty + 0.19**0.5 * chance < accuracies

        first, second = map(right, seeds)
        found.append(statistics.of_seeds(first, second))
        by_one.append(statistics.mcnemar(first[0], second[0])[2])
    assert (
        np.mean(np.array(found) < 0.05) < 0.08
    )  # 0.05, and three standard deviations of 400 tries
    assert deviation < 0.02 or np.mean(np.array(by_one) < 0.05) > 0.2


def test_a_difference_of_recipes_is_found():
    random = np.random.default_rng(0)
    first, second = (random.random((5, 2000)) < share for share in (0.9, 0.86))
    assert statistics.of_seeds(first, second) < 1e-3
    same = np.ones((3, 50), bool)
    assert statistics.of_seeds(same, same) == 1 and statistics.of_seeds(same, ~same) < 1e-9


def test_splits_share_images_which_widens_what_they_say():
    first, second = [0.9, 0.8, 0.85], [0.89, 0.80, 0.83]
    differences = np.subtract(first, second)
    plain = differences.mean() / (differences.std(ddof=1) / 3**0.5)
    expected = 2 * t.sf(plain * (1 / 3 / (1 / 3 + 0.25)) ** 0.5, 2)
    assert statistics.of_splits(first, second, 0.25, 10_000) == pytest.approx(expected)
    assert statistics.of_splits([0.91, 0.86], [0.90, 0.85], 0.5, 100) > 0.05  # an image of each


def test_seeds_that_happen_to_be_equal_do_not_make_it_sure():
    first, second = np.ones((2, 20), bool), np.ones((2, 20), bool)
    first[0, 0] = first[1, 1] = second[0, 2:4] = second[1, 4:6] = False
    assert statistics.of_seeds(first, second) > 0.05
    assert statistics.of_seeds(first[:, :1], second[:, :1]) == 1
