"""Several runs that answer as one: equal to a run where it must be, and one message where it is
none."""

import json
from pathlib import Path
from shutil import copytree

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from caltech import export, predict
from caltech.errors import InputError
from caltech.files import read_sealed_json, write_sealed_json
from caltech.inference import formats
from caltech.inference.comparison import sample
from caltech.inference.ensemble import Ensemble, load, scaled
from caltech.inference.predictor import Predictor
from caltech.runs import logits
from caltech.runs.directory import RunDirectory
from caltech.train import train
from tests.conftest import composed
from tests.inference.conftest import TINY
from tests.observers import made_anew


@pytest.fixture(scope="session")
def other(tree, cache, tmp_path_factory) -> Path:
    """A run of another seed and image size on the images of `tiny`."""
    sizes = ["data.resize=48", "data.crop=40", "seed=1", "num_epochs=2", "batch_size=8"]
    cfg = composed(tree, cache, tmp_path_factory.mktemp("other"), *TINY, *sizes)
    train(cfg)
    return Path(cfg.directory)


@pytest.fixture
def joined(tiny, other) -> Ensemble:
    return Ensemble.of([tiny, Predictor.load(RunDirectory(other), "best", "cpu")])


@pytest.fixture
def image(images) -> Path:
    return images / "Faces" / "image_0001.jpg"


@pytest.mark.parametrize("count", [1, 2, 3])
def test_of_one_run_it_is_the_run(tiny, count):
    pixels, _ = sample(tiny)
    ensemble = Ensemble.of([tiny] * count)
    assert torch.equal(ensemble.probabilities((pixels,)), tiny.probabilities(pixels))


def test_it_is_the_mean_of_members_of_other_sizes(joined, image):
    alone = [m.probabilities(m.stack([m.read(image)])) for m in joined.members]
    found = joined.probabilities(joined.stack([joined.read(image)]))
    assert joined.forms == [(72, False), (48, False)]
    assert torch.allclose(found, sum(alone) / 2, atol=1e-7)


def test_a_temperature_of_one_changes_no_bit_and_no_other_an_answer(tiny):
    pixels, _ = sample(tiny)
    plain = tiny.probabilities(pixels)
    assert torch.equal(scaled(plain, 1.0), plain)
    calibrated = Predictor.load(tiny.directory, "best", "cpu", calibrated=True)
    found = calibrated.probabilities(pixels)
    assert not torch.equal(found, plain) and torch.equal(found.argmax(1), plain.argmax(1))
    assert torch.allclose(scaled(found.double(), 1 / calibrated.temperature).float(), plain)


def test_predict_says_who_answers_and_by_which_temperature(tiny, other, image, capsys):
    words = [str(image), f"run={tiny.directory},{other}", "--calibrated", "--json", "device=cpu"]
    assert predict.main(words) == 0
    output, errors = capsys.readouterr()
    run = json.loads(output)["run"]
    assert [each["directory"] for each in run["members"]] == [str(tiny.directory), str(other)]
    assert run["temperature"] > 0
    assert "ensemble of 2" in errors and "fitted to 10 validation images" in errors


@pytest.mark.parametrize("form", ["safetensors", "mlflow"])
def test_an_export_of_several_sizes_is_one_model(joined, image, form, tmp_path):
    said = formats.export(joined, form, tmp_path / "model", 1e-4)
    assert (
        "that have no stored answers" in said if form == "mlflow" else "stored in its test" in said
    )
    if form == "safetensors":
        again = load(tmp_path / "model", "best", "cpu")
        pixels = joined.stack([joined.read(image)])
        assert torch.equal(again.probabilities(pixels), joined.probabilities(pixels))


def test_onnx_is_of_members_of_one_size(tiny, joined, tmp_path):
    with pytest.raises(InputError, match=r"images of several\. Type format=safetensors"):
        formats.export(joined, "onnx", tmp_path / "model", 1e-4)
    pytest.importorskip("onnxruntime")
    said = formats.export(Ensemble.of([tiny, tiny], True), "onnx", tmp_path / "model", 1e-4)
    assert "on 20 images of its test part" in said and "stored in its test" in said


