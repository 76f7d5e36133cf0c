"""Checkpoints and weights: whole, or found out; damage itself is in tests/faults/test_damage.py."""

import io
import shutil
import zlib
from pathlib import Path

import pytest
import torch
from torch import nn

from caltech.errors import DamagedError
from caltech.runs import checkpoint
from caltech.runs.progress import Inside, Progress, Totals
from caltech.training.average import Last
from caltech.training.fit import generator_states
from tests.observers import KEY


def layer(value: float) -> nn.Module:
    return nn.Linear(20, 30).requires_grad_(False).apply(lambda m: m.weight.fill_(value))


def test_progress_comes_back_as_it_was(tmp_path):
    path = tmp_path / "checkpoint.pt"
    inside = Inside(Totals(3, 24, 1.5, 7, 0.25), generator_states())
    progress = Progress([{"epoch": 1, "val/accuracy": 0.5}], 1, {"w": torch.ones(3)}, 2.5, inside)
    checkpoint.save(path, KEY, {"layer": layer(2.0)}, progress.plain())
    again = layer(0.0)
    loaded = Progress.of(checkpoint.load(path, KEY, {"layer": again}))
    assert bool((again.weight == 2).all())
    assert loaded.inside.totals == inside.totals and loaded.history == progress.history
    assert torch.equal(loaded.inside.generators["cpu"], inside.generators["cpu"])
    assert torch.equal(loaded.best_state["w"], torch.ones(3))


def test_a_checkpoint_of_before_there_was_an_average_is_gone_on_with(tmp_path):
    path, again = tmp_path / "checkpoint.pt", layer(0.0)
    checkpoint.save(path, KEY, {"layer": layer(1.0)}, {"seconds": 3.0})
    assert checkpoint.load(path, KEY, {"layer": again, "average": Last(again)}) == {"seconds": 3.0}
    assert bool((again.weight == 1).all())


def sealed(progress: dict) -> bytes:
    """As the code of before wrote it: the zip file, then a checksum of all of it."""
    file = io.BytesIO()
    torch.save({"states": {"layer": layer(3.0).state_dict()}, "progress": progress}, file)
    content = file.getvalue()
    return content + b"caltech crc32 " + f"{zlib.crc32(content):08x}".encode()


def test_a_checkpoint_with_a_seal_of_before_is_gone_on_with(tmp_path, caplog):
    path, again = tmp_path / "checkpoint.pt", layer(0.0)
    content = sealed({"seconds": 1.0})
    path.write_bytes(content)
    assert checkpoint.load(path, KEY, {"layer": again}) == {"seconds": 1.0}
    assert bool((again.weight == 3).all()) and not caplog.text
    place = content.index(bytes(layer(3.0).weight.numpy().tobytes()[:64])) + 10
    path.write_bytes(content[:place] + b"\x00" + content[place + 1 :])
    assert checkpoint.load(path, KEY, {"layer": again}) is None
    assert "does not match its checksum" in caplog.text and "It is not used" in caplog.text


def test_there_are_never_more_than_two(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    monkeypatch.setattr(checkpoint, "SMALL_BYTES", 0)
    for value in (1.0, 2.0, 3.0):
        checkpoint.save(path, KEY, {"layer": layer(value)}, {"value": value})
    assert {p.name for p in tmp_path.iterdir()} == {"checkpoint.pt", "previous_checkpoint.pt"}
    path.unlink()
    assert checkpoint.load(path, KEY, {"layer": layer(0.0)}) == {"value": 2.0}


def test_a_short_epoch_does_not_wait_for_the_disk(tmp_path, monkeypatch):
    """The one that the disk has stays beside those that follow in seconds."""
    path, synced = tmp_path / "checkpoint.pt", []
    monkeypatch.setattr(checkpoint, "SYNC_SECONDS", 1e9)
    monkeypatch.setattr("os.fsync", synced.append)
    waited = []
    for value in range(6):
        checkpoint.save(path, KEY, {"layer": layer(value)}, {"value": value})
        waited.append(len(synced))
    assert waited == [1, 3, 3, 3, 3, 3]  # the first; the second, with the one that it follows
    assert checkpoint.load(path, KEY, {"layer": layer(0.0)}) == {"value": 5}
    checkpoint.save(path, KEY, {"layer": layer(6.0)}, {"value": 6})
    path.write_bytes(path.read_bytes()[:500])  # the power failed
    assert checkpoint.load(path, KEY, {"layer": layer(0.0)}) == {"value": 0}


def test_weights_come_back_bitwise_and_damage_is_refused(tmp_path):
    path, source, again = tmp_path / "best.safetensors", layer(0.1), layer(0.0)
    checkpoint.save_weights(path, source)
    checkpoint.load_weights(path, again)
    assert torch.equal(again.weight, source.weight) and torch.equal(again.bias, source.bias)
    path.write_bytes(path.read_bytes()[:-1] + b"\xff")
    with pytest.raises(DamagedError, match=r"best\.safetensors"):
        checkpoint.load_weights(path, again)


def frozen_run(path: Path, head: float) -> nn.Module:
    """A model whose first part is frozen, and its weights in a run's directory."""
    torch.manual_seed(0)
    model = nn.Sequential(layer(0.1), layer(head))
    path.parent.mkdir(parents=True)
    checkpoint.save_weights(path, model, {"0.weight", "0.bias"})
    return model


def test_a_frozen_part_is_once_on_the_disk_and_whole_in_each_run(tmp_path):
    one, other = tmp_path / "study" / "one", tmp_path / "study" / "other"
    models = [frozen_run(run / "best.safetensors", head) for run, head in ((one, 0.2), (other, 2))]
    assert (one / "frozen.safetensors").samefile(other / "frozen.safetensors")
    shutil.copytree(other, tmp_path / "copied")  # alone
    shutil.rmtree(tmp_path / "study")
    again = nn.Sequential(layer(0.0), layer(0.0))
    checkpoint.load_weights(tmp_path / "copied" / "best.safetensors", again)
    for name, tensor in models[1].state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)


def test_weights_of_one_epoch_are_one_file(tmp_path):
    model = frozen_run(tmp_path / "run" / "last.safetensors", 0.2)
    checkpoint.save_weights(tmp_path / "run" / "best.safetensors", model, {"0.weight", "0.bias"})
    assert (tmp_path / "run" / "best.safetensors").samefile(tmp_path / "run" / "last.safetensors")


@pytest.mark.parametrize(("frozen", "told"), [(None, "is not there"), (0.3, "is not the frozen")])
def test_a_frozen_part_that_is_gone_or_another_is_named(tmp_path, frozen, told):
    path = tmp_path / "run" / "best.safetensors"
    model = frozen_run(path, 0.2)
    path.with_name("frozen.safetensors").unlink()
    if frozen:
        checkpoint.save_weights(path.with_name("frozen.safetensors"), layer(frozen))
    with pytest.raises(DamagedError, match=rf"frozen\.safetensors {told}.*Copy it"):
        checkpoint.load_weights(path, model)


def test_a_file_of_earlier_code_holds_all(tmp_path):
    model = nn.Sequential(layer(0.1), layer(0.2))
    path = tmp_path / "best.safetensors"
    checkpoint.save_weights(path, model)  # as all were written
    assert set(checkpoint.read_weights(path)) == set(model.state_dict())
    assert not path.with_name("frozen.safetensors").exists()
