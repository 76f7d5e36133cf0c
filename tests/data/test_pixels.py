"""Decoded pixels are torchvision's; what the caches do is in tests/test_cache.py."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import functional as vision

from caltech.data import folders, pixels
from caltech.data.augment import center_crop
from caltech.data.folders import list_images


def reference_crop(path: Path, resize: int, crop: int) -> torch.Tensor:
    with Image.open(path) as image:
        resized = vision.center_crop(vision.resize(image.convert("RGB"), resize), crop)
    return vision.pil_to_tensor(resized)


@pytest.mark.parametrize(("resize", "crop"), [(72, 64), (76, 64), (64, 64), (65, 41)])
def test_pixels_equal_torchvision(tree, tmp_path, resize, crop):
    images = tree / "caltech101" / "101_ObjectCategories"
    files = list_images(images)
    decoded = pixels.cached(pixels.of_files(images, files, resize), "x", tmp_path).read()
    crops = center_crop(decoded, torch.arange(60), crop)
    for file, found in zip(files, crops, strict=True):
        assert torch.equal(found, reference_crop(images / file, resize, crop)), file


@pytest.mark.real_data
def test_pixels_equal_torchvision_on_real_images(real_data):
    images = real_data / "caltech101" / "101_ObjectCategories"
    for file in list_images(images)[::400]:
        decoded = torch.from_numpy(pixels.decode(images / file, 256).copy())[None]
        crop = center_crop(decoded, torch.tensor([0]), 224)[0]
        assert torch.equal(crop, reference_crop(images / file, 256, 224)), file


def test_a_file_of_an_earlier_version_is_built_again_in_its_place(tree, tmp_path, caplog):
    """It had the images, then a checksum an image, and no note."""
    images = tree / "caltech101" / "101_ObjectCategories"
    array = pixels.cached(pixels.of_files(images, list_images(images), 32), "x", tmp_path)
    expected = array.read().clone()
    array.path.with_suffix(".json").unlink()
    with array.path.open("ab") as file:
        file.write(np.zeros(60, np.uint32).tobytes())
    assert array.ensure()
    assert array.path.stat().st_size == expected.nbytes
    assert torch.equal(array.read(), expected)
    assert f"{array.path}: checksums are missing (an earlier version" in caplog.text
    assert len(list(array.path.parent.iterdir())) == 3


def test_blocks_are_of_a_size_in_bytes(tmp_path):
    for resize, images in ((256, 170), (4672, 1), (10_000, 1)):
        array = pixels.cached(pixels.of_files(tmp_path, ["a/b.jpg"], resize), "x", tmp_path)
        assert array.block_rows == images


def test_the_digest_is_of_names_and_bytes_and_is_read_where_it_is_kept(tmp_path, monkeypatch):
    for name, content in (("a", b"1"), ("b", b"2"), ("c", b"1")):
        (tmp_path / name).write_bytes(content)

    def digest(*names: str) -> str:
        return folders.content_digest(tmp_path, [*names], tmp_path / "cache")

    first = digest("a", "b")
    assert len({first, digest("b", "a"), digest("c", "b"), digest("a")}) == 4
    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_bytes", lambda *_: pytest.fail("read again"))
        patched.setattr(folders, "read_sealed_json", lambda path, _: {"content": path.name})
        assert digest("a", "b").endswith(".json")
    times = (tmp_path / "a").stat().st_mtime_ns
    (tmp_path / "a").write_bytes(b"2")
    os.utime(tmp_path / "a", ns=(times, times))  # equal size and time
    assert digest("a", "b") != first


def test_a_damaged_digest_is_computed_again(tree, tmp_path, caplog):
    images, files = tree / "caltech101" / "101_ObjectCategories", ["Faces/image_0001.jpg"]
    expected = folders.content_digest(images, files, tmp_path)
    (kept,) = (tmp_path / "digests").iterdir()
    kept.write_text(kept.read_text().replace(expected[:4], "0000"))
    assert folders.content_digest(images, files, tmp_path) == expected
    assert str(kept) in caplog.text
