"""A frozen part's outputs from the cache: the same training, computed once, found again."""

import logging
import shutil
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from caltech.data.augment import FlipCrop, Views
from caltech.data.augmentation.mix import CutMix, MixUp, Unmixed
from caltech.data.dataset import Dataset
from caltech.errors import DiskError, InputError
from caltech.files import read_sealed_json, write_sealed_json
from caltech.runs.checkpoint import read_weights
from caltech.train import train
from caltech.training import features
from caltech.training.features import Features
from caltech.training.precision import Precision

TINY = ["model=timm", "model.name=test_resnet", "model.weights=null"]
VIT = ["model=timm", "model.name=test_vit", "model.weights=null"]
# Its head is linear, activation, dropout, linear.
MOBILENET = ["model=torchvision", "model.name=mobilenet_v3_small", "model.weights=null"]
SMALL = ["data.resize=40", "data.crop=32", "batch_size=16"]
BOTH = ["plain", "mirrored"]
CPU = torch.device("cpu")


class Halved(nn.Module):
    """A frozen part whose outputs are easily told."""

    def __init__(self, divisor: float = 2.0) -> None:
        super().__init__()
        self.register_buffer("two", torch.tensor(divisor))

    def forward(self, images: Tensor) -> Tensor:
        return (images / self.two).mean((2, 3))


def toy(crop: int = 2, content: str = "c" * 64) -> Dataset:
    """Six images of four by four pixels, no two alike."""
    rows = torch.arange(6)
    pixels = torch.arange(6 * 48).remainder(256).to(torch.uint8).view(6, 4, 4, 3)
    files = tuple(f"a/{row}" for row in range(6))
    parts = (rows, rows, rows)
    return Dataset("toy", lambda: pixels, 4, rows % 2, ("a", "b"), files, *parts, crop, content)


def extract(cache: Path, **changes: object) -> Features:
    given = {
        "frozen": Halved(), "data": toy(), "augment": Views(BOTH, ["plain"]),
        "precision": Precision("float32", False), "device": CPU, "cache": cache,
    }  # fmt: skip
    return features.extract(**(given | changes))


def test_edited_code_of_a_plugin_has_features_of_its_own(tmp_path):
    """What a forward does is in no weight; without plugins the name is what it was."""
    for code in ("", "{'own': '0'}", "{'own': '1'}", ""):
        extract(tmp_path, code=code)
    assert len([*tmp_path.glob("features/*.bin")]) == 3 * 2


def test_features_of_one_pixel_in_any_order_of_memory_are_kept(tmp_path):
    """As ConvNeXt's, (n, C, 1, 1) in channels_last; torch gives them strides of their own."""

    class Maps(Halved):
        def forward(self, images):
            maps = super().forward(images)
            return maps.as_strided((len(maps), 3, 1, 1), (3, 1, 3, 3))

    found, expected = extract(tmp_path, frozen=Maps()), extract(tmp_path / "flat")
    assert torch.equal(found.views["plain"].flatten(1), expected.views["plain"])


@pytest.mark.parametrize(
    ("model", "freeze", "augment"),
    [
        (MOBILENET, "backbone", "flip_both"),
        (MOBILENET, "linear", "flip"),
        (TINY, "backbone", "none"),
        (TINY, "until freeze.at=layer3.0", "flip"),
        (VIT, "until freeze.at=blocks.4", "flip_both"),
        (TINY, "until freeze.at=layer2.0 freeze.reinitialize=true freeze.store=bfloat16", "none"),
        (TINY, "until freeze.at=layer3.0", "flip mix=mixup"),
    ],
    ids=["dropout is trained through", "hidden layers are frozen, too", "no hidden layers",
         "until a block", "until a transformer's block", "rounded, and anew above the cut",
         "outputs are mixed"],
)  # fmt: skip
def test_they_change_nothing(configure, model, freeze, augment):
    """Same draws, same dropout; the products differ at most in their rounding."""
    common = [*model, *SMALL, *f"freeze={freeze} augment={augment} num_epochs=2".split()]
    found, expected = (
        configure(*common, f"study={auto}", f"features={auto}") for auto in ("auto", "off")
    )
    results = [train(cfg) for cfg in (found, expected)]
    for name in ("last", "best"):
        measured = [getattr(result, name) for result in results]
        assert measured[0] == pytest.approx(measured[1], rel=1e-4, abs=1e-6)
    weights = [read_weights(Path(cfg.directory) / "last.safetensors") for cfg in (found, expected)]
    for name, tensor in weights[1].items():
        assert torch.allclose(weights[0][name], tensor, rtol=1e-4, atol=1e-5), name


