"""What a number of a table can be trusted for: intervals and paired tests."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial

import numpy as np
from scipy import optimize, stats

from caltech.calibration import means

LEVEL = 0.95
# Of verdicts: approximations and whole numbers of images then leave no case above 5 % false ones.
SURE = 0.96
# One run does not tell by how much seeds differ: a verdict on it allows for this much.
SEED_DEVIATION = 0.01


@dataclass(frozen=True)
class Interval:
    """Where a quantity lies with 95 % confidence."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


@dataclass(frozen=True)
class Pair:
    """McNemar's test of two rows on the same images."""

    first: str
    second: str
    only_first: int  # images that the first alone has right
    only_second: int
    p_value: float
    p_adjusted: float  # for all pairs of the table (Holm, 1979)


def wilson(accuracy: float, count: int, level: float = LEVEL) -> Interval:
    """Wilson's score interval of a share of `count` images (E. B. Wilson, 1927)."""
    return _wilson(round(accuracy * count), count, level)


@cache
def _wilson(correct: int, count: int, level: float) -> Interval:
    test = stats.binomtest(correct, count)
    interval = test.proportion_ci(level, method="wilson")
    return Interval(float(interval.low), float(interval.high))


@cache
def _quantile(level: float, freedom: float) -> float:
    """Student's, of both sides; of no end of freedom it is the normal distribution's."""
    return float(stats.t.ppf((1 + level) / 2, freedom))


def over_seeds(values: Sequence[float]) -> Interval:
    """Student's t-interval of the mean of at least two seeds."""
    return _student(values, 1 / len(values))


def of_one_more(values: Sequence[float]) -> Interval:
    """Student's prediction interval: where one further seed is expected, after at least two."""
    return _student(values, 1 + 1 / len(values))


def _student(values: Sequence[float], variance: float) -> Interval:
    """Around the mean; `variance` is in units of the seeds' own."""
    mean, half = float(np.mean(values)), _half(values, variance, LEVEL)
    return Interval(mean - half, mean + half)


def _half(values: Sequence[float], variance: float, level: float) -> float:
    # Not stats.t.interval with loc and scale: it has no interval of equal seeds.
    return _quantile(level, len(values) - 1) * float(np.std(values, ddof=1)) * variance**0.5


def of_accuracy(values: Sequence[float], count: int) -> Interval:
    """Of the mean accuracy over seeds, each measured on the same `count` images.

    Images and seeds are independent sources: Wilson's and Student's distances from the mean are
    added as squares. More seeds narrow the second only, since all are tested on the same images.
    """
    mean = float(np.mean(values))
    images = wilson(mean, count)
    if len(values) == 1:
        return images
    seeds = over_seeds(values)
    return Interval(
        max(0.0, mean - float(np.hypot(mean - images.low, mean - seeds.low))),
        min(1.0, mean + float(np.hypot(images.high - mean, seeds.high - mean))),
    )


def differs(values: Sequence[float], other: float, count: int) -> bool | None:
    """Whether the mean accuracy of our seeds is another than that of one other run.

    Each is measured on `count` images. The interval of the difference is Newcombe's (1998, method
    10): the distances of both to the ends of their Wilson intervals are added as squares, and with
    them by how far a further run is expected from the mean of ours.

    Returns:
        None if one seed cannot tell: by the images it is another, but seeds may differ by as much.
    """
    mean, interval = float(np.mean(values)), partial(wilson, count=count, level=SURE)
    ours, theirs = interval(mean), interval(other)
    if mean > other:
        images = float(np.hypot(mean - ours.low, theirs.high - other))
    else:
        images = float(np.hypot(ours.high - mean, other - theirs.low))
    distance = abs(mean - other)
    if distance <= images:
        return False
    if len(values) == 1:
        seeds = 2**0.5 * SEED_DEVIATION * _quantile(SURE, np.inf)
    else:
        seeds = _half(values, 1 + 1 / len(values), SURE)
    if distance > np.hypot(images, seeds):
        return True
    return None if len(values) == 1 else False


def mcnemar(first: np.ndarray, second: np.ndarray) -> tuple[int, int, float]:
    """Exact test of McNemar (1947) on what two classifiers (n,) bool have right.

    Returns:
        Images that only the first and only the second has right, and the two-sided p value.
    """
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    if only_first == only_second == 0:
        return 0, 0, 1.0
    test = stats.binomtest(only_first, only_first + only_second, 0.5)
    return only_first, only_second, float(test.pvalue)


