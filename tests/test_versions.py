"""Versions of libraries are recorded, and where they decide bits another one is another cache."""

import PIL
import pytest
import torch

from caltech import versions
from caltech.config import build
from caltech.data import pixels
from caltech.files import read_sealed_json
from caltech.runs.directory import RunDirectory
from caltech.train import train
from caltech.training import features
from tests.observers import TINY, Doing, Stopped, stop

CPU = torch.device("cpu")


def test_all_that_decide_bits_are_recorded(finished):
    told = read_sealed_json(RunDirectory(finished).provenance)["environment"]
    assert (versions.decoding() | versions.computing(CPU)).items() <= told.items()
    assert told["pillow"] == PIL.__version__ and told["libjpeg"] not in ("", "None")


@pytest.mark.parametrize("what", ["decoding", "computing"])
def test_another_version_is_another_cache(configure, tmp_path, monkeypatch, what):
    """Pixels are of the decoders alone; a frozen part's outputs of both."""
    cfg = configure("model=timm", "model.name=test_resnet", "model.weights=null")
    model = build(cfg.model, num_classes=5)[:1].eval()
    parts = (model, build(cfg.data), build(cfg.augment), build(cfg.precision), CPU, tmp_path)

    def names() -> tuple[str, set[str]]:
        features.extract(*parts)
        path = pixels.cached(pixels.of_files(tmp_path, ["x.jpg"], 32), "content", tmp_path).path
        return path.name, {path.name for path in tmp_path.glob("features/*.bin")}

    decoded, computed = names()
    now = getattr(versions, what)
    monkeypatch.setattr(versions, what, lambda *of: now(*of) | {"library": "1.2"})
    decoded_again, computed_again = names()
    assert (decoded_again == decoded) is (what == "computing")
    assert len(computed_again - computed) == 1


@pytest.mark.parametrize("is_finished", [True, False])
def test_another_version_is_warned_of_and_listed_if_it_goes_on(
    configure, monkeypatch, caplog, is_finished
):
    cfg = configure(*TINY)
    if is_finished:
        train(cfg)
    else:
        with pytest.raises(Stopped):
            train(cfg, observer=Doing(stop, at_epoch=1))
    now = versions.computing(CPU)
    monkeypatch.setattr(versions, "computing", lambda device: now | {"torch": "1.0", "timm": "2"})
    train(cfg)
    assert f"was made with torch {now['torch']}, timm {now['timm']}" in caplog.text
    assert "now there is torch 1.0, timm 2. Its last digits may differ" in caplog.text
    told = read_sealed_json(RunDirectory(cfg.directory).provenance)
    others = [each["environment"]["torch"] for each in told.get("continued_by", [])]
    assert others == ([] if is_finished else ["1.0"])
