"""What decides a result and is not in its config: compared before a run is answered or goes on."""

from pathlib import Path

import pytest
from PIL import Image

from caltech.cache import CachedArray
from caltech.errors import InputError
from caltech.files import read_sealed_json
from caltech.runs import provenance
from caltech.runs.directory import RunDirectory
from caltech.train import train, unseen
from tests.observers import TINY, Doing, Stopped, assert_equal, outcome, stop


def test_other_code_that_goes_on_with_a_run_is_recorded(configure, monkeypatch):
    cfg = configure(*TINY)
    with pytest.raises(Stopped):
        train(cfg, observer=Doing(stop, at_epoch=1))
    other = {"git": "another", "sha256": "0" * 16}
    monkeypatch.setattr(provenance, "code_version", lambda plugins: other)
    train(cfg)
    told = read_sealed_json(Path(cfg.directory) / "provenance.json")
    assert [maker["code"] for maker in told["continued_by"]] == [other]
    monkeypatch.setattr(provenance, "code_version", lambda plugins: other | {"sha256": "1" * 16})
    train(cfg)  # answered
    assert read_sealed_json(Path(cfg.directory) / "provenance.json") == told


def test_the_version_of_the_code_is_of_every_folder(tmp_path, monkeypatch):
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "a.py", tmp_path / "folder" / "b.py"):
        path.write_text("1")
    monkeypatch.setattr(provenance, "PACKAGE", tmp_path)
    before = provenance.code_version()["sha256"]
    (tmp_path / "folder" / "b.py").write_text("2")
    changed = provenance.code_version()["sha256"]
    (tmp_path / "folder" / "b.py").rename(tmp_path / "b.py")
    assert len({before, changed, provenance.code_version()["sha256"]}) == 3


def test_other_data_is_refused_before_any_work(configure, tmp_path, monkeypatch):
    image = tmp_path / "caltech101" / "101_ObjectCategories" / "a" / "image_0001.jpg"
    for category in ("a", "b"):
        folder = image.parent.with_name(category)
        folder.mkdir(parents=True)
        for number in range(1, 13):
            place = folder / f"image_{number:04d}.jpg"
            Image.new("RGB", (80, 80), (number, 0, 0)).save(place)
    cfg = configure(*TINY, f"data.root={tmp_path}")
    train(cfg)
    Image.new("RGB", (80, 80), "white").save(image)
    before = outcome(cfg)
    monkeypatch.setattr(CachedArray, "ensure", lambda array: pytest.fail("decoded"))
    said = r"from other data: caltech101 \(\w{8}\), and now .*study=NAME.*rerun=true"
    for command in (train, unseen):
        with pytest.raises(InputError, match=said):
            command(cfg)
    assert_equal(outcome(cfg), before)


def test_other_weights_are_refused(configure, monkeypatch):
    cfg = configure(*TINY)
    train(cfg)
    monkeypatch.setattr(provenance, "digest", lambda modules: "f" * 64)
    with pytest.raises(InputError, match=r"made from other weights.*study=NAME.*rerun=true"):
        train(cfg)


def test_a_refused_command_leaves_the_config_and_one_that_goes_on_is_in_it(configure, monkeypatch):
    begun = configure(*TINY)
    with pytest.raises(Stopped):
        train(begun, observer=Doing(stop, at_step=1))
    config, asked = RunDirectory(begun.directory).config, configure(*TINY, "keep_checkpoint=true")
    before = config.read_bytes()
    with monkeypatch.context() as other:
        other.setattr(provenance, "digest", lambda modules: "f" * 64)
        with pytest.raises(InputError, match="made from other weights"):
            train(asked)
    assert config.read_bytes() == before
    train(asked)
    assert b"keep_checkpoint: true" in config.read_bytes()


def test_a_run_that_goes_on_with_features_of_other_bits_says_and_records_it(configure, caplog):
    own = [*TINY, "freeze=backbone", "schedule=constant"]
    train(configure(*own, "features=off", "num_epochs=1", "keep_checkpoint=true"))
    train(cfg := configure(*own))
    assert "made with features off, and now there is features auto" in caplog.text
    told = read_sealed_json(Path(cfg.directory) / "provenance.json")
    makers = [told, *told["continued_by"]]
    assert [each["environment"]["features"] for each in makers] == ["off", "auto"]
