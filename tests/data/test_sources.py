"""Data sets as a whole: their images, order, classes and digest."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from caltech.config import build
from caltech.data.folders import list_images
from caltech.data.sources import caltech101, digits
from caltech.errors import InputError


def load(root: Path, cache: Path, crop: int = 64, lists: tuple = (None, None)):
    return caltech101(str(root), False, 72, crop, *lists, str(cache))


def test_order_is_by_category_without_case_and_without_background(tree):
    files = list_images(tree / "caltech101" / "101_ObjectCategories")
    assert list(dict.fromkeys(file.split("/")[0] for file in files)) == [
        "accordion", "Faces", "Faces_easy", "wild_cat", "yin_yang",
    ]  # fmt: skip
    assert files[0] == "accordion/image_0001.jpg"
    assert len(files) == 60


def test_caltech101(tree, cache):
    data = load(tree, cache)
    assert data.pixels.shape == (60, 72, 72, 3)
    assert data.pixels.dtype == torch.uint8
    assert data.labels.bincount().tolist() == [12] * 5
    assert [data.classes[data.labels[i]] for i in (0, 59)] == ["accordion", "yin_yang"]
    assert data.majority_accuracy == pytest.approx(1 / 5)


def test_caltech101_as_papers_measure_it(configure, caplog):
    """The background is a class; once all is chosen, validation images are trained on."""
    asked = ["data=caltech101_background", "split=per_class", "split.train_per_class=5"]
    chosen = build(configure(*asked, "split.val_per_class=2").data)
    assert chosen.name == "caltech101_background" and len(chosen.files) == 72
    assert chosen.classes[1] == "BACKGROUND_Google"
    assert not caplog.messages
    asked.append("split.train_on_validation=true")
    final = build(configure(*asked, "split.val_per_class=2").data)
    assert "nothing is to be chosen by it" in caplog.text
    assert final.test.equal(chosen.test) and final.validation.equal(chosen.validation)
    assert final.train.tolist() == sorted([*chosen.train.tolist(), *chosen.validation.tolist()])
    assert final.labels[final.train].bincount().tolist() == [7] * 6


def test_digits(configure):
    data = build(configure("data=digits", "data.resize=16", "data.crop=12").data)
    assert data.pixels.shape == (1797, 16, 16, 3)
    assert len(data.test) == 599
    assert len(set(data.files)) == 1797
    assert np.all(np.diff(data.labels.numpy()) >= 0)
    assert data.digest == digits(128, 112).digest


def test_lists_of_files_are_another_data_set(tree, cache, tmp_path):
    data = load(tree, cache)
    for name, part in (("train", data.files[40:48]), ("test", data.files[:3])):
        (tmp_path / name).write_text("\n".join(part))
    other = load(tree, cache, lists=(str(tmp_path / "train"), str(tmp_path / "test")))
    assert other.test.tolist() == [0, 1, 2]
    assert (other.content == data.content, other.digest == data.digest) == (True, False)


def test_changed_bytes_are_another_data_set(root, cache):
    image = root / "caltech101" / "101_ObjectCategories" / "ant" / "image_0001.jpg"
    before = load(root, cache)
    Image.new("RGB", (80, 80), "blue").save(image)
    after = load(root, cache)
    assert before.digest != after.digest
    assert not torch.equal(before.pixels, after.pixels)


def test_an_unreadable_image_is_named_and_leaves_no_cache(root, tmp_path):
    image = root / "caltech101" / "101_ObjectCategories" / "ant" / "image_0002.jpg"
    image.write_bytes(b"\xff\xd8 not a JPEG")
    with pytest.raises(InputError, match=r"ant/image_0002\.jpg.*Restore it"):
        load(root, tmp_path / "cache")
    left = {path.suffix for path in (tmp_path / "cache" / "pixels").iterdir()}
    assert left <= {".lock"}


def test_crop_larger_than_the_image(tree, cache):
    with pytest.raises(InputError, match=r"data\.crop=80 .*data\.resize=72"):
        load(tree, cache, crop=80)
