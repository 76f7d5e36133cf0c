"""An exported model answers as its run does, is compared with it, and is refused otherwise."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from caltech import export, predict
from caltech.data.augment import center_crop
from caltech.errors import CaltechError, InputError
from caltech.inference import formats, predictor
from caltech.inference.predictor import Trained
from caltech.runs import checkpoint
from caltech.train import train


@pytest.fixture
def run(finished: Path) -> Trained:
    return predictor.load(finished, "best", "cpu")


@pytest.fixture
def command(finished: Path, capsys):
    """Export the finished run and return what is printed."""

    def exported(*words: str) -> str:
        assert export.main([*words, f"run={finished}", "device=cpu"]) == 0
        return capsys.readouterr().out

    return exported


def stored_answers(run: Trained) -> tuple[torch.Tensor, np.lib.npyio.NpzFile]:
    """Pixels of the whole test part and what the run answered when it was tested."""
    stored = np.load(run.directory / "predictions_best.npz")
    return predictor.own_data(run).pixels[stored["indices"]], stored


def told_differences(printed: str) -> list[float]:
    words = printed.replace(";", "").split()
    return [float(after) for word, after in zip(words, words[2:], strict=False) if word == "at"]


def test_safetensors_are_read_by_predict_without_the_run(run, command, tree, tmp_path, capsys):
    printed = command("format=safetensors", f"to={tmp_path / 'model'}")
    assert "on 20 images of its test part" in printed
    assert all(difference < 1e-4 for difference in told_differences(printed))
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [
        "best.safetensors", "config.yaml", "provenance.json", "result.json",
    ]  # fmt: skip
    assert str(tree) not in (tmp_path / "model" / "config.yaml").read_text()
    image = str(tree / "caltech101" / "101_ObjectCategories" / "Faces" / "image_0004.jpg")
    answers = []
    for place in (run.directory, tmp_path / "model"):
        assert predict.main([image, f"run={place}", "--json", "device=cpu"]) == 0
        answers.append(json.loads(capsys.readouterr().out)["images"])
    assert answers[0] == answers[1]


def test_onnx_takes_batches_of_any_size(configure, tmp_path):
    """With a network of few layers: torch's exporter takes a time for each."""
    pytest.importorskip("onnxscript", reason="pip install onnxscript")
    runtime = pytest.importorskip("onnxruntime", reason="pip install onnxruntime")
    small = ["model=timm", "model.name=test_resnet", "model.weights=null", "freeze=none"]
    cfg = configure(*small, "augment=flip_both", "num_epochs=2", "batch_size=8")
    train(cfg)
    run = predictor.load(Path(cfg.directory), "best", "cpu")
    found = export.export(run, "onnx", tmp_path / "model", 1e-4)
    assert all(difference < 1e-4 for difference in told_differences(found))
    session = runtime.InferenceSession(tmp_path / "model" / "model.onnx")
    about = session.get_modelmeta().custom_metadata_map
    assert tuple(json.loads(about["classes"])) == run.classes
    assert [json.loads(about[name]) for name in ("resize", "crop")] == [72, 64]
    pixels, stored = stored_answers(run)
    images = center_crop(pixels, torch.arange(len(pixels)), 64).numpy()
    for size in (1, 3, len(images)):
        (found,) = session.run(None, {"images": images[:size]})
        assert found.argmax(1).tolist() == stored["predictions"][:size].tolist()
        np.testing.assert_allclose(found.max(1), stored["confidences"][:size], atol=1e-4)


def test_mlflow_answers_image_files(run, command, tree, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))  # MLflow puts the model's code there
    printed = command("format=mlflow", f"to={tmp_path / 'model'}")
    assert all(difference < 1e-4 for difference in told_differences(printed))

    import pandas
    from mlflow.exceptions import MlflowException
    from mlflow.pyfunc import load_model

    model = load_model(str(tmp_path / "model"))
    folder = tree / "caltech101" / "101_ObjectCategories" / "wild_cat"
    files = sorted(folder.iterdir())
    rows = model.predict(pandas.DataFrame({"image": [file.read_bytes() for file in files]}))
    for row, answer in zip(rows, predict.predict(run, files), strict=True):
        assert [top["class"] for top in row["top"]] == [name for name, _ in answer.top]
        found = [top["probability"] for top in row["top"]]
        assert found == pytest.approx([p for _, p in answer.top], abs=1e-6)
    with pytest.raises(MlflowException, match="row 0: not an image file"):
        model.predict(pandas.DataFrame({"image": [b"no image"]}))
    request = json.loads((tmp_path / "model" / "serving_input_example.json").read_text())
    assert request["dataframe_split"]["columns"] == ["image"]


def test_an_export_that_answers_otherwise_is_refused(run, tmp_path, monkeypatch):
    def spoil(run: Trained, folder: Path, images: torch.Tensor) -> None:
        formats.write_safetensors(run, folder, images)
        shutil.copyfile(run.directory / "other.safetensors", folder / "best.safetensors")

    model = predictor.load(run.directory, "best", "cpu").model
    with torch.no_grad():
        model.linear[0].bias[0] += 0.1
    checkpoint.save_weights(run.directory / "other.safetensors", model)
    monkeypatch.setitem(formats.FORMATS, "safetensors", (spoil, formats.read_safetensors))
    with pytest.raises(CaltechError, match=r"Nothing is exported: on 20 images.*tolerance="):
        export.export(run, "safetensors", tmp_path / "model", 1e-4)
    assert list(tmp_path.iterdir()) == []
    (run.directory / "other.safetensors").unlink()


def test_no_number_is_no_agreement(run):
    images = export.sample(run)
    with pytest.raises(CaltechError, match="differ by at most nan"):
        export.compare(run, images, lambda pixels: run.probabilities(pixels) * torch.nan, 1.0)


def test_stored_answers_of_another_model_are_noticed(run, tmp_path):
    """The comparison is not only of the rebuilt model with itself."""
    other = shutil.copytree(run.directory, tmp_path / "other")
    stored = dict(np.load(other / "predictions_best.npz"))
    np.savez(other / "predictions_best.npz", **stored | {"confidences": stored["confidences"] / 2})
    with pytest.raises(CaltechError, match="from the answers stored in its test"):
        export.export(
            predictor.load(other, "best", "cpu"), "safetensors", tmp_path / "model", tolerance=1e-4
        )


def test_without_its_data_a_run_is_compared_on_noise(run, tmp_path):
    other = shutil.copytree(run.directory, tmp_path / "other")
    (other / "predictions_best.npz").unlink()
    found = export.export(
        predictor.load(other, "best", "cpu"), "safetensors", tmp_path / "model", tolerance=1e-4
    )
    assert "of noise (its data set is not here)" in found


def test_nothing_is_overwritten(run, tmp_path):
    with pytest.raises(InputError, match=r"exists already\. Nothing is overwritten"):
        export.export(run, "safetensors", tmp_path, 1e-4)
