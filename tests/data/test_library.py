"""torchvision's sets, from small files in each set's own format."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from torchvision import datasets
from torchvision.datasets.utils import calculate_md5

from caltech.data import library
from caltech.data.library import SETS, torchvision_set
from caltech.data.split import OWN, Fraction
from caltech.errors import InputError

CLASSES = ("ant", "bee")
COUNTS = {"train": 8, "val": 4, "test": 4}  # images of each class that are written


def paint(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    Image.fromarray(random.integers(256, size=(20, 24, 3), dtype=np.uint8)).save(path)
    return path


def folders(root: Path, **parts: str) -> None:
    """root/PART/CLASS/N.jpg, by the names that a set gives its parts."""
    for part, name in parts.items():
        for label, each in enumerate(CLASSES):
            for number in range(COUNTS.get(part, 8)):
                paint(root / name / each / f"{each}_{name}_{number}.jpg", 100 * label + number)


def lists(write: Callable[[str, list[tuple[str, int]]], None], images: Path) -> None:
    """One folder of images, and for each part a list."""
    for place, (part, count) in enumerate(COUNTS.items()):
        listed = []
        for label, each in enumerate(CLASSES):
            for number in range(count):
                stem = f"{each}_{10 * place + number}"
                paint(images / f"{stem}.jpg", 1000 * place + 100 * label + number)
                listed.append((stem, label))
        write(part, listed)


def pets(root: Path) -> None:
    base = root / "oxford-iiit-pet"
    (base / "annotations").mkdir(parents=True)

    def write(part: str, listed: list) -> None:
        lines = [f"{stem} {label + 1} 1 1" for stem, label in listed]
        name = {"train": "trainval"}.get(part, part)
        (base / "annotations" / f"{name}.txt").write_text("\n".join(lines))

    lists(write, base / "images")


def aircraft(root: Path) -> None:
    base = root / "fgvc-aircraft-2013b" / "data"
    base.mkdir(parents=True)
    (base / "variants.txt").write_text("\n".join(CLASSES))

    def write(part: str, listed: list) -> None:
        lines = [f"{stem} {CLASSES[label]}" for stem, label in listed]
        (base / f"images_variant_{part}.txt").write_text("\n".join(lines))

    lists(write, base / "images")


def textures(root: Path) -> None:
    base = root / "dtd" / "dtd"
    (base / "labels").mkdir(parents=True)
    for place, (part, count) in enumerate(COUNTS.items()):
        names = [f"{each}/{each}_{place}{n}.jpg" for each in CLASSES for n in range(count)]
        for number, name in enumerate(names):
            paint(base / "images" / name, 100 * place + number)
        (base / "labels" / f"{part}1.txt").write_text("\n".join(names))


def food(root: Path) -> None:
    base = root / "food-101"
    (base / "meta").mkdir(parents=True)
    for place, part in enumerate(("train", "test")):
        names = {each: [f"{each}/{place}{n}" for n in range(COUNTS[part])] for each in CLASSES}
        for number, name in enumerate([*names["ant"], *names["bee"]]):
            paint(base / "images" / f"{name}.jpg", 100 * place + number)
        (base / "meta" / f"{part}.json").write_text(json.dumps(names))


def scenes(root: Path) -> None:
    base = root / "SUN397"
    folders(base, whole="a")
    (base / "ClassName.txt").write_text("\n".join(f"/a/{each}" for each in CLASSES))
    for path in base.rglob("*.jpg"):
        path.rename(path.with_name(f"sun_{path.name}"))


def signs(root: Path) -> None:
    base = root / "gtsrb" / "GTSRB"
    for label in range(2):
        for number in range(8):
            paint(base / "Training" / f"0000{label}" / f"{number}.ppm", 10 * label + number)
    lines = ["Filename;Width;ClassId"]
    for number in range(8):
        paint(base / "Final_Test" / "Images" / f"{number}.ppm", 100 + number)
        lines.append(f"{number}.ppm;24;{number % 2}")
    (root / "gtsrb" / "GT-final_test.csv").write_text("\n".join(lines))


def digits(root: Path, folder: str) -> None:
    base = root / folder / "raw"
    base.mkdir(parents=True)
    for name, count in (("train", 16), ("t10k", 8)):
        images = np.random.default_rng(count).integers(256, size=(count, 28, 28), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8) // 4 % 2
        head = np.array([2051, count, 28, 28], ">i4").tobytes()
        (base / f"{name}-images-idx3-ubyte").write_bytes(head + images.tobytes())
        head = np.array([2049, count], ">i4").tobytes()
        (base / f"{name}-labels-idx1-ubyte").write_bytes(head + labels.tobytes())


def cifar(root: Path, patched: pytest.MonkeyPatch, kind: type, key: str) -> None:
    base = root / kind.base_folder
    base.mkdir(parents=True)

    def write(name: str, content: dict) -> list[str]:
        (base / name).write_bytes(pickle.dumps(content))
        return [name, calculate_md5(base / name)]

    def batch(seed: int, count: int) -> dict:
        random = np.random.default_rng(seed)
        data = random.integers(256, size=(count, 3072), dtype=np.uint8)
        return {"data": data, key: [n // 4 % 2 for n in range(count)]}

    patched.setattr(kind, "train_list", [write("one", batch(0, 16))])
    patched.setattr(kind, "test_list", [write("two", batch(1, 8))])
    name, md5 = write("meta", {kind.meta["key"]: list(CLASSES)})
    patched.setattr(kind, "meta", {"filename": name, "key": kind.meta["key"], "md5": md5})


def flowers(root: Path, patched: pytest.MonkeyPatch) -> None:
    base = root / "flowers-102"
    for number in range(1, 33):
        paint(base / "jpg" / f"image_{number:05d}.jpg", number)
    savemat(base / "imagelabels.mat", {"labels": np.arange(32) % 2 + 1})
    parts = {"trnid": range(1, 17), "valid": range(17, 25), "tstid": range(25, 33)}
    savemat(base / "setid.mat", {name: list(rows) for name, rows in parts.items()})
    files = {"label": "imagelabels.mat", "setid": "setid.mat"}
    known = {key: (name, calculate_md5(base / name)) for key, name in files.items()}
    patched.setattr(datasets.Flowers102, "_file_dict", known)


def street(root: Path, patched: pytest.MonkeyPatch) -> None:
    root.mkdir()
    known = {}
    for part, count in (("train", 16), ("test", 8)):
        random = np.random.default_rng(count)
        images = random.integers(256, size=(32, 32, 3, count), dtype=np.uint8)
        savemat(
            root / f"{part}.mat",
            {"X": images, "y": np.where(np.arange(count)[:, None] // 4 % 2, 1, 10)},
        )
        known[part] = ["", f"{part}.mat", calculate_md5(root / f"{part}.mat")]
    patched.setattr(datasets.SVHN, "split_list", known)


WRITERS = {
    "EuroSAT": lambda root, _: folders(root / "eurosat", whole="2750"),
    "Country211": lambda root, _: folders(
        root / "country211", train="train", val="valid", test="test"),
    "RenderedSST2": lambda root, _: (
        folders(root / "rendered-sst2", train="train", val="valid", test="test"),
        [path.parent.rename(path.parent.with_name(new))
         for old, new in (("ant", "negative"), ("bee", "positive"))
         for path in list(root.glob(f"*/*/{old}/*_0.jpg"))],
        [path.rename(path.with_suffix(".png")) for path in root.rglob("*.jpg")]),
    "Caltech256": lambda root, _: (
        [paint(root / "caltech256" / "256_ObjectCategories" / f"00{label + 1}.{each}"
               / f"00{label + 1}_{n:04d}.jpg", 10 * label + n)
         for label, each in enumerate(CLASSES) for n in range(1, 9)]),
    "OxfordIIITPet": lambda root, _: pets(root),
    "FGVCAircraft": lambda root, _: aircraft(root),
    "DTD": lambda root, _: textures(root),
    "Food101": lambda root, _: food(root),
    "SUN397": lambda root, _: scenes(root),
    "GTSRB": lambda root, _: signs(root),
    "MNIST": lambda root, _: digits(root, "MNIST"),
    "FashionMNIST": lambda root, _: digits(root, "FashionMNIST"),
    "KMNIST": lambda root, _: digits(root, "KMNIST"),
    "CIFAR10": lambda root, patched: cifar(root, patched, datasets.CIFAR10, "labels"),
    "CIFAR100": lambda root, patched: cifar(root, patched, datasets.CIFAR100, "fine_labels"),
    "Flowers102": flowers,
    "SVHN": street,
    "FakeData": lambda root, patched: patched.setitem(library.SETS, "FakeData", {"": {
        "size": 40, "image_size": (3, 20, 20), "num_classes": 2}}),
}  # fmt: skip


def load(name: str, root: Path, split=OWN, cache_pixels=True, download=False):
    cache = f"{root}.cache"
    return torchvision_set(name, str(root), download, 16, 16, split, cache_pixels, cache)


@pytest.mark.parametrize("name", WRITERS)
def test_a_set_is_read_in_its_own_parts(tmp_path, monkeypatch, name):
    root = tmp_path / "root"
    WRITERS[name](root, monkeypatch)
    data = load(name, root)
    for part in (data.train, data.validation, data.test):
        assert set(data.labels[part].tolist()) == {0, 1}
    rows = torch.cat([data.train, data.validation, data.test])
    assert rows.sort().values.tolist() == list(range(len(data.labels)))
    assert len(set(data.files)) == len(data.files) == len(data.pixels)
    if "validation" in SETS[name]:
        assert (len(data.train), len(data.validation), len(data.test)) == (16, 8, 8)
    elif "test" in SETS[name]:  # every fourth training image validates
        assert (len(data.train), len(data.validation), len(data.test)) == (12, 4, 8)
    decoded = load(name, root, cache_pixels=False)
    assert decoded.digest == data.digest
    assert torch.equal(decoded.pixels[data.test], data.pixels[data.test])
    other = load(name, root, Fraction(0.5, 0.25, 0.25, 0, None))
    assert other.content == data.content and other.digest != data.digest


def test_changed_files_are_another_set(tmp_path):
    folders(tmp_path / "root" / "eurosat", whole="2750")
    before = load("EuroSAT", tmp_path / "root")
    assert before.classes == CLASSES and before.files[0] == "eurosat/2750/ant/ant_2750_0.jpg"
    paint(tmp_path / "root" / "eurosat" / "2750" / "ant" / "ant_2750_0.jpg", 77)
    assert load("EuroSAT", tmp_path / "root").content != before.content


def test_postscript_is_given_to_no_program(tmp_path):
    folders(tmp_path / "root" / "eurosat", whole="2750")
    path = tmp_path / "root" / "eurosat" / "2750" / "ant" / "ant_2750_0.jpg"
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    with pytest.raises(InputError, match=r"Cannot read the image .*Ghostscript|cannot be read"):
        load("EuroSAT", tmp_path / "root")


@pytest.mark.parametrize(
    ("name", "download", "said"),
    [
        (None, False, "data.name=None is no set of data=torchvision. There are CIFAR10"),
        ("flowers", False, "Did you mean Flowers102"),
        ("CIFAR10", False, r"cannot be read from .*root: .*or data\.download=true"),
        ("ImageNet", True, "torchvision cannot download ImageNet: place it in"),
        ("ImageFolder", False, "is no set of data=torchvision"),
    ],
)
def test_sets_that_are_refused(tmp_path, name, download, said):
    with pytest.raises(InputError, match=said):
        load(name, tmp_path / "root", download=download)
    assert not (tmp_path / "root").exists()
