"""A run's model is rebuilt from its own directory, safely, whichever version wrote it."""

import pytest
import torch
from omegaconf import OmegaConf

from caltech.errors import DamagedError, InputError
from caltech.files import read_sealed_json, write_json, write_sealed_json
from caltech.inference.predictor import Predictor, own_data
from caltech.keys import BORN, renamed, targets_in
from caltech.models import architectures
from caltech.runs.checkpoint import read_weights
from tests.observers import made_anew


def load(directory):
    return Predictor.load(directory, "best", "cpu")


def change_config(directory, **values):
    cfg = OmegaConf.to_container(OmegaConf.load(directory.config)) | values
    OmegaConf.save(cfg, directory.config)
    made_anew(directory)


def test_a_model_is_rebuilt_from_the_run_s_files_alone(copy, monkeypatch):
    """Neither the pretrained weights nor the data are touched; the normalisation comes back."""
    monkeypatch.setattr(architectures, "load_lite", lambda *_: pytest.fail("weights were read"))
    change_config(copy, data={"root": "/nowhere", "cache": "/nowhere", "resize": 72, "crop": 64})
    predictor = load(copy)
    expected, found = read_weights(copy.weights("best")), predictor.network.model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert predictor.network.model.backbone.normalize.mean.flatten().tolist() == [0.5, 0.5, 0.5]
    assert predictor.classes == ("accordion", "Faces", "Faces_easy", "wild_cat", "yin_yang")
    assert not predictor.network.training and not predictor.network.model.training


def test_a_config_of_before_the_packages_moved_gives_the_same_answers(copy, predictor):
    cfg = OmegaConf.to_container(OmegaConf.load(copy.config))
    for node in targets_in(cfg):
        node["_target_"] = renamed(node["_target_"], BORN)
    OmegaConf.save(cfg, copy.config)
    made_anew(copy)
    assert "_target_: caltech.model.efficientnet_lite0" in copy.config.read_text()
    assert "_target_: caltech.augment.Views" in copy.config.read_text()
    pixels = own_data(copy, OmegaConf.load(copy.config)).pixels[:4]
    assert torch.equal(load(copy).probabilities(pixels), predictor.probabilities(pixels))


@pytest.mark.parametrize("file", ["result.json", "best.safetensors"])
def test_an_unfinished_run_is_refused(copy, file):
    (copy.path / file).unlink()
    with pytest.raises(InputError, match=rf"has no {file}.*Type its training command "):
        load(copy)


def test_a_pruned_run_is_refused(copy):
    write_sealed_json(copy.result, read_sealed_json(copy.result) | {"status": "pruned"})
    with pytest.raises(InputError, match=r"has no result\.json of a finished run"):
        load(copy)


def test_damaged_weights_are_named(copy):
    copy.weights("best").write_bytes(b"damaged")
    copy.manifest.unlink()  # which earlier code did not write
    with pytest.raises(DamagedError, match=r"best\.safetensors was cut short or changed"):
        load(copy)


def test_weights_of_another_model_are_refused(copy):
    change_config(
        copy, model=load(copy).cfg.model | {"_target_": "caltech.model.efficientnet_lite2"}
    )
    with pytest.raises(InputError, match=r"does not fit the model of config\.yaml beside it"):
        load(copy)


def test_nothing_that_a_config_names_is_executed(copy, tmp_path):
    change_config(copy, model={"_target_": "os.mkdir", "path": str(tmp_path / "made")})
    with pytest.raises(InputError, match=r"os\.mkdir"):
        load(copy)
    assert not (tmp_path / "made").exists()


def test_runs_that_did_not_keep_class_names_take_them_from_their_data(copy):
    provenance = read_sealed_json(copy.provenance)
    classes = provenance.pop("classes")
    write_json(copy.provenance, provenance)
    made_anew(copy)
    assert list(load(copy).classes) == classes
    provenance["data"]["sha256"] = "other"
    write_json(copy.provenance, provenance)
    made_anew(copy)
    with pytest.raises(InputError, match="data set has changed"):
        load(copy)
