"""Which images are for training, validation and test: by the study's rule, or by lists of files."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from caltech.errors import InputError


def of(files: list[str], train_files: str | None, test_files: str | None) -> dict[str, Tensor]:
    """Indices into `files` of the three parts: by the rule if there are no lists.

    The lists are text files with a category/image.jpg a line; a fourth of train validates.

    Raises:
        InputError: one list is missing, or has an unknown image, one twice, or one of the other.
    """
    if not (train_files or test_files):
        return by_rule(len(files))
    if not (train_files and test_files):
        missing = "data.test_files" if train_files else "data.train_files"
        raise InputError(f"{missing} is missing: data.train_files and data.test_files go together.")
    index = {file: position for position, file in enumerate(files)}
    train = _listed("data.train_files", train_files, index)
    test = _listed("data.test_files", test_files, index)
    if overlap := sorted(set(train) & set(test)):
        raise InputError(
            f"{len(overlap)} files are in both data.train_files and data.test_files, "
            f"{overlap[0]} for one. Remove them from one of the two."
        )
    return _with_validation(*(torch.tensor([index[f] for f in part]) for part in (train, test)))


def by_rule(count: int) -> dict[str, Tensor]:
    """Every third of the ordered images is for test, every fourth of the others for validation.

    The test part is, file by file, that of the course the study was made in (8677 images: 2893);
    how the study drew its validation part of the same size (1446 of 5784) is unknown.
    """
    indices = torch.arange(count)
    is_test = indices % 3 == 0
    return _with_validation(indices[~is_test], indices[is_test])


def require_parts(images: Path, classes: tuple[str, ...], split: dict[str, Tensor]) -> None:
    """Raise InputError unless there are two classes or more, and images in every part."""
    if len(classes) < 2:
        raise InputError(
            f"{images} has images in one category folder only, {classes[0]}: there is nothing to "
            "tell apart. Type data.root= with a folder of at least two."
        )
    for part, indices in split.items():
        if not len(indices):
            raise InputError(
                f"The {part} part of {images} is empty: {sum(map(len, split.values()))} images are "
                "too few. Every third is for test and every fourth of the others for validation; "
                "data.train_files and data.test_files name others."
            )


def _listed(key: str, path: str, index: Mapping[str, int]) -> list[str]:
    """The files in a list, each once and each one of `index`."""
    if not Path(path).is_file():
        raise InputError(
            f"{key}={path} does not exist: a text file with a category/image.jpg a line."
        )
    lines = [line.strip() for line in Path(path).read_text("utf-8").splitlines()]
    listed = [line for line in lines if line]
    if unknown := [line for line in listed if line not in index]:
        raise InputError(f"{key}={path} lists {unknown[0]}, which is not in the data set.")
    if repeated := [file for file, times in Counter(listed).items() if times > 1]:
        raise InputError(f"{key}={path} lists {repeated[0]} more than once. Remove the repetition.")
    return listed


def _with_validation(rest: Tensor, test: Tensor) -> dict[str, Tensor]:
    is_validation = torch.arange(len(rest)) % 4 == 0
    return {"train": rest[~is_validation], "validation": rest[is_validation], "test": test}