def test_folded_features_differ_by_rounding_and_have_names_of_their_own(configure, tmp_path):
    common = [*TINY, *SMALL, "freeze=backbone", "augment=none", "num_epochs=2"]
    results = []
    for how in ("auto", "folded"):
        cfg = configure(*common, f"study={how}", f"features={how}", f"cache={tmp_path}/{how}")
        results.append(train(cfg))
    assert results[0].last == pytest.approx(results[1].last, rel=1e-4, abs=1e-6)
    names = [{path.name for path in tmp_path.glob(f"{how}/features/*.bin")} for how in
             ("auto", "folded")]  # fmt: skip
    assert len(names[0]) == len(names[1]) == 1
    assert names[0] != names[1]


@pytest.mark.parametrize(("freeze", "augment"), [("none", "none"), ("backbone", "flip_crop")])
def test_folding_nothing_is_told(configure, caplog, freeze, augment):
    options = [f"freeze={freeze}", f"augment={augment}", "num_epochs=1", "features=folded"]
    train(configure(*TINY, *SMALL, *options))
    assert "features=folded does nothing here" in caplog.text


MIXES = {"none": Unmixed(4), "mixup": MixUp(4, 0.2), "cutmix": CutMix(4, 1.0)}


@pytest.mark.parametrize(
    ("stages", "augment", "mix", "option", "expected"),
    [(1, "flip", "none", "auto", True), (1, "flip", "none", "off", False),
     (1, "flip", "mixup", "off", True), (1, "crops", "mixup", "auto", True),
     (1, "crops", "none", "auto", False), (1, "crops", "cutmix", "auto", False),
     (1, "flip", "cutmix", "off", False), (0, "flip", "mixup", "auto", False)],
)  # fmt: skip
def test_a_frozen_part_is_apart_where_it_is_kept_or_its_outputs_are_mixed(
    stages, augment, mix, option, expected
):
    frozen = nn.Sequential(*[nn.Identity()] * stages)
    drawn = {"flip": Views(BOTH, ["plain"]), "crops": FlipCrop(["plain"])}[augment]
    found = features.computed_apart(frozen, drawn, MIXES[mix], option, size=32)
    assert (found is not None) == expected


def test_images_cannot_be_mixed_where_outputs_are_computed_once(configure):
    cfg = configure(*TINY, *SMALL, "mix=cutmix")
    with pytest.raises(InputError, match=r"mix=mixup.*features=off.*freeze=none"):
        train(cfg)
    assert not Path(cfg.directory).exists()


def test_training_gets_the_views_that_are_drawn(tmp_path):
    data, augment = toy(), Views(BOTH, ["plain"])
    found, indices = extract(tmp_path), torch.tensor([3, 3, 0, 5, 1, 1, 2, 4])
    torch.manual_seed(0)
    images = augment(data.pixels, indices, data.crop)
    torch.manual_seed(0)
    assert torch.equal(found.training(indices), Halved()(images))
    (plain,) = found.evaluation(indices)
    assert torch.equal(plain, found.views["plain"][indices])


def test_an_evaluation_has_all_its_views(tmp_path):
    found = extract(tmp_path, augment=Views(["plain"], BOTH))
    assert [values.shape for values in found.evaluation(torch.arange(4))] == [(4, 3)] * 2
    assert list(found.views) == BOTH


def test_a_frozen_part_drops_nothing(tmp_path):
    frozen = nn.Sequential(Halved(), nn.Dropout()).train()
    expected = extract(tmp_path).views["plain"]
    assert torch.equal(extract(tmp_path, frozen=frozen).views["plain"], expected)


