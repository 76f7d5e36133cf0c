"""A folder of one's own images: what is read of it, how it is split, and what is refused."""

import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from caltech.data import own, pixels
from caltech.data.dataset import PARTS
from caltech.data.folders import OVERLAY, content_digest
from caltech.data.sources import folder
from caltech.data.split import OWN, Fraction
from caltech.errors import DiskError, InputError
from caltech.files import read_sealed_json, write_sealed_json
from caltech.train import train

HALF = Fraction(0.5, 0.25, 0.25, 0, None)
TINY = ["model=timm", "model.name=test_resnet", "model.weights=null", "freeze=none"]
TINY += ["num_epochs=1", "batch_size=4", "data.resize=40", "data.crop=32"]


def paint(path: Path, colour: tuple = (200, 100, 50), **how) -> Path:
    """An image that no other is: one pixel tells its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (60, 50), colour)
    image.putpixel((0, 0), tuple(zlib.crc32(bytes(path)) >> shift & 255 for shift in (0, 8, 16)))
    with path.open("wb") as file:
        image.save(file, **({"format": "PNG"} | how))
    return path


@pytest.fixture
def photos(tmp_path) -> Path:
    """Three classes of eight, one a folder deeper."""
    for number in range(8):
        paint(tmp_path / "photos" / "ant" / f"{number}.png")
        paint(tmp_path / "photos" / "Bee" / f"year{number % 2}" / "june" / f"{number}.png")
        paint(tmp_path / "photos" / "cat" / f"{number}.png")
    return tmp_path / "photos"


@pytest.fixture
def parted(photos) -> Path:
    """The same in parts."""
    root = photos.parent / "parted"
    for part, numbers in (("train", range(4)), ("valid", (4, 5)), ("test", (6, 7))):
        for name in ("ant", "cat"):
            for number in numbers:
                (root / part / name).mkdir(parents=True, exist_ok=True)
                shutil.copy(photos / name / f"{number}.png", root / part / name)
    return root


def load(root: Path, split=HALF, upright=False, cache_pixels=True):
    data = folder(str(root), None, upright, 40, 32, split, cache_pixels, f"{root}.cache")
    data.complete()
    return data


def test_a_folder_is_a_class_with_all_below_it(photos):
    data = load(photos)
    assert (data.name, data.classes) == ("photos", ("ant", "Bee", "cat"))
    assert data.labels.bincount().tolist() == [8, 8, 8]
    assert data.files[8] == "Bee/year0/june/0.png"
    assert [len(data.train), len(data.validation), len(data.test)] == [12, 6, 6]
    assert data.pixels.shape == (24, 40, 40, 3)


def test_parts_are_told_by_their_folders(parted):
    data = load(parted, OWN)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [8, 4, 4]
    assert {data.files[row].split("/")[0] for row in data.test} == {"test"}
    assert data.classes == ("ant", "cat")


WORKING = {
    "a.webp": {"format": "WEBP", "lossless": True}, "a.bmp": {"format": "BMP"},
    "a.GIF": {"format": "GIF"}, "a.tif": {"format": "TIFF"}, "a.ppm": {"format": "PPM"},
    "a": {}, "a.dat": {}, "a.JPEG": {}, "a.jp2": {"format": "JPEG2000"},
    "a.avif": {"format": "AVIF", "quality": 100},
}  # fmt: skip


@pytest.mark.parametrize("name", WORKING)
def test_what_pillow_reads_is_read_whatever_it_is_called(photos, name):
    path = paint(photos / "ant" / name, (10, 200, 90), **WORKING[name])
    data = load(photos)
    row = data.files.index(f"ant/{path.name}")
    assert (data.pixels[row].float().mean((0, 1)) - torch.tensor([10.0, 200, 90])).abs().max() < 9


def test_what_is_no_image_is_told(photos, caplog):
    (photos / "ant" / "notes.txt").write_text("x")
    (photos / "ant" / "._0.png").touch()
    (photos / ".git").mkdir()
    (photos / "cat" / "again").symlink_to(photos)
    assert len(load(photos).files) == 24
    assert "4 files or folders are no images" in caplog.text
    assert "ant/._0.png, ant/notes.txt, cat/again" in caplog.text


def test_images_of_kinds_that_are_not_read_are_not_left_out(photos, parted):
    for place in (photos / "ant" / "a.HEIC", photos / "dog" / "b.Dng", parted / "test/cat/c.pcx"):
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(b"\0\0\0\x18")
        root = parted if parted in place.parents else photos
        said = rf"1 image of a kind that is not read, {place.relative_to(root)} .*JPEG"
        with pytest.raises(InputError, match=said):
            load(root)
        place.unlink()
    (parted / "train" / "logo.svg").touch()  # in no class
    assert len(load(parted).files) == 16


def test_a_mistyped_folder_is_told_with_the_one_that_is_meant(photos, monkeypatch):
    near = photos.with_name(photos.name[:-1] + photos.name[-1] * 2)
    for path, right in ((near, photos), (near / "ant", photos / "ant")):
        with pytest.raises(InputError, match=rf"does not exist\. Type data\.root={right}\.$"):
            own.listing(path)


def test_an_overlay_of_predict_is_no_image(photos, caplog):
    """`predict photos/ --explain` writes them beside the images."""
    before = load(photos).files
    paint(photos / "ant" / f"0.png{OVERLAY}")
    assert load(photos).files == before
    assert OVERLAY not in caplog.text  # nor is it anything to look after


def test_an_orientation_is_applied_if_that_is_asked_for(photos):
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    noise = np.random.default_rng(0).integers(256, size=(40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(photos / "ant" / "turned.png", exif=exif)
    plain, turned = load(photos), load(photos, upright=True)
    row = plain.files.index("ant/turned.png")
    assert torch.equal(turned.pixels[row], plain.pixels[row].rot90(-1))
    assert plain.content != turned.content


@pytest.mark.parametrize("upright", [False, True])
def test_pixels_that_are_not_cached_are_the_same_bit_for_bit(photos, upright):
    cached, decoded = load(photos, upright=upright), load(photos, HALF, upright, False)
    assert cached.digest == decoded.digest
    rows = torch.tensor([3, 20, 3])
    assert torch.equal(decoded.pixels[rows], cached.pixels[rows])
    assert torch.equal(decoded.pixels[5, 4:36, 4:36], cached.pixels[5, 4:36, 4:36])
    assert decoded.pixels.shape == cached.pixels.shape


def test_a_run_without_the_cache_is_the_same_run(photos, configure):
    typed = ["data=folder", f"data.root={photos}", "split=per_class", "split.train_per_class=4",
             "split.val_per_class=2", *TINY, "augment=flip_crop"]  # fmt: skip
    one = configure(*typed, f"cache={photos}.cache")
    other = configure(*typed, "data.cache_pixels=false", f"cache={photos}.other", "study=other")
    assert one.key == other.key
    assert train(one) == train(other)
    assert not Path(f"{photos}.other/pixels").exists()


def test_images_that_are_not_kept_are_read_once_before_a_run(photos, monkeypatch):
    load(photos, cache_pixels=False)
    monkeypatch.setattr(pixels, "decode", lambda *_: pytest.fail("read again"))
    load(photos, cache_pixels=False)


def test_an_image_that_changes_while_it_is_used_is_told(photos):
    decoded = load(photos, cache_pixels=False).pixels
    paint(photos / "ant" / "0.png", (0, 0, 0))
    with pytest.raises(InputError, match=r"ant/0\.png changed while it was used"):
        decoded[0]


def test_a_cache_that_is_too_large_is_told_before_it_is_built(photos, monkeypatch):
    for name, limit in (("MAX_CACHE_BYTES", 1000), ("shutil", None)):
        with monkeypatch.context() as patched:
            if limit:
                patched.setattr(pixels, name, limit)
            else:
                free = type("Usage", (), {"free": 1})()
                patched.setattr(pixels.shutil, "disk_usage", lambda path, free=free: free)
            with pytest.raises(DiskError, match=r"\d+ kB.*data\.resize=, data\.cache_pixels=false"):
                load(photos)
    assert not list(photos.parent.rglob("*.bin"))


def only(root: Path, *names: str) -> None:
    for path in set(root.iterdir()) - {root / name for name in names}:
        shutil.rmtree(path)


def same_in_two_classes(root: Path) -> None:
    shutil.copy(root / "ant" / "0.png", root / "cat" / "copy.png")


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


REFUSED = {
    "one class": (lambda root: only(root, "ant"), "one category folder only, 'ant'"),
    "no class": (lambda root: only(root), "has no class: it holds nothing"),
    "an empty class": (lambda root: (root / "dog").mkdir(), "dog is a class without an image"),
    "the same image twice": (same_in_two_classes,
                             "cat. .* caltech audit data=folder data.root"),
    "unreadable": (lambda root: (root / "ant" / "0.jpg").write_bytes(b"\xff\xd8"),
                   r"Cannot read the image .*ant/0\.jpg"),
    "cut off": (lambda root: cut_off(root / "ant" / "0.png"), r"Cannot read .*ant/0\.png"),
    "a dead link": (lambda root: (root / "ant" / "x.png").symlink_to("no"), r"x\.png cannot be"),
    "parts without one for training": (
        lambda root: [(root / n).mkdir() for n in ("Val", "testing")],
        "has the folders testing and Val, .* and none for training"),
    "beside parts": (lambda root: [(root / n).mkdir() for n in ("train", "test")],
                     "has the folders test, train, .* and ant, Bee, cat beside them"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("cache_pixels", [True, False])
def test_folders_that_are_refused(photos, kind, cache_pixels):
    harm, said = REFUSED[kind]
    harm(photos)
    with pytest.raises(InputError, match=said):
        load(photos, cache_pixels=cache_pixels)


def test_the_same_image_is_refused_whatever_digest_is_kept(photos):
    same_in_two_classes(photos)
    content_digest(photos, own.listing(photos).files, Path(f"{photos}.cache"))
    for _ in range(2):
        with pytest.raises(InputError, match="same image"):
            load(photos)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda root: shutil.rmtree(root / "test" / "cat"), "classes of .*: test has no cat"),
        (lambda root: shutil.rmtree(root / "test"), "no test part; it has train and validation"),
        (lambda root: shutil.copy(root / "train/ant/0.png", root / "test/ant/x.png"),
         "in the part test and in the part train"),
        (lambda root: shutil.copytree(root / "valid", root / "val"), "val and valid, which are"),
    ],
)  # fmt: skip
def test_parts_that_are_refused(parted, harm, said):
    harm(parted)
    with pytest.raises(InputError, match=said):
        load(parted, OWN)


def test_a_class_without_a_training_image_is_refused(photos):
    for number in range(1, 8):
        (photos / "ant" / f"{number}.png").unlink()
    with pytest.raises(InputError, match=r"has 1 class without a training image, 'ant' with"):
        load(photos, OWN)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["data=folder", "data.root=null"], r"data=folder needs data\.root=DIR"),
        (["data=folder", "data.root=/nowhere"], "data.root=/nowhere does not exist"),
        (["data=digits", "data.split=fraction"], "data.split=fraction is not allowed"),
        (["data=digits", "split=folders"], "needs a data set that comes in parts"),
        (["data=digits", "split=per_class", "split.train_per_class=200"], "The class 8 has 174"),
        (["split=rule", "data.train_files=a", "data.test_files=b"], "are a split already"),
    ],
)
def test_what_cannot_be_typed(configure, typed, said):
    with pytest.raises(InputError, match=said):
        train(configure(*typed))


def test_a_split_s_seed_may_be_the_run_s(configure):
    typed = ["data=digits", "split=fraction", "split.seed=${seed}"]
    one, other = (configure(*typed, f"seed={seed}") for seed in (1, 2))
    assert (one.data.split.seed, other.data.split.seed) == (1, 2)
    assert one.key != other.key
    assert one.key != configure("data=digits", "seed=1").key


def test_the_name_is_the_folder_s(configure, photos):
    cfg = configure("data=folder", f"data.root={photos}/")
    assert cfg.data.name == "photos"
    moved = configure("data=folder", f"data.root={photos.parent}/elsewhere/photos")
    assert moved.key == cfg.key != configure("data=folder", "data.root=other").key


def test_a_loop_of_links_and_a_class_that_is_a_link(photos):
    (photos / "ant" / "up").symlink_to("..")
    (photos / "again").symlink_to(photos)
    shutil.move(photos / "cat", photos.parent / "cat")
    (photos / "cat").symlink_to(photos.parent / "cat")
    assert load(photos).labels.bincount().tolist() == [8, 8, 8]


def test_the_same_image_drawn_into_two_parts_is_told_in_each_run(photos, caplog):
    load(photos)
    assert "byte for byte" not in caplog.text
    for path in list((photos / "ant").iterdir()):
        shutil.copy(path, path.with_name(f"copy of {path.name}"))
    contents = set()
    for kept in ("not at all", "whole", "by earlier code"):
        if kept == "by earlier code":
            (path,) = [each for each in (photos.parent / "photos.cache" / "digests").iterdir()
                       if read_sealed_json(each)["given"]]  # fmt: skip
            old = {name: value for name, value in read_sealed_json(path).items() if name != "given"}
            write_sealed_json(path, old)
        caplog.clear()
        data = load(photos)
        contents.add(data.content)
        part = {row: name for name in PARTS for row in getattr(data, name).tolist()}
        named = {file: part[row] for row, file in enumerate(data.files)}
        pairs = [(f"ant/{n}.png", f"ant/copy of {n}.png") for n in range(8)]
        apart = [pair for pair in pairs if named[pair[0]] != named[pair[1]]]
        assert apart and f"{len(apart)} groups of images are the same" in caplog.text
        one, other = apart[0]
        assert f"{one} ({named[one]}) and {other} ({named[other]})" in caplog.text
    assert len(contents) == 1
