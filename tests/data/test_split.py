"""Which images are for what."""

from pathlib import Path

import pytest
import torch

from caltech.data import split
from caltech.data.folders import list_images
from caltech.errors import InputError

FILES = [f"{category}/{number}.jpg" for category in "abcde" for number in range(12)]


def listed(folder: Path, train: list[str], test: list[str]) -> tuple[str, str]:
    """The two lists in files."""
    for name, files in (("train", train), ("test", test)):
        (folder / name).write_text("\n".join(files) + "\n")
    return str(folder / "train"), str(folder / "test")


def test_the_rule_gives_the_study_s_counts():
    parts = split.by_rule(8677)
    counts = {name: len(indices) for name, indices in parts.items()}
    assert counts == {"train": 4338, "validation": 1446, "test": 2893}
    assert sorted(torch.cat(list(parts.values())).tolist()) == list(range(8677))
    assert parts["test"][:3].tolist() == [0, 3, 6]
    assert parts["validation"][:3].tolist() == [1, 7, 13]  # every fourth of 1 2 4 5 7 8 10 11 13


def test_lists_replace_the_rule(tmp_path):
    parts = split.of(FILES, *listed(tmp_path, FILES[40:48], FILES[:3]))
    assert parts["test"].tolist() == [0, 1, 2]
    assert parts["validation"].tolist() == [40, 44]
    assert parts["train"].tolist() == [41, 42, 43, 45, 46, 47]


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (FILES[:5], FILES[4:6], f"in both .*{FILES[4]}"),
        ([*FILES[:5], FILES[0]], FILES[6:8], f"lists {FILES[0]} more than once"),
        (FILES[:5], ["a/99.jpg"], r"99\.jpg, which is not in the data set"),
    ],
)
def test_lists_that_cannot_be_right(tmp_path, train, test, message):
    with pytest.raises(InputError, match=message):
        split.of(FILES, *listed(tmp_path, train, test))


def test_one_list_without_the_other(tmp_path):
    train, _ = listed(tmp_path, FILES[:5], [])
    with pytest.raises(InputError, match=r"data\.test_files is missing"):
        split.of(FILES, train, None)
    with pytest.raises(InputError, match=r"data\.train_files=/no/such does not exist"):
        split.of(FILES, "/no/such", train)


@pytest.mark.real_data
def test_real_data_has_the_study_s_majority_class(real_data):
    files = list_images(real_data / "caltech101" / "101_ObjectCategories")
    labels = [file.split("/")[0] for file in files]
    test = [labels[i] for i in split.by_rule(len(files))["test"].tolist()]
    assert len(files) == 8677
    assert max(test.count(name) for name in set(test)) == 266  # 266 / 2893 = the study's 9.19 %
