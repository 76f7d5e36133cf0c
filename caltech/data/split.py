"""Which images are for training, validation and test: a class for each option of conf/split/.

What is random is drawn by a hash of the seed and an image's name: it is the same for ever and
everywhere. An image that is added or removed leaves other classes as they are; of its own class,
per_class keeps nearly all where they are, and fraction divides them anew.
"""

import hashlib
import logging
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from caltech.amounts import counted
from caltech.data.dataset import PARTS, SHORT, Collection
from caltech.errors import InputError

log = logging.getLogger(__name__)

Parts = dict[str, Tensor]  # indices, by the names in PARTS; an image may be in none


class Split(Protocol):
    """What a data set asks of an option; InputError if the images cannot be split so."""

    def parts(self, images: Collection) -> Parts: ...


@dataclass(frozen=True)
class Own:
    """The parts that the data set comes in, or else the study's rule."""

    def parts(self, images: Collection) -> Parts:
        return Rule().parts(images) if images.given is None else Folders().parts(images)


@dataclass(frozen=True)
class Rule:
    """Every third of the ordered images is for test, every fourth of the others for validation.

    The test part is, file by file, that of the course the study was made in (8677 images: 2893);
    how the study drew its validation part of the same size (1446 of 5784) is unknown.
    """

    def parts(self, images: Collection) -> Parts:
        indices = torch.arange(len(images.files))
        is_test = indices % 3 == 0
        return _with_validation(indices[~is_test], indices[is_test])


@dataclass(frozen=True)
class Folders:
    """The parts that the data set comes in; every fourth training image validates if none does."""

    def parts(self, images: Collection) -> Parts:
        if images.given is None:
            raise InputError(
                f"split=folders needs a data set that comes in parts, and {images.place} has no "
                "folders train and test. Type split=rule, split=fraction or split=per_class."
            )
        given = {part: torch.tensor(rows) for part, rows in images.given.items() if len(rows)}
        for part in ("train", "test"):
            if part not in given:
                raise InputError(
                    f"{images.place} has no {part} part; it has {' and '.join(given)}. Make a "
                    f"folder {part} there; without a validation part, training gives one."
                )
        if "validation" not in given:
            return _with_validation(given["train"], given["test"])
        return {part: given[part] for part in PARTS}


OWN = Own()


@dataclass(frozen=True)
class Files:
    """The names in text files, one a line; every fourth of train_files validates without val_files.

    Raises:
        InputError: a list is missing, or has an unknown name, one twice, or one of another.
    """

    train_files: str | None
    val_files: str | None
    test_files: str | None
    of: str = "split"  # the group whose keys they are, for messages

    def parts(self, images: Collection) -> Parts:
        typed = {"train": self.train_files, "validation": self.val_files, "test": self.test_files}
        keys = {part: f"{self.of}.{SHORT[part]}_files" for part in PARTS}
        if missing := [keys[part] for part in ("train", "test") if not typed[part]]:
            raise InputError(
                f"{missing[0]} is missing: {keys['train']} and {keys['test']} go together."
            )
        index = {file: position for position, file in enumerate(images.files)}
        lists = {part: _listed(keys[part], typed[part], index) for part in PARTS if typed[part]}
        _require_apart({keys[part]: files for part, files in lists.items()})
        found = {part: torch.tensor([index[f] for f in files]) for part, files in lists.items()}
        if "validation" not in found:
            return _with_validation(found["train"], found["test"])
        return found


@dataclass(frozen=True)
class Fraction:
    """Shares of each class, drawn at random; a group of images stays together.

    Args:
        train_share, val_share, test_share: from 0 to 1, together 1.
        seed: of the draw.
        group: regular expression searched in the images' names; those in which it finds the same
            (its first parentheses, or all of it) are in one part.
    """

    train_share: float
    val_share: float
    test_share: float
    seed: int
    group: str | None

    def parts(self, images: Collection) -> Parts:
        shares = self.train_share, self.val_share, self.test_share
        if not all(0 < share < 1 for share in shares) or abs(sum(shares) - 1) > 1e-6:
            raise InputError(
                f"The shares {', '.join(map(str, shares))} of split.train_share, split.val_share "
                f"and split.test_share add up to {sum(shares):g}: each must be more than 0, and "
                "all together 1, for example 0.6, 0.2 and 0.2."
            )
        sizes = Counter(images.labels)
        wanted = [{label: share * size for label, size in sizes.items()} for share in shares]
        parts: dict[str, list[int]] = {part: [] for part in PARTS}
        for rows in _drawn(images, self.seed, self.group):
            needs = [sum(want[images.labels[row]] for row in rows) for want in wanted]
            number = needs.index(max(needs))
            parts[PARTS[number]] += rows
            for row in rows:
                wanted[number][images.labels[row]] -= 1
        return _sorted(parts)