@pytest.mark.parametrize(
    "change",
    [
        {"frozen": Halved(3.0)},
        {"data": toy(crop=3)},
        {"data": toy(content="d" * 64)},
        {"precision": Precision("bfloat16", False)},
        {"augment": Views(["mirrored"], ["mirrored"])},
    ],
    ids=["weights", "crop", "images", "precision", "view"],
)
def test_what_decides_the_values_decides_the_name(tmp_path, monkeypatch, change):
    extract(tmp_path, augment=Views(["plain"], ["plain"]))
    extract(tmp_path, **change)
    assert len(list(tmp_path.rglob("*.bin"))) > 1
    monkeypatch.setattr(features, "center_crop", lambda *_: pytest.fail("computed again"))
    extract(tmp_path, **change)


def test_caches_of_the_same_library_versions_are_found(tmp_path, monkeypatch):
    """Their names and notes: later code of ours must go on finding them."""
    monkeypatch.setattr(features.versions, "name", lambda versions: "0" * 8)
    folder, data = tmp_path / "features", np.zeros((6, 3), np.float32).tobytes()
    folder.mkdir()
    for name in ("272b4eb6b38e1caffe89d01127606fe7", "80cf21c3fbafc73ddf411a5a3cd69fb7"):
        (folder / f"{name}.bin").write_bytes(data)
        blocks = [[4, f"{zlib.crc32(data[:48]):08x}"], [2, f"{zlib.crc32(data[48:]):08x}"]]
        note = {"row_bytes": 12, "shape": [6, 3], "dtype": "float32", "blocks": blocks}
        write_sealed_json(folder / f"{name}.json", note)
    monkeypatch.setattr(features, "center_crop", lambda *_: pytest.fail("computed again"))
    assert not any(values.any() for values in extract(tmp_path).views.values())


def test_room_is_said_and_asked_for_before_any_work(tmp_path, monkeypatch, caplog):
    with caplog.at_level(logging.INFO):
        extract(tmp_path / "first")
    assert "for 6 images once (plain, 72 B)" in caplog.text  # 3 numbers of 4 bytes each
    monkeypatch.setattr(features, "center_crop", lambda *_: pytest.fail("begun"))
    free = SimpleNamespace(free=2 * 6 * 12 - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    with pytest.raises(DiskError, match=r"features/\w+\.bin"):
        extract(tmp_path / "second")


def test_a_block_of_large_outputs_is_small_in_memory(tmp_path, monkeypatch):
    """Every image's outputs are the same, however many are computed at a time."""
    expected = extract(tmp_path / "one").views["plain"]
    monkeypatch.setattr(features, "BATCH", {"cpu": 2})
    monkeypatch.setattr(features, "BLOCK_BYTES", 60)
    assert torch.equal(extract(tmp_path / "other").views["plain"], expected)
    (note, _) = sorted((tmp_path / "other").rglob("*.json"))
    assert [rows for rows, _ in read_sealed_json(note)["blocks"]] == [4, 2]


def test_a_run_on_cached_features_reads_no_pixels(configure, tmp_path):
    own = [*TINY, *SMALL, "num_epochs=1", f"cache={tmp_path}"]
    train(configure(*own))
    (pixels,) = (tmp_path / "pixels").glob("*.bin")
    pixels.write_bytes(bytes(pixels.stat().st_size))  # which would be found and mended
    train(configure(*own, "lr=0.02"))
    assert not any(pixels.read_bytes())


def test_two_threads_compute_the_bits_of_one(configure, tmp_path):
    """A batch each; products of few rows would differ, and a hidden layer has those."""
    before, found = torch.get_num_threads(), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        try:
            own = [f"cache={tmp_path / str(threads)}", f"study={threads}"]
            train(configure(*TINY, *SMALL, "num_epochs=1", *own))
        finally:
            torch.set_num_threads(before)
        (path,) = (tmp_path / str(threads) / "features").glob("*.bin")
        found.append(path.read_bytes())
    assert found[0] == found[1]