def test_a_calibrated_export_is_calibrated_and_says_so(tiny, image, tmp_path, capsys):
    to, words = tmp_path / "model", ["format=safetensors", "--calibrated", "device=cpu"]
    assert export.main([*words, f"run={tiny.directory}", f"to={to}"]) == 0
    assert "stored in its test" in capsys.readouterr().out
    assert "temperature: " in (to / "config.yaml").read_text()
    for more in ([], ["--calibrated"]):
        assert predict.main([str(image), f"run={to}", "device=cpu", *more]) == 0
        assert "calibrated: temperature" in capsys.readouterr().err


def changed_classes(directory: RunDirectory) -> None:
    known = read_sealed_json(directory.provenance)
    write_sealed_json(directory.provenance, known | {"classes": [*known["classes"][:-1], "tulip"]})


def changed_data(directory: RunDirectory) -> None:
    known = read_sealed_json(directory.provenance)
    known["data"]["sha256"] = "f" * 64
    write_sealed_json(directory.provenance, known)


def changed_turning(directory: RunDirectory) -> None:
    changed_data(directory)
    cfg = OmegaConf.load(directory.config)
    cfg.data.upright = True
    OmegaConf.save(cfg, directory.config)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (changed_turning, r"as they are stored and as EXIF turns them \(data\.upright=true\)"),
        (changed_classes, "5 and 5 classes; not in both: tulip, yin_yang"),
        (changed_data, "another split of them .*Type run= with runs of one data set"),
    ],
)
def test_members_that_differ_are_one_message(tiny, tmp_path, change, said):
    copy = RunDirectory(copytree(tiny.directory.path, tmp_path / "copy"))
    change(copy)
    made_anew(copy)
    with pytest.raises(InputError, match=said):
        Ensemble.of([tiny, Predictor.load(copy, "best", "cpu")])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("run=A,,B", "a comma with no run beside it. Type run=A,B"),
        ("run=A,", "Type run=A."),
        ("run=A,B --explain", "--explain shows where one network looks"),
        ("run=A,B,A", "has one run twice"),
        ("run=A,0000000000", "run=0000000000 is neither in"),
    ],
)
def test_what_is_typed_wrong_is_one_message(tiny, other, image, words, said):
    typed = words.replace("A", str(tiny.directory)).replace("B", str(other)).split()
    said = said.replace("=A", f"={tiny.directory}").replace(",B", f",{other}")
    output = f"output={other.parent.parent}"
    with pytest.raises(InputError) as refused:
        predict.main([str(image), *typed, output, "device=cpu"])
    assert said in str(refused.value)


def test_a_member_without_logits_is_named_before_it_answers(tiny, other, tmp_path):
    copy = RunDirectory(copytree(other, tmp_path / "copy"))
    copy.logits("best").unlink()
    members = [tiny, Predictor.load(copy, "best", "cpu")]
    with pytest.raises(InputError, match=r"copy has no logits\. Type its training command"):
        Ensemble.of(members, calibrated=True)
    assert len(Ensemble.of(members).members) == 2


def test_the_mean_s_temperature_is_its_own(tiny, other):
    directories = [tiny.directory, RunDirectory(other)]
    fitted, images = logits.mean_temperature(directories, "best")
    mean = logits.mean_of(directories, "best")["validation"]
    assert images == 10 and np.exp(mean.logits).sum(1) == pytest.approx(np.ones(10))
    assert fitted == logits.measured({"validation": mean, "test": mean})["temperature"]


def test_an_exported_ensemble_has_no_other_weights(joined, tmp_path):
    formats.export(joined, "safetensors", tmp_path / "model", 1e-4)
    assert load(tmp_path / "model", None, "cpu").weights == "best"
    with pytest.raises(InputError, match="was exported with weights=best alone"):
        load(tmp_path / "model", "last", "cpu")
