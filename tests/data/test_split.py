"""Which images are for what."""

from pathlib import Path

import pytest
import torch

from caltech.data.dataset import Collection
from caltech.data.folders import list_images
from caltech.data.split import OWN, Files, Folders, Rule
from caltech.errors import InputError

FILES = [f"{category}/{number}.jpg" for category in "abcde" for number in range(12)]


LABELS = [label for label in range(5) for _ in range(12)]
IMAGES = Collection("here", FILES, LABELS, tuple("abcde"))


def listed(folder: Path, train: list[str], test: list[str]) -> Files:
    """The two lists in files."""
    for name, files in (("train", train), ("test", test)):
        (folder / name).write_text("\n".join(files) + "\n")
    return Files(str(folder / "train"), None, str(folder / "test"), of="data")


def test_the_rule_gives_the_study_s_counts():
    parts = Rule().parts(Collection("", range(8677), (), ()))
    counts = {name: len(indices) for name, indices in parts.items()}
    assert counts == {"train": 4338, "validation": 1446, "test": 2893}
    assert sorted(torch.cat(list(parts.values())).tolist()) == list(range(8677))
    assert parts["test"][:3].tolist() == [0, 3, 6]
    assert parts["validation"][:3].tolist() == [1, 7, 13]  # every fourth of 1 2 4 5 7 8 10 11 13


def test_lists_replace_the_rule(tmp_path):
    parts = listed(tmp_path, FILES[40:48], FILES[:3]).parts(IMAGES)
    assert parts["test"].tolist() == [0, 1, 2]
    assert parts["validation"].tolist() == [40, 44]
    assert parts["train"].tolist() == [41, 42, 43, 45, 46, 47]


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (FILES[:5], FILES[4:6], f"1 file in common, {FILES[4]}"),
        ([*FILES[:5], FILES[0]], FILES[6:8], f"lists {FILES[0]} more than once"),
        (FILES[:5], ["a/99.jpg"], r"99\.jpg, which is not in the data set"),
    ],
)
def test_lists_that_cannot_be_right(tmp_path, train, test, message):
    with pytest.raises(InputError, match=message):
        listed(tmp_path, train, test).parts(IMAGES)


def test_one_list_without_the_other(tmp_path):
    train = listed(tmp_path, FILES[:5], []).train_files
    with pytest.raises(InputError, match=r"data\.test_files is missing"):
        Files(train, None, None, of="data").parts(IMAGES)
    with pytest.raises(InputError, match=r"data\.train_files=/no/such does not exist"):
        Files("/no/such", None, train, of="data").parts(IMAGES)


def test_lists_may_have_a_validation_part(tmp_path):
    for name, files in (("train", FILES[:5]), ("val", FILES[5:7]), ("test", FILES[7:9])):
        (tmp_path / name).write_text("\n".join(files))
    names = [str(tmp_path / name) for name in ("train", "val", "test")]
    parts = Files(*names).parts(IMAGES)
    assert {part: rows.tolist() for part, rows in parts.items()} == {
        "train": [0, 1, 2, 3, 4], "validation": [5, 6], "test": [7, 8],
    }  # fmt: skip
    with pytest.raises(InputError, match=r"split.val_files have 5 files in common, a/0.jpg"):
        Files(names[0], names[0], names[2]).parts(IMAGES)


def test_parts_that_images_come_in_are_their_own_split():
    given = {"train": range(20), "validation": [], "test": range(20, 60)}
    images = Collection("here", FILES, LABELS, tuple("abcde"), given)
    parts = OWN.parts(images)
    assert parts["test"].tolist() == [*range(20, 60)]
    assert parts["validation"].tolist() == [0, 4, 8, 12, 16]  # every fourth of training
    given["validation"] = range(3)
    assert OWN.parts(images)["validation"].tolist() == [0, 1, 2]
    assert OWN.parts(IMAGES)["test"].equal(Rule().parts(IMAGES)["test"])
    with pytest.raises(InputError, match="split=folders needs a data set that comes in parts"):
        Folders().parts(IMAGES)
    with pytest.raises(InputError, match=r"no test part; it has train and validation\. Make"):
        OWN.parts(Collection("here", FILES, LABELS, tuple("abcde"), given | {"test": []}))


@pytest.mark.real_data
def test_real_data_has_the_study_s_majority_class(real_data):
    files = list_images(real_data / "caltech101" / "101_ObjectCategories")
    labels = [file.split("/")[0] for file in files]
    test = [labels[i] for i in Rule().parts(Collection("", files, (), ()))["test"].tolist()]
    assert len(files) == 8677
    assert max(test.count(name) for name in set(test)) == 266  # 266 / 2893 = the study's 9.19 %
