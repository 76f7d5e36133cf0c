"""Which images there are, how they are split, and that their pixels are torchvision's."""

import functools
import http.server
import io
import tarfile
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as vision

from caltech.config import build
from caltech.data import download, pixels, split
from caltech.data.augment import center_crop
from caltech.data.sources import caltech101, digits, list_images
from caltech.errors import InputError


def load(tree: Path, cache: Path, **changes):
    arguments = {
        "root": str(tree), "download": False, "resize": 72, "crop": 64, "train_files": None,
        "test_files": None, "cache": str(cache),
    }  # fmt: skip
    return caltech101(**(arguments | changes))


def reference_crop(path: Path, resize: int, crop: int) -> torch.Tensor:
    with Image.open(path) as image:
        resized = vision.center_crop(vision.resize(image.convert("RGB"), resize), crop)
    return vision.pil_to_tensor(resized)


def test_split_rule_gives_the_study_s_counts():
    parts = split.by_rule(8677)
    counts = {name: len(indices) for name, indices in parts.items()}
    assert counts == {"train": 4338, "validation": 1446, "test": 2893}
    assert sorted(torch.cat(list(parts.values())).tolist()) == list(range(8677))
    assert parts["test"][:3].tolist() == [0, 3, 6]
    assert parts["validation"][:3].tolist() == [1, 7, 13]  # every fourth of 1 2 4 5 7 8 10 11 13


def test_order_is_by_category_without_case_and_without_background(tree):
    files = list_images(tree / "caltech101" / "101_ObjectCategories")
    assert list(dict.fromkeys(file.split("/")[0] for file in files)) == [
        "accordion", "Faces", "Faces_easy", "wild_cat", "yin_yang",
    ]  # fmt: skip
    assert files[0] == "accordion/image_0001.jpg"
    assert len(files) == 60


def test_dataset(tree, cache):
    data = load(tree, cache)
    assert data.pixels.shape == (60, 72, 72, 3)
    assert data.pixels.dtype == torch.uint8
    assert data.labels.bincount().tolist() == [12] * 5
    assert [data.classes[data.labels[i]] for i in (0, 59)] == ["accordion", "yin_yang"]
    assert data.majority_accuracy == pytest.approx(1 / 5)


@pytest.mark.parametrize(("resize", "crop"), [(72, 64), (76, 64), (64, 64), (65, 41)])
def test_pixels_equal_torchvision(tree, cache, resize, crop):
    data = load(tree, cache, resize=resize, crop=crop)
    images = center_crop(data.pixels, torch.arange(60), crop)
    for index in range(60):
        path = tree / "caltech101" / "101_ObjectCategories" / data.files[index]
        assert torch.equal(images[index], reference_crop(path, resize, crop)), path


@pytest.mark.real_data
def test_pixels_equal_torchvision_on_real_images(real_data):
    images = real_data / "caltech101" / "101_ObjectCategories"
    for file in list_images(images)[::400]:
        decoded = torch.from_numpy(pixels.decode(images / file, 256).copy())[None]
        crop = center_crop(decoded, torch.tensor([0]), 224)[0]
        assert torch.equal(crop, reference_crop(images / file, 256, 224)), file


@pytest.mark.real_data
def test_real_data_has_the_study_s_majority_class(real_data):
    files = list_images(real_data / "caltech101" / "101_ObjectCategories")
    labels = [file.split("/")[0] for file in files]
    test = [labels[i] for i in split.by_rule(len(files))["test"].tolist()]
    assert len(files) == 8677
    assert max(test.count(name) for name in set(test)) == 266  # 266 / 2893 = the study's 9.19 %


def test_cache_is_read_and_not_rebuilt(tree, tmp_path, monkeypatch):
    first = load(tree, tmp_path)
    monkeypatch.setattr(pixels, "decode", lambda *_: pytest.fail("decoded again"))
    assert torch.equal(load(tree, tmp_path).pixels, first.pixels)


def test_changed_bytes_are_another_data_set(tree, tmp_path):
    image = tmp_path / "caltech101" / "101_ObjectCategories" / "a" / "image_0001.jpg"
    other = image.parent.with_name("b") / "image_0001.jpg"
    for path in (image, other):  # one class alone is refused, and parts without images
        path.parent.mkdir(parents=True)
        for number in range(1, 4):
            Image.new("RGB", (80, 80), "red").save(path.with_name(f"image_{number:04d}.jpg"))
    before = load(tmp_path, tmp_path / "cache")
    Image.new("RGB", (80, 80), "blue").save(image)
    after = load(tmp_path, tmp_path / "cache")
    assert before.digest != after.digest
    assert not torch.equal(before.pixels, after.pixels)


def test_an_unreadable_image_is_named_and_leaves_no_cache(tmp_path):
    folder = tmp_path / "caltech101" / "101_ObjectCategories" / "a"
    for path in (folder, folder.with_name("b")):  # one class alone is refused
        path.mkdir(parents=True)
        for number in (1, 3, 4):
            Image.new("RGB", (80, 80)).save(path / f"image_{number:04d}.jpg")
    (folder / "image_0002.jpg").write_bytes(b"\xff\xd8 not a JPEG")
    with pytest.raises(InputError, match=r"a/image_0002\.jpg.*Restore it"):
        load(tmp_path, tmp_path / "cache")
    left = {path.suffix for path in (tmp_path / "cache" / "pixels").iterdir()}
    assert left == {".lock"}


