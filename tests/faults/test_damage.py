"""Files that were cut short or have other bytes: found, named, and replaced by good ones."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from caltech.errors import DamagedError
from caltech.files import read_sealed_json, write_sealed_json
from caltech.runs import checkpoint
from caltech.train import train
from tests.observers import KEY, Doing, Stopped, stop

TIMES = 150
SMALL = ["model=timm", "model.name=test_resnet", "model.weights=null", "batch_size=16"]
SMALL += ["data.resize=40", "data.crop=32"]


def harmed(path: Path, number: int) -> None:
    """Flip a bit, cut the file, or put other bytes in place of some: chosen by the number."""
    random = np.random.default_rng(number)
    data = bytearray(path.read_bytes())
    place = int(random.integers(len(data)))
    if number % 3 == 0:
        data[place] ^= 1 << int(random.integers(8))
    elif number % 3 == 1:
        del data[place:]
    else:
        data[place : place + 64] = bytes(255 - byte for byte in data[place : place + 64])
    path.write_bytes(data)


def layer(value: float) -> nn.Module:
    return nn.Linear(20, 30).requires_grad_(False).apply(lambda m: m.weight.fill_(value))


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(tmp_path, caplog):
    path, kept, unharmed = tmp_path / "checkpoint.pt", tmp_path / "kept", 0
    for value in (1.0, 2.0):
        checkpoint.save(path, KEY, {"layer": layer(value)}, {"value": value})
    shutil.copytree(tmp_path, kept)
    for number in range(TIMES):
        shutil.copytree(kept, tmp_path, dirs_exist_ok=True)
        harmed(path, number)
        loaded = layer(0.0)
        progress = checkpoint.load(path, KEY, {"layer": loaded})
        assert bool((loaded.weight == progress["value"]).all())
        # The harm may be to bytes that nobody reads, as the padding between a zip file's records.
        unharmed += progress["value"] == 2.0
        assert progress["value"] == 2.0 or str(path) in caplog.text
        caplog.clear()
        assert checkpoint.load(path, KEY, {"layer": loaded}) == progress  # and it stays good
        caplog.clear()
    assert unharmed < TIMES / 10


def test_two_damaged_checkpoints_are_none(tmp_path, caplog):
    path = tmp_path / "checkpoint.pt"
    for value in (1.0, 2.0):
        checkpoint.save(path, KEY, {"layer": layer(value)}, {"value": value})
    for file in (path, checkpoint.previous_of(path)):
        file.write_bytes(file.read_bytes()[:500])
    assert checkpoint.load(path, KEY, {"layer": layer(0.0)}) is None
    assert caplog.text.count("It is not used") == 2


def test_damaged_weights_are_refused(tmp_path):
    path = tmp_path / "best.safetensors"
    source = layer(3.0)
    checkpoint.save_weights(path, source)
    whole, refused = path.read_bytes(), 0
    checkpoint.load_weights(path, layer(0.0))
    for number in range(TIMES):
        path.write_bytes(whole)
        harmed(path, number)
        loaded = layer(0.0)
        try:
            checkpoint.load_weights(path, loaded)
        except DamagedError as error:
            assert str(path) in str(error)
            refused += 1
        else:  # a space of the header's padding, or the checksum's own name
            assert torch.equal(loaded.weight, source.weight)
    assert refused > 0.9 * TIMES


def test_every_changed_byte_of_a_sealed_json_file_is_found(tmp_path):
    path, value = tmp_path / "result.json", {"accuracy": 0.9399, "epochs": [1, 2], "name": "é"}
    write_sealed_json(path, value)
    whole = path.read_bytes()
    assert read_sealed_json(path) == value
    for place in range(len(whole)):
        for changed in (whole[:place], whole[:place] + b"7" + whole[place + 1 :]):
            path.write_bytes(changed)
            try:
                found = read_sealed_json(path)
            except DamagedError as error:
                assert str(path) in str(error)
            else:  # white space, or the checksum's own name
                found.pop("crc72", None), found.pop("crc37", None)
                assert {k: found[k] for k in value} == value


@pytest.fixture
def own(tmp_path):
    return [*SMALL, f"cache={tmp_path / 'cache'}", "num_epochs=2"]


@pytest.mark.parametrize("harm", ["checkpoint", "checkpoints", "result"])
def test_a_run_with_damaged_files_ends_as_any_other(configure, own, caplog, harm):
    expected, cfg = (configure(*own, "freeze=none", f"study={name}") for name in ("a", "b"))
    train(expected)
    directory = Path(cfg.directory)
    if harm == "result":
        train(cfg)
        harmed(directory / "result.json", 1)
    else:
        with pytest.raises(Stopped):
            train(cfg, observer=Doing(stop, at_epoch=2))
        assert {"checkpoint.pt", "previous_checkpoint.pt"} <= {p.name for p in directory.iterdir()}
        harmed(directory / "checkpoint.pt", 0)
        if harm == "checkpoints":
            harmed(directory / "previous_checkpoint.pt", 2)
    train(cfg)
    assert str(directory) in caplog.text
    for name in ("result.json", "last.safetensors", "best.safetensors"):
        assert (directory / name).read_bytes() == (Path(expected.directory) / name).read_bytes()
    assert not (directory / "previous_checkpoint.pt").exists()


def test_damaged_provenance_is_refused_and_says_what_to_type(configure, own):
    cfg = configure(*own, "freeze=none")
    train(cfg)
    harmed(Path(cfg.directory) / "provenance.json", 1)
    with pytest.raises(DamagedError, match=r"provenance\.json .*rerun=true"):
        train(cfg)
    train(configure(*own, "freeze=none", "rerun=true"))
