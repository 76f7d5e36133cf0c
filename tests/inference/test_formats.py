"""An exported form answers as its run does and needs nothing of the machine that wrote it."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from caltech import plugins
from caltech.errors import CaltechError, DamagedError
from caltech.inference.formats import compare, export, sample
from caltech.inference.image_files import answers
from caltech.inference.predictor import Predictor, own_data
from caltech.runs.directory import RunDirectory
from caltech.settings import CONF, PACKAGE
from caltech.train import train
from tests.observers import made_anew

NETWORK = """
from torch import nn
from caltech.models.classifier import cut
def small(num_classes, load=True, size=None):
    half = (0.5, 0.5, 0.5)
    features = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return cut(features, nn.Linear(3, num_classes), half, half, "none")
"""


def differences(told: str) -> list[float]:
    return [float(line.split()[0]) for line in told.splitlines() if " from " in line]


@pytest.mark.parametrize("form", ["safetensors", "onnx", "mlflow"])
def test_the_largest_differences_are_told(exported, form, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))  # MLflow puts the model's code there
    if form == "onnx":
        pytest.importorskip("onnxscript", reason="pip install onnxscript")
        pytest.importorskip("onnxruntime", reason="pip install onnxruntime")
    _, told = exported(form)
    assert "on 20 images of its test part" in told and max(map(len, told.splitlines())) <= 80
    assert len(differences(told)) == 2 and max(differences(told)) < 1e-4


def test_safetensors_are_a_run_without_this_machine_s_paths(exported, tiny, tree):
    folder, _ = exported("safetensors")
    assert sorted(path.name for path in folder.iterdir()) == [
        "best.safetensors", "calibration.json", "config.yaml", "manifest.json", "provenance.json",
        "result.json",
    ]  # fmt: skip
    assert str(tree) not in (folder / "config.yaml").read_text()
    read = Predictor.load(RunDirectory(folder), "best", "cpu")
    pixels = own_data(tiny.directory, tiny.cfg).pixels[:3]
    assert torch.equal(read.probabilities(pixels), tiny.probabilities(pixels))
    assert read.summary() | {"directory": ""} == tiny.summary() | {"directory": ""}


def test_a_run_that_rounds_at_its_cut_answers_and_is_exported_as_it_was_tested(configure, tmp_path):
    vit = ["model=timm", "model.name=test_vit", "model.weights=null", "num_epochs=1"]
    cfg = configure(*vit, "freeze=until", "freeze.at=blocks.3", "freeze.store=bfloat16")
    train(cfg)
    predictor = Predictor.load(RunDirectory(cfg.directory), "best", "cpu")
    told = export(predictor, "safetensors", tmp_path / "to", tolerance=1e-6)
    assert max(differences(told)) < 1e-6


def test_onnx_takes_batches_of_any_size(exported, tiny):
    pytest.importorskip("onnxscript", reason="pip install onnxscript")
    runtime = pytest.importorskip("onnxruntime", reason="pip install onnxruntime")
    folder, _ = exported("onnx")
    session = runtime.InferenceSession(folder / "model.onnx")
    about = session.get_modelmeta().custom_metadata_map
    assert tuple(json.loads(about["classes"])) == tiny.classes
    assert [json.loads(about[name]) for name in ("resize", "crop")] == [72, 64]
    stored = np.load(tiny.directory.predictions("best"))
    pixels = own_data(tiny.directory, tiny.cfg).pixels[stored["indices"]]
    images = tiny.crop(pixels).numpy()
    for size in (1, 3, len(images)):
        (found,) = session.run(None, {"images": images[:size]})
        assert found.argmax(1).tolist() == stored["predictions"][:size].tolist()
        np.testing.assert_allclose(found.max(1), stored["confidences"][:size], atol=1e-4)


def test_mlflow_answers_image_files(exported, tiny, images, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))  # MLflow puts the model's code there
    folder, _ = exported("mlflow")
    import pandas
    from mlflow.exceptions import MlflowException
    from mlflow.pyfunc import load_model

    model = load_model(str(folder))
    files = sorted((images / "wild_cat").iterdir())
    rows = model.predict(pandas.DataFrame({"image": [file.read_bytes() for file in files]}))
    for row, answer in zip(rows, answers(tiny, files), strict=True):
        assert [top["class"] for top in row["top"]] == [top["class"] for top in answer.top]
        found = [top["probability"] for top in row["top"]]
        assert found == pytest.approx([top["probability"] for top in answer.top], abs=1e-6)
    with pytest.raises(MlflowException, match="row 0: not an image file"):
        model.predict(pandas.DataFrame({"image": [b"no image"]}))
    request = json.loads((folder / "serving_input_example.json").read_text())
    assert request["dataframe_split"]["columns"] == ["image"]


def test_mlflow_carries_a_plugin_s_code(configure, tmp_path, monkeypatch):
    """And loads it where nobody has typed plugins=."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "carried.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(tmp_path)
    cfg = configure("plugins=[carried]", "num_epochs=1", "freeze=none")
    cfg.model = {"_target_": "carried.small"}
    train(cfg)
    predictor = Predictor.load(RunDirectory(cfg.directory), "best", "cpu")
    export(predictor, "mlflow", tmp_path / "export", 1e-4)
    sys.path.remove(str(tmp_path))
    plugins._forget("carried")
    from mlflow.pyfunc import load_model

    load_model(str(tmp_path / "export"))
    assert "export" in sys.modules["carried"].__file__


def test_mlflow_carries_all_code_that_it_needs(exported, monkeypatch):
    """With sub-packages, templates and conf/, so that no installation of this package is needed."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    folder, _ = exported("mlflow")

    def files(place: Path) -> set[str]:
        found = (path for path in place.rglob("*") if path.suffix in (".py", ".jinja", ".yaml"))
        return {str(path.relative_to(place)) for path in found}

    assert files(folder / "code" / "caltech") == files(PACKAGE) > {"inference/serving.py"}
    assert files(folder / "code" / "conf") == files(CONF) > {"train.yaml"}


def test_no_number_is_no_agreement(predictor):
    def spoilt(pixels):
        return predictor.probabilities(pixels) * torch.nan

    with pytest.raises(CaltechError, match=r"differ by at most\s+nan"):
        compare(predictor, spoilt, *sample(predictor), 1.0)


@pytest.mark.parametrize("spoilt", [0.5, np.nan])
def test_stored_answers_of_another_model_are_noticed(copy, spoilt):
    """The comparison is not only of the rebuilt model with itself."""
    stored = dict(np.load(copy.predictions("best")))
    confidences = stored["confidences"] * np.float32(spoilt)
    np.savez(copy.predictions("best"), **stored | {"confidences": confidences})
    predictor = Predictor.load(copy, "best", "cpu")
    with pytest.raises(DamagedError, match=r"predictions_best\.npz is not the file that run"):
        sample(predictor)
    made_anew(copy)
    with pytest.raises(CaltechError, match="from the answers stored in its test"):
        compare(predictor, predictor.probabilities, *sample(predictor), 1e-4)


def test_without_its_data_a_run_is_compared_on_noise(copy):
    copy.predictions("best").unlink()
    predictor = Predictor.load(copy, "best", "cpu")
    pixels, stored = sample(predictor)
    assert len(pixels) > predictor.batch_size and not stored
    found = compare(predictor, predictor.probabilities, pixels, stored, 1e-4)
    assert "of noise (its data set is not here)" in found
