"""Splits by chance: the shares that were asked for, the same for ever, and groups on one side."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caltech.data import dataset
from caltech.data.dataset import PARTS, Collection, parts_of
from caltech.data.split import Fraction, PerClass
from caltech.errors import InputError


def of(sizes: list[int], per_object: int = 1) -> Collection:
    """Classes of so many images, so many photographs of one object each."""
    files, labels = [], []
    for label, size in enumerate(sizes):
        files += [f"{label}/object{n // per_object}_{n}.jpg" for n in range(size)]
        labels += [label] * size
    return Collection("here", files, labels, tuple(map(str, range(len(sizes)))))


def counted(images: Collection, parts: dict) -> dict[str, Counter]:
    found = {part: Counter(images.labels[row] for row in parts[part].tolist()) for part in PARTS}
    rows = [row for part in PARTS for row in parts[part].tolist()]
    assert len(rows) == len(set(rows))  # no image in two parts
    return found


@given(st.lists(st.integers(10, 60), min_size=2, max_size=5), st.integers(0, 9))
def test_fractions_are_of_each_class(sizes, seed):
    images = of(sizes)
    parts = counted(images, Fraction(0.6, 0.2, 0.2, seed, None).parts(images))
    for label, size in enumerate(sizes):
        for part, share in zip(PARTS, (0.6, 0.2, 0.2), strict=True):
            assert abs(parts[part][label] - share * size) <= 1
    assert sum(part.total() for part in parts.values()) == sum(sizes)


@pytest.mark.parametrize("test", [7, None])
def test_as_many_of_each_class(test):
    images = of([20, 30, 13])
    parts = counted(images, PerClass(4, 2, test, 0, None).parts(images))
    assert parts["train"] == Counter({0: 4, 1: 4, 2: 4})
    assert parts["validation"] == Counter({0: 2, 1: 2, 2: 2})
    assert parts["test"] == (
        Counter({0: 14, 1: 24, 2: 7}) if test is None else Counter([0, 1, 2] * 7)
    )


def test_a_draw_is_the_same_for_ever_and_another_for_another_seed():
    images = of([8, 8])
    assert Fraction(0.5, 0.25, 0.25, 0, None).parts(images)["test"].tolist() == [2, 3, 8, 13]
    seen = {
        tuple(PerClass(3, 2, 3, seed, None).parts(images)["test"].tolist()) for seed in range(9)
    }
    assert len(seen) == 9


@pytest.mark.parametrize("split", [Fraction(0.5, 0.25, 0.25, 3, r"\d+/object\d+"),
                                   PerClass(9, 3, None, 3, r"(\d+/object\d+)_")])  # fmt: skip
def test_photographs_of_one_object_stay_together(split):
    images = of([30, 30, 45], per_object=3)
    side = {}
    for part, rows in split.parts(images).items():
        for row in rows.tolist():
            assert side.setdefault(images.files[row].split("_")[0], part) == part
    assert len(side) == 35


@pytest.mark.parametrize(
    ("split", "said"),
    [
        (Fraction(0.6, 0.2, 0.3, 0, None), r"add up to 1\.1"),
        (Fraction(0.8, 0.2, 0, 0, None), "each must be more than 0"),
        (Fraction(0.6, 0.2, 0.2, -1, None), "split.seed=-1 is not allowed"),
        (Fraction(0.6, 0.2, 0.2, 0, "("), r"split.group=\( is no regular expression"),
        (Fraction(0.6, 0.2, 0.2, 0, "jpg"), "makes 1 group of all 24 images, 'jpg'"),
        (Fraction(0.6, 0.2, 0.2, 0, "object1"), "finds nothing in .* of 24 names, 0/object0_0.jpg"),
        (PerClass(10, 3, None, 0, None), "The class 0 has 12 images, and .* asks for 14"),
        (PerClass(0, 3, None, 0, None), "split.train_per_class=0 is not allowed"),
        (PerClass(3, None, 3, 0, None), "split.val_per_class=None is not allowed"),
        (PerClass(4, 3, None, 0, r"object\d+"), "cannot be put together"),
    ],
)
def test_draws_that_cannot_be(split, said):
    with pytest.raises(InputError, match=said):
        split.parts(of([12, 12], per_object=4))


def test_classes_of_which_nothing_is_measured_are_told_once(caplog, monkeypatch):
    """Of four images at 0.8, 0.1 and 0.1 none is for the test."""
    monkeypatch.setattr(dataset, "_told", set())
    images = of([4, 40, 4])
    parts_of(images, Fraction(0.8, 0.1, 0.1, 0, None))
    assert "2 of 3 classes have no test image, 0 (4 images) for one" in caplog.text
    caplog.clear()
    parts_of(images, Fraction(0.8, 0.1, 0.1, 0, None))
    parts_of(of([40, 40]), Fraction(0.8, 0.1, 0.1, 0, None))
    assert caplog.text == ""