@dataclass(frozen=True)
class PerClass:
    """As many images of each class, drawn at random; a group of images stays together.

    Args:
        train_per_class, val_per_class: images of each class.
        test_per_class: the same, or null for all that are left. Others are in no part.
        seed, group: as of Fraction.
        train_on_validation: train on the validation images, too, once all is chosen by them.
    """

    train_per_class: int
    val_per_class: int
    test_per_class: int | None
    seed: int
    group: str | None
    train_on_validation: bool = False

    def parts(self, images: Collection) -> Parts:
        parts = self._drawn(images)
        if self.train_on_validation is True:
            log.warning(
                "split.train_on_validation=true: the validation images are trained on. Their "
                "accuracy says nothing of new images, and nothing is to be chosen by it."
            )
            parts["train"] = torch.cat([parts["train"], parts["validation"]]).sort().values
        return parts

    def _drawn(self, images: Collection) -> Parts:
        typed = self.train_per_class, self.val_per_class, self.test_per_class
        counts = dict(zip(PARTS, typed, strict=True))
        self._require_possible(images, counts)
        parts: dict[str, list[int]] = {part: [] for part in PARTS}
        rest = len(images.files)  # more than there are
        left = {p: Counter(dict.fromkeys(images.labels, n or rest)) for p, n in counts.items()}
        for rows in _drawn(images, self.seed, self.group):
            asked = Counter(images.labels[row] for row in rows)
            part = next((part for part in PARTS if asked <= left[part]), None)
            if part is not None:
                parts[part] += rows
                left[part].subtract(asked)
        for part, missing in left.items():
            if counts[part] and missing.total():
                label = images.classes[missing.most_common(1)[0][0]]
                raise InputError(
                    f"split.group={self.group} makes groups of which "
                    f"{counted(counts[part], 'image')} of {label} for {part} cannot be put "
                    "together. Type other numbers, or split=fraction."
                )
        return _sorted(parts)

    def _require_possible(self, images: Collection, counts: Mapping[str, int | None]) -> None:
        for part, count in counts.items():
            if (count, part) != (None, "test") and not (isinstance(count, int) and count > 0):
                raise InputError(
                    f"split.{SHORT[part]}_per_class={count} is not allowed: it is a number of "
                    "images, at least 1; for the test, null is all others."
                )
        asked = self.train_per_class + self.val_per_class + (self.test_per_class or 1)
        label, fewest = min(Counter(images.labels).items(), key=lambda item: item[1])
        if fewest < asked:
            raise InputError(
                f"The class {images.classes[label]} has {counted(fewest, 'image')}, and "
                f"split=per_class asks for {asked} ({self.train_per_class}, {self.val_per_class} "
                f"and {self.test_per_class or 'at least 1'} for the test). Type smaller "
                "numbers, or move the folder out of the data set."
            )


def _drawn(images: Collection, seed: int, group: str | None) -> list[list[int]]:
    """Rows that stay together, in a random order that the seed alone decides."""
    if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
        raise InputError(
            f"split.seed={seed} is not allowed: it is a whole number from 0. Type split.seed=0."
        )
    units = defaultdict(list)
    for row, name in enumerate(_groups(images.files, group)):
        units[name].append(row)
    if group is not None and len(units) < len(PARTS):
        raise InputError(
            f"split.group={group} makes {counted(len(units), 'group')} of all "
            f"{counted(len(images.files), 'image')}, {next(iter(units))!r} for one: there is "
            "nothing to divide. Type an expression that finds what only the images of one object "
            "share."
        )

    def place(name: str) -> bytes:
        return hashlib.sha256(f"{seed}\0{name}".encode(errors="surrogateescape")).digest()

    return [units[name] for name in sorted(units, key=place)]


def _groups(files: Sequence[str], group: str | None) -> list[str]:
    """The name of each file's group."""
    if group is None:
        return list(files)
    try:
        found = [re.search(group, file) for file in files]
    except (re.error, TypeError) as error:
        raise InputError(f"split.group={group} is no regular expression: {error}.") from error
    if without := [file for file, match in zip(files, found, strict=True) if match is None]:
        raise InputError(
            f"split.group={group} finds nothing in {len(without)} of {len(files)} names, "
            f"{without[0]} for one. Type an expression that finds something in each."
        )
    return [match[1 if match.re.groups else 0] or "" for match in found]


def _sorted(parts: Mapping[str, list[int]]) -> Parts:
    return {part: torch.tensor(sorted(rows), dtype=torch.int64) for part, rows in parts.items()}


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


def _require_apart(lists: Mapping[str, Sequence[str]]) -> None:
    seen: dict[str, str] = {}  # by which list
    for key, files in lists.items():
        if overlap := sorted(set(files) & seen.keys()):
            raise InputError(
                f"{seen[overlap[0]]} and {key} have {counted(len(overlap), 'file')} in common, "
                f"{overlap[0]} for one. Remove what they have in common from one of the two."
            )
        seen |= dict.fromkeys(files, key)


def _with_validation(rest: Tensor, test: Tensor) -> Parts:
    validates = torch.arange(len(rest)) % 4 == 0
    return {"train": rest[~validates], "validation": rest[validates], "test": test}
