"""torchvision's labelled image sets, in the parts that their authors made."""

import difflib
import hashlib
import inspect
import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from PIL import EpsImagePlugin
from tqdm import tqdm

from caltech import fetching
from caltech.data import pixels
from caltech.data.dataset import PARTS, Collection, Dataset, require_training
from caltech.data.folders import naming_file, signature
from caltech.data.sources import Reading, assemble, kept, parts_of
from caltech.data.split import Split
from caltech.errors import DamagedError, InputError
from caltech.files import read_sealed_json, write_sealed_json

Arguments = Mapping[str, Any]


def _parts(**values: str) -> dict[str, Arguments]:
    return {part: {"split": value} for part, value in values.items()}


_FLAG = {"train": {"train": True}, "test": {"train": False}}
_TWO = _parts(train="train", test="test")
_THREE = _parts(train="train", validation="val", test="test")
_WHOLE = {"": {}}  # its authors made no parts
# What a class is to be called with for each part. ImageNet's and Imagenette's validation part is
# their test, as everywhere.
SETS: dict[str, Mapping[str, Arguments]] = {
    **dict.fromkeys(("CIFAR10", "CIFAR100", "MNIST", "FashionMNIST", "KMNIST", "USPS"), _FLAG),
    **dict.fromkeys(("SVHN", "STL10", "GTSRB", "Food101", "StanfordCars"), _TWO),
    **dict.fromkeys(("Flowers102", "DTD", "FGVCAircraft", "PCAM", "RenderedSST2"), _THREE),
    "EMNIST": {part: {"split": "balanced", **flag} for part, flag in _FLAG.items()},
    "OxfordIIITPet": _parts(train="trainval", test="test"),
    "Country211": _parts(train="train", validation="valid", test="test"),
    "Imagenette": _parts(train="train", test="val"),
    "ImageNet": _parts(train="train", test="val"),
    **dict.fromkeys(("Caltech256", "EuroSAT", "SUN397", "SEMEION", "FakeData"), _WHOLE),
}


def torchvision_set(
    name: str | None,
    root: str,
    download: bool,
    resize: int,
    crop: int,
    split: Split,
    cache_pixels: bool,
    cache: str,
) -> Dataset:
    """A set of torchvision by the name of its class; validation is of training if it has none.

    Its images and labels are torchvision's to read, and are read once for their digest, which is
    kept while nothing below `root` has another size or time.

    Args:
        name: one of SETS.
        root: as torchvision lays it out.
        download: let torchvision fetch it into `root`.
        resize, crop, split, cache_pixels, cache: as of sources.caltech101.

    Raises:
        InputError: there is no such set, it is not in `root`, or cannot be split so.
    """
    if name not in SETS:
        plain = {each.lower(): each for each in SETS}
        near = difflib.get_close_matches(str(name).lower(), plain, n=3, cutoff=0.4)
        close = [plain[each] for each in near]
        raise InputError(
            f"data.name={name} is no set of data=torchvision. "
            f"{'Did you mean ' + ', '.join(close) + '? ' if close else ''}"
            f"There are {', '.join(sorted(SETS))}."
        )
    reading = Reading(resize, crop, Path(cache).expanduser(), cache_pixels)
    place = Path(root).expanduser()
    parts = {part: _opened(name, place, given, download) for part, given in SETS[name].items()}
    rows = [(part, row) for part, each in parts.items() for row in range(len(each))]
    files = _names(place, parts)
    stamp = _stamp(name, place)
    labels, content = _read(name, parts, rows, reading.cache / "digests" / f"{stamp}.json")
    if "" in parts:  # in the order of the classes, as the rule wants it
        order = sorted(range(len(rows)), key=lambda i: (labels[i], files[i]))
        rows, files = [rows[i] for i in order], [files[i] for i in order]
        labels = [labels[i] for i in order]
    given = {part: [i for i, (own, _) in enumerate(rows) if own == part] for part in PARTS}
    classes = _classes(next(iter(parts.values())), max(labels) + 1)
    images = Collection(place, files, labels, classes, None if "" in parts else given)
    chosen = parts_of(images, split)
    require_training(images, chosen)

    # torchvision opens files anew for each image; of what it reads at once nothing is promised.
    one_at_a_time = nullcontext() if _paths(next(iter(parts.values()))) else Lock()

    def decode(row: int) -> np.ndarray:
        part, index = rows[row]
        with one_at_a_time:
            image, _ = _item(parts[part], index, files[row])
        return pixels.fit(image, resize)

    def require_unchanged() -> None:
        if _stamp(name, place) != stamp:
            raise InputError(f"{place} changed while it was read. Type the command again.")

    read = kept(pixels.Decoded(decode, len(rows), resize), content, reading, require_unchanged)
    return assemble(name, images, chosen, read, reading, content)


