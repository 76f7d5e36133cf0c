"""Nothing that is read is executed, what is fetched is verified, secrets stay secret."""

import hashlib
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from caltech.data import download
from caltech.errors import InputError
from caltech.models import architectures as models
from caltech.models import weights
from caltech.passwords import without_passwords
from caltech.runs import checkpoint, provenance
from caltech.runs.directory import RunDirectory
from caltech.sweeps import jobs
from caltech.tracking.description import describe
from caltech.train import train
from tests.faults.test_damage import SMALL
from tests.observers import KEY


class Evil:
    """Unpickled, it would make a file."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self):
        return os.mkdir, (str(self.proof),)


@pytest.mark.parametrize("wrapping", ["torch", "pickle", "in progress"])
def test_a_malicious_checkpoint_is_refused(tmp_path, caplog, wrapping):
    """It is the loading that refuses: who can write a file can also write its checksums."""
    path, proof = tmp_path / "checkpoint.pt", tmp_path / "proof"
    layer = nn.Linear(2, 2)
    good = {"states": {"layer": layer.state_dict()}, "progress": {}}
    evil = {"torch": Evil(proof), "pickle": None, "in progress": good | {"progress": Evil(proof)}}
    if wrapping == "pickle":
        path.write_bytes(pickle.dumps(Evil(proof)))
    else:
        torch.save(evil[wrapping], path)
    if wrapping == "pickle":  # no file of torch's
        assert checkpoint.load(path, KEY, {"layer": layer}) is None
        assert "cannot be read" in caplog.text and str(path) in caplog.text
    else:
        with pytest.raises(InputError, match=r"checkpoint\.pt is whole, but .*Move it away"):
            checkpoint.load(path, KEY, {"layer": layer})
    assert not proof.exists()
    pickle.loads(pickle.dumps(Evil(proof)))
    assert proof.exists()  # the harm is real where nothing refuses it


def test_malicious_weights_from_a_hub_are_refused(tmp_path, monkeypatch):
    proof = tmp_path / "proof"
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(weights, "require_hash", lambda url: None)
    path = tmp_path / "hub" / "checkpoints" / "resnet18-f37072fd.pth"
    path.parent.mkdir(parents=True)
    torch.save({"fc.weight": Evil(proof)}, path)
    with pytest.raises(InputError, match="Weights only load failed"):
        models.torchvision_model(5, "resnet18", "DEFAULT")
    assert not proof.exists()


@pytest.mark.parametrize("harm", ["other", "one bit"])
def test_a_hub_file_that_does_not_match_its_name_is_refused(tmp_path, monkeypatch, harm):
    """torch compares the hash while it downloads and never again."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    content = bytearray(b"weights")
    name = f"net-{hashlib.sha256(content).hexdigest()[:8]}.pth"
    (folder / name).write_bytes(content)
    weights.require_hash(f"https://elsewhere/{name}")
    content[0] ^= 1 if harm == "one bit" else 99
    (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{folder}/{name} .*Delete it"):
        weights.require_hash(f"https://elsewhere/{name}")
    (folder / "resnet18-f37072fd.pth").write_bytes(b"not the weights")
    with pytest.raises(InputError, match=r"resnet18-f37072fd\.pth has SHA-256 .*f37072fd"):
        models.torchvision_model(5, "resnet18", "DEFAULT")


def test_a_timm_file_in_the_cache_that_was_changed_is_refused(tmp_path, monkeypatch):
    """The Hugging Face cache as a download leaves it: a large file lies under its SHA-256."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    folder = tmp_path / "models--timm--resnet18.a1_in1k"
    for name in ("blobs", "refs", "snapshots/abc"):
        (folder / name).mkdir(parents=True)
    (folder / "refs" / "main").write_text("abc")
    blob = folder / "blobs" / hashlib.sha256(b"weights").hexdigest()
    blob.write_bytes(b"weights")
    (folder / "snapshots" / "abc" / "model.safetensors").symlink_to(blob)
    weights.require_blob("resnet18.a1_in1k")
    blob.write_bytes(b"weighty")
    with pytest.raises(InputError, match=rf"{blob} .*Delete it"):
        models.timm_model(5, "resnet18", "a1_in1k")


def test_every_torchvision_option_s_file_has_a_hash_in_its_name():
    import torchvision

    names = [
        weights.url
        for name in torchvision.models.list_models(module=torchvision.models)
        for weights in torchvision.models.get_model_weights(name)
    ]
    assert len(names) > 100
    assert all(torch.hub.HASH_REGEX.search(Path(name).name) for name in names)


def test_a_zip_bomb_is_refused_before_the_disk_is_full(tmp_path, monkeypatch):
    """The outer archive is a zip file, whose members may unpack to anything."""
    monkeypatch.setattr(download, "MAX_BYTES", 1_000_000)
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as outer:
        outer.writestr(download.INNER, b"\0" * 50_000_000)
    with pytest.raises(InputError, match="is not extracted"):
        download.extract(archive, tmp_path / "101_ObjectCategories")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_what_a_killed_extraction_left_is_removed(tmp_path):
    left = tmp_path / ".extracting-abc" / "101_ObjectCategories"
    left.mkdir(parents=True)
    (tmp_path / "a.zip").write_bytes(b"no archive")
    with pytest.raises(InputError, match="is not extracted"):
        download.extract(tmp_path / "a.zip", tmp_path / "101_ObjectCategories")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


SECRET = "s3cr3t-t0k3n-of-this-test"


@pytest.mark.slow
def test_a_secret_of_the_environment_is_nowhere_in_what_is_written(
    configure, tmp_path, monkeypatch
):
    for name in ("AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_TOKEN", "HF_TOKEN", "CALTECH_PASSWORD"):
        monkeypatch.setenv(name, SECRET)
    store = [f"tracking.uri=sqlite:///{tmp_path}/mlflow.db", f"tracking.artifacts={tmp_path}/a"]
    train(configure(*SMALL, "num_epochs=1", "tracking=mlflow", *store))
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(written) > 15
    for path in written:
        assert SECRET.encode() not in path.read_bytes(), path


def test_a_password_in_the_store_s_address_is_not_written(configure, tmp_path, monkeypatch):
    monkeypatch.setenv("CALTECH_PASSWORD", SECRET)
    address = "https://user:${oc.env:CALTECH_PASSWORD}@tracker.example:5000/x"
    cfg = configure("tracking=mlflow", f"tracking.uri={address}")
    assert SECRET in cfg.tracking.uri
    provenance.record(
        RunDirectory(tmp_path), cfg, {"data": {}, "weights": {}, "code": {}}, goes_on=True
    )
    written = (tmp_path / "config.yaml").read_text()
    assert SECRET not in written
    assert "uri: https://***@tracker.example:5000/x" in written
    typed = [f"tracking.uri=https://user:{SECRET}@tracker.example/x"]
    typed += [rf"storage=postgresql\://user\:{SECRET}@host/y"]  # as Hydra writes a job's words
    assert SECRET not in str(describe(cfg, {}, typed, None, None).tags)
    monkeypatch.setenv(jobs.VARIABLE, str(tmp_path / "sweep"))
    with jobs.recorded(cfg, typed, OmegaConf.create({"num": 0})):
        pass
    (record,) = (tmp_path / "sweep").iterdir()
    assert SECRET not in record.read_text() and "https://***@tracker" in record.read_text()
    assert without_passwords("sqlite:////a/b@c.db http://host:1/") == (
        "sqlite:////a/b@c.db http://host:1/"
    )
