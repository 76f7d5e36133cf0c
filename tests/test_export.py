"""`python -m caltech.export`: written, read again, compared; otherwise nothing is there."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from caltech import export, predict
from caltech.errors import CaltechError, InputError
from caltech.inference import formats
from caltech.inference.predictor import Predictor
from caltech.runs.checkpoint import save_weights
from caltech.runs.directory import RunDirectory
from tests.observers import made_anew


@pytest.fixture
def predictor(finished: Path) -> Predictor:
    return Predictor.load(RunDirectory(finished), "best", "cpu")


def test_safetensors_are_read_by_predict_without_the_run(finished, tree, tmp_path, capsys):
    to = tmp_path / "below" / "model"
    words = ["format=safetensors", f"to={to}", f"run={finished}", "device=cpu"]
    assert export.main(words) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(f"{to}:\non 20 images of its test part")
    assert printed.endswith(f"next:\n  caltech predict IMAGE run={to}\n")
    image = str(tree / "caltech101" / "101_ObjectCategories" / "Faces" / "image_0004.jpg")
    answers = []
    for place in (finished, to):
        assert predict.main([image, f"run={place}", "--json", "device=cpu"]) == 0
        answers.append(json.loads(capsys.readouterr().out)["images"])
    assert answers[0] == answers[1]


def test_an_export_that_answers_otherwise_is_refused(predictor, finished, tmp_path, monkeypatch):
    def spoil(predictor: Predictor, folder: Path, pixels: torch.Tensor) -> None:
        formats.write_safetensors(predictor, folder, pixels)
        with torch.no_grad():
            predictor.network.model.linear[0].bias[0] += 0.1
        save_weights(folder / "best.safetensors", predictor.network.model)
        made_anew(RunDirectory(folder))
        with torch.no_grad():
            predictor.network.model.linear[0].bias[0] -= 0.1

    monkeypatch.setitem(formats.FORMATS, "safetensors", (spoil, formats.read_safetensors))
    with pytest.raises(CaltechError, match=r"(?s)Nothing is exported: on 20 images.*tolerance="):
        formats.export(predictor, "safetensors", tmp_path / "model", 1e-4)
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(predictor, tmp_path):
    with pytest.raises(InputError, match=r"exists already\. Nothing is overwritten"):
        formats.export(predictor, "safetensors", tmp_path, 1e-4)


@pytest.mark.parametrize(
    ("form", "dtype", "store", "typed", "expected"),
    [
        ("onnx", "float32", None, [], 1e-4),
        ("onnx", "float32", "float32", [], 1e-4),
        ("onnx", "float32", "bfloat16", [], 1e-3),
        ("onnx", "bfloat16", "bfloat16", [], 5e-2),
        ("onnx", "tf32", None, [], 1e-2),
        ("safetensors", "tf32", None, [], 1e-2),
        ("safetensors", "bfloat16", "bfloat16", [], 1e-4),
        ("safetensors on cuda", "bfloat16", None, [], 5e-2),
        ("safetensors on cuda", "float16", None, [], 1e-2),
        ("safetensors on cuda", "float32", None, [], 1e-4),
        ("onnx", "float32", "bfloat16", ["--tolerance", "0.2"], 0.2),
    ],
)
def test_the_tolerance(finished, tmp_path, monkeypatch, form, dtype, store, typed, expected):
    other = RunDirectory(shutil.copytree(finished, tmp_path / "other"))
    cfg = OmegaConf.load(other.config)
    cfg.precision.dtype = dtype
    if store is not None:
        cfg.freeze = {"_target_": "caltech.models.until.freeze_until", "at": "linear"}
        cfg.freeze.store = store
    OmegaConf.save(cfg, other.config)
    made_anew(other)
    asked = []
    monkeypatch.setattr(formats, "export", lambda *given: asked.append(given[1:]))
    form, _, is_on_gpu = form.partition(" on ")
    if is_on_gpu:
        monkeypatch.setattr(export, "_is_on_gpu", lambda member: True)
    words = [f"format={form}", f"to={tmp_path}/to", f"run={other}", "device=cpu"]
    assert export.main([*words, *typed]) == 0
    assert asked == [(form, tmp_path / "to", expected)]