def _opened(name: str, root: Path, given: Arguments, download: bool) -> Any:
    """A part as torchvision opens it."""
    from torchvision import datasets

    EpsImagePlugin.gs_binary = False  # Pillow gives PostScript to a program, whatever it is called
    kind = getattr(datasets, name)
    taken = inspect.signature(kind.__init__).parameters
    can_download = "download" in taken or name == "EMNIST"
    arguments = dict(given)
    if name != "FakeData":
        arguments["root"] = root
    if download is True and not can_download:
        raise InputError(
            f"torchvision cannot download {name}: place it in {root} as its documentation says "
            "(https://pytorch.org/vision/stable/datasets.html), or type data.root=DIR."
        )
    if download is True:
        with suppress(Exception):
            return kind(**arguments)
        fetching.begin(f"data.name={name} is not in {root} and would be downloaded there first")
        root.mkdir(parents=True, exist_ok=True)
        arguments["download"] = True
    try:
        return kind(**arguments)
    except Exception as error:  # each set has errors of its own
        said = (str(error) or type(error).__name__).splitlines()[0]
        fetch = ", or data.download=true to have torchvision fetch it there" if can_download else ""
        raise InputError(
            f"data.name={name} cannot be read from {root}: {said}. Type data.root=DIR with the "
            f"folder that torchvision's {name} is in{fetch}."
        ) from error


def _item(part: Any, index: int, file: str) -> tuple[Any, int]:
    """Image and label; what cannot be read is named."""
    try:
        image, label = part[index]
        return image, int(label)
    except Exception as error:
        raise InputError(
            f"Cannot read the image {file}: {error}. Restore it from its archive."
        ) from error


def _read(
    name: str, parts: Mapping[str, Any], rows: Sequence[tuple[str, int]], note: Path
) -> tuple[list[int], str]:
    """Label of each image, and SHA-256 of all images and labels: as they are kept, or read."""
    try:
        if note.is_file():
            before = read_sealed_json(note)
            return before["labels"], before["content"]
    except DamagedError:
        pass  # it is read again
    sha, labels = hashlib.sha256(), []
    for part, index in tqdm(rows, desc=f"reading {name}", disable=None):
        image, label = _item(parts[part], index, f"{part}/{index}")
        labels.append(label)
        sha.update(f"{part}\0{label}\0{image.mode}\0{image.size}\0".encode() + image.tobytes())
    write_sealed_json(note, {"set": name, "content": sha.hexdigest(), "labels": labels})
    return labels, sha.hexdigest()


def _stamp(name: str, root: Path) -> str:
    """A hash of the names, sizes and times of all files below `root`."""
    sha = hashlib.sha256(f"{name}\0{root.absolute()}".encode())
    with naming_file():
        for folder, folders, files in os.walk(root):
            folders.sort()
            for file in sorted(files):
                path = Path(folder, file)
                sha.update(os.fsencode(path) + str(signature(path)).encode())
    return sha.hexdigest()[:32]


def _names(root: Path, parts: Mapping[str, Any]) -> list[str]:
    """Paths below `root` where torchvision has files, else part and number."""
    names = []
    for part, each in parts.items():
        paths = _paths(each)
        if len(paths) == len(each):
            names += [os.path.relpath(path, root) for path in paths]
        else:
            names += [f"{part or 'all'}/{index:06d}" for index in range(len(each))]
    if len(set(names)) < len(names):
        return [
            f"{part or 'all'}/{i:06d}" for part, each in parts.items() for i in range(len(each))
        ]
    return names


def _paths(part: Any) -> list[str]:
    """torchvision has no one name for them."""
    for attribute in ("_image_files", "_images", "samples", "_samples"):
        found = getattr(part, attribute, None)
        if isinstance(found, list) and found:
            first = [each[0] if isinstance(each, tuple) else each for each in found]
            if all(isinstance(path, str | Path) for path in first):
                return [str(path) for path in first]
    return []


def _classes(part: Any, count: int) -> tuple[str, ...]:
    """Their names where torchvision has as many, else their numbers."""
    for attribute in ("classes", "categories"):
        found = getattr(part, attribute, None)
        if found is not None and len(found) >= count:
            named = [each[0] if isinstance(each, tuple) else each for each in found]
            return tuple(str(name) for name in named)
    return tuple(str(number) for number in range(count))