def of_seeds(first: np.ndarray, second: np.ndarray) -> float:
    """Whether two ways of training differ: the two-sided p value of the difference of their mean
    accuracies, of what seeds (s, n) and (t, n) bool have right of the same n images.

    Of one seed each it is McNemar's test, which compares two trained models. Else images and seeds
    are both sources of chance, as cases and readers are to Dorfman, Berbaum and Metz (1992): their
    variances are added, and the chance of an image in a seed, which is in both, is taken away once.
    Where one side has a single seed, its seeds are taken to differ as the other's.

    Returns:
        1 of a single image, which tells nothing.
    """
    if first.shape[1] < 2:
        return 1.0
    sides = first.astype(float), second.astype(float)
    if len(first) == len(second) == 1:
        return mcnemar(first[0], second[0])[2]
    several = [side if len(side) > 1 else other for side, other in (sides, sides[::-1])]
    count, shares = first.shape[1], [1 / len(side) for side in sides]
    images = float(np.var(sides[0].mean(0) - sides[1].mean(0), ddof=1)) / count
    seeds = [share * float(np.var(side.mean(1), ddof=1))
             for share, side in zip(shares, several, strict=True)]  # fmt: skip
    both = [share * float(np.var(side, axis=0, ddof=1).mean()) / count
            for share, side in zip(shares, several, strict=True)]  # fmt: skip
    if several[0] is several[1]:  # one estimate for both
        several, seeds = several[:1], [sum(seeds)]
    parts = [(max(0.0, images - sum(both)), np.inf)]
    parts += [(each, len(side) - 1) for each, side in zip(seeds, several, strict=True)]
    difference = sides[0].mean() - sides[1].mean()
    # Few seeds may happen to be equal: what is told of recipes is no surer than of trained models.
    models = [(max(images, sum(both)), np.inf)]
    return max(_p_value(difference, parts), _p_value(difference, models))


def of_splits(first: Sequence[float], second: Sequence[float], tested: float, count: int) -> float:
    """The same of accuracies (k,) by at least two splits of the images, by the same ones.

    Splits share images, which Nadeau and Bengio (2003) allow for.

    Args:
        tested: images of the test part, as a share of those of the training part.
        count: images of the test part: by them alone the differences vary by as much.
    """
    differences = np.subtract(first, second)
    mean = float(differences.mean())
    spread = max(float(np.var(differences, ddof=1)), abs(mean) * (1 - abs(mean)) / count)
    variance = spread * (1 / len(differences) + tested)
    return _p_value(mean, [(variance, len(differences) - 1)])


def _p_value(difference: float, parts: Sequence[tuple[float, float]]) -> float:
    """At which level the difference is as far as the ends of its interval.

    Their squared distance is the sum of those of all parts, each a variance with its degrees of
    freedom: one number of freedom for all would be wrong where one part has very few.
    """

    def beyond(p_value: float) -> float:
        distances = (variance * _quantile(1 - p_value, freedom) ** 2 for variance, freedom in parts)
        return difference**2 - sum(distances)

    if beyond(1e-12) >= 0:  # also of no variance at all
        return 1e-12 if difference else 1.0
    return float(optimize.brentq(beyond, 1e-12, 1.0))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted for as many tests: compare with 0.05 as if there were one (Holm, 1979)."""
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def per_class(labels: np.ndarray, correct: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share of right answers and number of images of each class (classes,); NaN without images."""
    return means(labels, correct, int(labels.max()) + 1)


def confused(
    labels: np.ndarray, answers: np.ndarray, most: int
) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Of at most `most` classes that are confused most (k,), none if no answer (n,) is wrong.

    Returns:
        The classes, and by class and answer (k, k) the images and their shares of the class's.
    """
    total = max(labels.max(), answers.max()) + 1
    matrix = np.zeros((total, total), int)
    np.add.at(matrix, (labels, answers), 1)
    wrong = matrix * (1 - np.eye(total, dtype=int))
    chosen: list[int] = []
    for place in np.argsort(-wrong, axis=None, kind="stable")[: np.count_nonzero(wrong)]:
        pair = [int(number) for number in np.unravel_index(place, wrong.shape)]
        if len({*chosen, *pair}) > most:
            break
        chosen += [number for number in pair if number not in chosen]
    chosen.sort()
    counts = matrix[np.ix_(chosen, chosen)]
    return chosen, counts, counts / np.maximum(matrix[chosen].sum(1, keepdims=True), 1)
