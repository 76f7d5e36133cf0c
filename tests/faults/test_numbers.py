"""Numbers and sizes that training cannot go on with: said clearly, and when."""

import math
from pathlib import Path

import pytest
import torch
from PIL import Image

from caltech.errors import DivergedError, InputError
from caltech.train import train
from tests.faults.test_damage import SMALL
from tests.observers import Doing


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("moment", ["before training", "before validation"])
def test_weights_that_are_no_numbers(configure, monkeypatch, value, moment):
    cfg = configure(*SMALL, "freeze=none", "num_epochs=1")
    models = []
    monkeypatch.setattr("caltech.train.require_fit", lambda model, *_: models.append(model))

    def spoil() -> None:
        with torch.no_grad():
            next(iter(models[0].linear.parameters())).fill_(value)

    before = moment == "before training"
    observer = Doing(spoil, at_epoch=0) if before else Doing(spoil, at_step=2)  # of two
    said = "epoch 1, step 1" if before else "loss on the validation images"
    with pytest.raises(DivergedError, match=said):
        train(cfg, observer=observer)
    assert not (Path(cfg.directory) / "result.json").exists()
    assert not (Path(cfg.directory) / "checkpoint.pt").exists()  # nothing is kept of such weights
    monkeypatch.undo()
    train(cfg)
    assert (Path(cfg.directory) / "result.json").exists()


@pytest.mark.parametrize("lr", ["1e5", "1e30", "3e38"])
def test_a_learning_rate_that_diverges_is_told_with_a_smaller_one(configure, lr):
    cfg = configure(*SMALL, "freeze=none", f"lr={lr}", "num_epochs=20", "schedule=constant")
    try:
        train(cfg)
    except DivergedError as error:
        assert "smaller" in str(error)
    else:  # BatchNorm makes a network bear much; then all its numbers are numbers
        assert lr == "1e5"


def images(root: Path, **counts: int) -> Path:
    for category, count in counts.items():
        folder = root / "caltech101" / "101_ObjectCategories" / category
        folder.mkdir(parents=True)
        for number in range(count):
            colour = (10 * number % 256, 100, 200)
            Image.new("RGB", (40, 40), colour).save(folder / f"image_{number:04d}.jpg")
    return root


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ({"ant": 20}, "one category folder only, 'ant'"),
        ({"ant": 1, "bee": 1}, "has 2 images of 2 classes, and no split can do with fewer than 4"),
        ({}, "has no category folder|does not exist"),
    ],
)
def test_too_little_data(configure, tmp_path, counts, said):
    images(tmp_path, **counts)
    with pytest.raises(InputError, match=said):
        train(configure(*SMALL, f"data.root={tmp_path}", "data.download=false"))
    assert not (tmp_path / "multirun").exists()


def test_an_empty_part_of_a_list(configure, tmp_path):
    images(tmp_path, ant=6, bee=6)
    (tmp_path / "train.txt").write_text("ant/image_0001.jpg\n")
    (tmp_path / "test.txt").write_text("\n")
    lists = [f"data.train_files={tmp_path}/train.txt", f"data.test_files={tmp_path}/test.txt"]
    with pytest.raises(InputError, match=r"part of .* is empty"):
        train(configure(*SMALL, f"data.root={tmp_path}", *lists))


def test_the_smallest_data_that_can_be_trained_on(configure, tmp_path):
    """One image each for training and validation; a class that is not in them."""
    images(tmp_path, ant=2, bee=2)
    result = train(configure(*SMALL, f"data.root={tmp_path}", "num_epochs=1"))
    assert 0 <= result.objective <= 1


def test_a_batch_larger_than_the_data_is_the_data(configure):
    larger, equal = (
        configure(*SMALL, "freeze=none", "num_epochs=2", f"batch_size={size}")
        for size in (1_000_000, 30)
    )
    assert train(larger).last == train(equal).last


@pytest.mark.parametrize("batch_size", [1, 29])  # 30 images to train on: 29 leave one
def test_a_batch_of_one(configure, batch_size):
    """BatchNorm over a single value is refused before any work; where it is bearable, it works."""
    common = [f"batch_size={batch_size}", "num_epochs=1", "freeze=none", "data.crop=32"]
    common += ["data.resize=40", "model.weights=null"]
    refused = configure("model=torchvision", "model.name=mobilenet_v3_small", *common)
    with pytest.raises(InputError, match=rf"batch_size={batch_size} .*one image.*Type batch_size="):
        train(refused)
    assert not Path(refused.directory).exists()
    frozen = configure(
        "model=torchvision", "model.name=mobilenet_v3_small", *common, "freeze=linear"
    )
    assert 0 <= train(frozen).objective <= 1