def write_lists(folder: Path, train: list[str], test: list[str]) -> dict[str, str]:
    (folder / "train.txt").write_text("\n".join(train) + "\n")
    (folder / "test.txt").write_text("\n".join(test) + "\n")
    return {"train_files": str(folder / "train.txt"), "test_files": str(folder / "test.txt")}


def test_lists_replace_the_rule(tree, cache, tmp_path):
    files = list_images(tree / "caltech101" / "101_ObjectCategories")
    data = load(tree, cache, **write_lists(tmp_path, files[40:48], files[:3]))
    assert data.test.tolist() == [0, 1, 2]
    assert data.validation.tolist() == [40, 44]
    assert data.train.tolist() == [41, 42, 43, 45, 46, 47]
    assert data.digest != load(tree, cache).digest


def test_lists_that_cannot_be_right(tree, cache, tmp_path):
    files = list_images(tree / "caltech101" / "101_ObjectCategories")
    for train, test, message in (
        (files[:5], files[4:6], f"in both .*{files[4]}"),
        ([*files[:5], files[0]], files[6:8], f"lists {files[0]} more than once"),
        (files[:5], ["Faces/image_9999.jpg"], "image_9999.jpg, which is not in the data set"),
    ):
        with pytest.raises(InputError, match=message):
            load(tree, cache, **write_lists(tmp_path, train, test))
    with pytest.raises(InputError, match=r"data\.test_files is missing"):
        load(tree, cache, train_files=str(tmp_path / "train.txt"))
    with pytest.raises(InputError, match=r"data\.train_files=/no/such does not exist"):
        load(tree, cache, train_files="/no/such", test_files=str(tmp_path / "test.txt"))


def test_missing_data_and_no_download(cache, tmp_path):
    with pytest.raises(InputError, match=r"does not exist.*data\.root=FOLDER.*data=digits"):
        load(tmp_path / "nowhere", cache)
    assert not (tmp_path / "nowhere").exists()


def test_missing_data_and_no_network(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "URL", "http://127.0.0.1:9/caltech-101.zip")
    with pytest.raises(InputError, match=r"could not be downloaded.*CALTECH101_ROOT"):
        load(tmp_path, cache, download=True)


def test_a_download_with_another_checksum_is_refused(tree, cache, tmp_path, monkeypatch):
    (tmp_path / "caltech-101.zip").write_bytes(b"not the archive")
    handler = functools.partial(QuietHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/caltech-101.zip"
        monkeypatch.setattr(download, "URL", url)
        with pytest.raises(
            InputError, match="could not be downloaded: File not found or corrupted"
        ):
            load(tmp_path / "root", cache, download=True)
        server.shutdown()
    assert not (tmp_path / "root" / "caltech101" / "101_ObjectCategories").exists()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def archive_of(path: Path, members: list[tarfile.TarInfo]) -> Path:
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"\0" * member.size) if member.isfile() else None)
    with zipfile.ZipFile(path, "w") as outer:
        outer.writestr(download.INNER, inner.getvalue())
    return path


def member(name: str, **changes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = 3
    for key, value in changes.items():
        setattr(info, key, value)
    return info


def test_archive_is_extracted(tmp_path):
    archive = archive_of(tmp_path / "a.zip", [member("101_ObjectCategories/ant/image_0001.jpg")])
    download.extract(archive, tmp_path / "101_ObjectCategories")
    assert (tmp_path / "101_ObjectCategories" / "ant" / "image_0001.jpg").stat().st_size == 3


@pytest.mark.parametrize(
    "harmful",
    [
        member("101_ObjectCategories/../../evil"),
        member("/tmp/evil"),
        member("101_ObjectCategories/link", type=tarfile.SYMTYPE, linkname="/etc/passwd", size=0),
        member("101_ObjectCategories/link", type=tarfile.LNKTYPE, linkname="a", size=0),
        member("101_ObjectCategories/pipe", type=tarfile.FIFOTYPE, size=0),
    ],
)
def test_harmful_archives_are_refused(tmp_path, harmful):
    archive = archive_of(tmp_path / "a.zip", [member("101_ObjectCategories/a"), harmful])
    with pytest.raises(InputError, match="is not extracted"):
        download.extract(archive, tmp_path / "101_ObjectCategories")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_archives_that_grow_too_much_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "MAX_BYTES", 5)
    archive = archive_of(tmp_path / "a.zip", [member("101_ObjectCategories/a"), member("b")])
    with pytest.raises(InputError, match="more than 5 bytes"):
        download.extract(archive, tmp_path / "101_ObjectCategories")


def test_digits(configure):
    data = build(configure("data=digits").data)
    assert data.pixels.shape == (1797, 128, 128, 3)
    assert len(data.test) == 599
    assert len(set(data.files)) == 1797
    assert np.all(np.diff(data.labels.numpy()) >= 0)
    assert data.digest == digits(128, 112).digest


def test_crop_larger_than_the_image(tree, cache):
    with pytest.raises(InputError, match=r"data\.crop=80 .*data\.resize=72"):
        load(tree, cache, crop=80)
