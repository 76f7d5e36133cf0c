"""A trained run answers images as its own test did, whatever is asked and whatever is broken."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from omegaconf import OmegaConf
from PIL import ExifTags, Image
from safetensors.torch import load_file

from caltech import predict
from caltech.data.pixels import decode, enlarge
from caltech.data.sources import list_images
from caltech.errors import DamagedError, InputError
from caltech.files import read_sealed_json
from caltech.inference import command_line, explain, predictor
from caltech.models import architectures as models
from caltech.models import hub, weights
from caltech.models.architectures import torchvision_model
from caltech.runs import find
from caltech.runs.directory import write_json


@pytest.fixture
def images(tree: Path) -> Path:
    return tree / "caltech101" / "101_ObjectCategories"


@pytest.fixture
def ask(finished: Path, capsys):
    """Exit code, standard output and standard error of the command, asked of the finished run."""

    def asked(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = predict.main([*map(str, words), f"run={finished}", "device=cpu"])
        return code, *capsys.readouterr()

    return asked


@pytest.mark.parametrize("weights", predictor.WEIGHTS)
def test_a_run_s_own_test_files_get_its_stored_answers(finished, images, weights):
    run = predictor.load(finished, weights, "cpu")
    stored = np.load(finished / f"predictions_{weights}.npz")
    files = list_images(images)
    answers = list(predict.predict(run, [images / files[index] for index in stored["indices"]]))
    assert [a.top[0][0] for a in answers] == [run.classes[p] for p in stored["predictions"]]
    found = [answer.top[0][1] for answer in answers]
    np.testing.assert_allclose(found, stored["confidences"], rtol=1e-4)
    assert len(run.answers.views) == 2
    for answer in answers:
        assert sum(probability for _, probability in answer.top) == pytest.approx(1, abs=1e-5)


def test_a_model_is_rebuilt_from_the_run_s_files_alone(finished, monkeypatch, tmp_path):
    """Neither the pretrained weights nor the data are touched; the normalisation comes back."""
    monkeypatch.setattr(weights, "load_lite", lambda *_: pytest.fail("weights were read"))
    alone = shutil.copytree(finished, tmp_path / "alone")
    cfg = OmegaConf.load(alone / "config.yaml")
    cfg.data.root = cfg.data.cache = "/nowhere"
    OmegaConf.save(cfg, alone / "config.yaml")
    run = predictor.load(alone, "best", "cpu")
    expected = load_file(finished / "best.safetensors")
    found = run.model.state_dict()
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert run.model.backbone.normalize.mean.flatten().tolist() == [0.5, 0.5, 0.5]
    assert run.classes == ("accordion", "Faces", "Faces_easy", "wild_cat", "yin_yang")
    assert not run.model.training


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("resnet18", "resnet18-f37072fd.pth"),
        ("googlenet", "googlenet-1378be20.pth"),
        ("inception_v3", "inception_v3_google-0cc3c7bd.pth"),
    ],
)
def test_a_model_is_rebuilt_as_its_pretrained_weights_shaped_it(name, file, tmp_path, monkeypatch):
    """GoogLeNet and Inception drop heads and transform their input when they have weights."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(hub, "require_hash", lambda url: None)  # it cannot match
    path = tmp_path / "hub" / "checkpoints" / file
    path.parent.mkdir(parents=True)
    options = {} if name == "resnet18" else {"init_weights": False}
    torch.save(torchvision.models.get_model(name, **options).state_dict(), path)
    model = torchvision_model(5, name, "DEFAULT")
    path.unlink()
    rebuilt = torchvision_model(5, name, "DEFAULT", load=False)
    rebuilt.load_state_dict(model.state_dict())
    images = torch.randint(256, (2, 3, 96, 96), dtype=torch.uint8)
    assert torch.equal(rebuilt.eval()(images), model.eval()(images))
    assert rebuilt.train()(images).shape == model.train()(images).shape == (2, 5)


def test_files_folders_and_globs_each_once(images, tmp_path):
    for name in ("b.JPG", "a.png", "notes.txt", f"a.png{explain.SUFFIX}", "below/c.jpeg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()

    def expanded(*given: str) -> list[str]:
        found = predict.expand([str(tmp_path / text) for text in given])
        return [str(path.relative_to(tmp_path)) for path in found]

    assert expanded("") == ["a.png", "b.JPG", "below/c.jpeg"]
    assert expanded("*.png", "b.JPG", "a.png") == ["a.png", "b.JPG"]
    assert expanded("**/*.jpeg") == ["below/c.jpeg"]
    assert expanded("notes.txt", "missing.jpg") == ["notes.txt", "missing.jpg"]
    assert expanded("empty", "*.gif") == ["empty", "*.gif"]
    assert predict.expand(["run=1.jpg"]) == [Path("run=1.jpg")]


def test_unreadable_files_are_named_and_the_others_answered(ask, images, tmp_path):
    good = images / "wild_cat" / "image_0002.jpg"
    (tmp_path / "cut.jpg").write_bytes(good.read_bytes()[:900])
    (tmp_path / "text.jpg").write_text("no image")
    broken = [tmp_path / "cut.jpg", tmp_path / "text.jpg", tmp_path / "missing.jpg"]
    code, output, errors = ask(broken[0], good, *broken[1:], tmp_path / "*.gif")
    assert code == 1
    assert output.startswith(f"{good}\n") and output.count("%") == 5
    for path, reason in zip(
        broken, ["truncated", "not an image in a format", "no such file"], strict=True
    ):
        assert f"unreadable: {path}: " in errors and reason in errors
    assert "nothing matches" in errors

    code, output, _ = ask(broken[0], good, "--json")
    document = json.loads(output)
    assert code == 1
    assert [image["image"] for image in document["images"]] == [str(good)]
    assert [image["image"] for image in document["unreadable"]] == [str(broken[0])]
    assert ask(good)[0] == 0


def test_json_has_the_run_and_its_answers(ask, images, finished):
    code, output, _ = ask(images / "Faces", "--json", "weights=last")
    document = json.loads(output)
    assert code == 0
    assert document["run"]["key"] == find.name and document["run"]["weights"] == "last"
    assert [Path(image["image"]).name for image in document["images"]] == [
        f"image_{number:04d}.jpg" for number in range(1, 13)
    ]
    for image in document["images"]:
        probabilities = [top["probability"] for top in image["top"]]
        assert probabilities == sorted(probabilities, reverse=True)
    assert document["unreadable"] == []


def test_an_exif_orientation_is_ignored_as_in_training_and_told(ask, images, tmp_path):
    original = Image.fromarray(decode(images / "Faces" / "image_0002.jpg", 72))
    original.save(tmp_path / "plain.png")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    original.save(tmp_path / "turned.png", exif=exif)
    _, output, errors = ask(tmp_path / "plain.png", tmp_path / "turned.png", "--json")
    plain, turned = json.loads(output)["images"]
    assert plain["top"] == turned["top"]
    assert "turned.png is answered as it is stored, without its EXIF orientation 6" in errors
    assert "plain.png" not in errors


def test_a_digit_s_file_gives_the_pixels_of_training(tmp_path):
    grey = np.random.default_rng(0).integers(256, size=(8, 8), dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "digit.png")
    np.testing.assert_array_equal(decode(tmp_path / "digit.png", 128), enlarge(grey, 128))


def test_the_command_in_a_process_of_its_own(finished, images, tmp_path):
    """From another directory, the run found by its key; no progress bar, warning or traceback."""
    (tmp_path / "text.jpg").write_text("no image")
    words = ["text.jpg", str(images / "Faces" / "image_0001.jpg"), f"run={find.name}"]
    done = subprocess.run(
        [sys.executable, "-m", "caltech.predict", *words, f"output={find.parent.parent}"],
        cwd=tmp_path, env=os.environ | {"PYTHONWARNINGS": "default"},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stdout.count("%") == 5
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == [
        f"run {find.name} of study default, best weights", "unreadable",
    ]  # fmt: skip


def test_errors_are_one_line_and_an_exit_code(finished, monkeypatch, capsys):
    output = f"output={find.parent.parent}"
    monkeypatch.setattr(sys, "argv", ["predict", "a.jpg", "run=0123456789", output])
    with pytest.raises(SystemExit) as stopped:
        command_line.start(predict.main)
    errors = capsys.readouterr().err
    assert stopped.value.code == 1
    assert errors.startswith("error: run=0123456789 is neither in")
    assert find.name in errors and errors.count("\n") == 1


def test_mistyped_options_are_one_line(ask, capsys):
    for words in (["a.jpg", "weights=first"], ["a.jpg", "--jsn"], ["a.jpg", "to=x"], []):
        with pytest.raises(SystemExit) as stopped:
            ask(*words)
        assert stopped.value.code == 2
        errors = capsys.readouterr().err
        assert errors.startswith("error: ") and errors.count("\n") == 1


@pytest.fixture
def store(tmp_path):
    """Make directories of made-up runs: what find() reads of them."""

    def put(study, key, validation=0.5, test=0.5, data="caltech101", finished=True) -> Path:
        directory = tmp_path / study / key
        directory.mkdir(parents=True)
        (directory / "config.yaml").write_text(f"key: {key}\n")
        write_json(directory / "provenance.json", {"data": {"name": data, "sha256": data[::-1]}})
        if finished:
            measured = {"val/accuracy": validation, "val/loss": 1.0, "test/accuracy": test}
            write_json(
                directory / "result.json", {"key": key, "status": "finished", "best": measured}
            )
        return directory

    return put


def test_the_best_run_is_that_of_highest_validation_accuracy(store, tmp_path):
    store("first", "aaa", validation=0.7, test=0.9)
    best = store("second", "bbb", validation=0.8, test=0.6)
    store("second", "ccc", finished=False)
    assert find.find("best", None, None, tmp_path) == best
    assert find.find("best", "first", None, tmp_path).name == "aaa"
    other = store("second", "ddd", validation=0.99, data="digits")
    with pytest.raises(InputError, match=r"data=caltech101 \(bbb, 0\.8000\); data=digits \(ddd"):
        find.find("best", None, None, tmp_path)
    assert find.find("best", None, "digits", tmp_path) == other
    with pytest.raises(InputError, match="no finished run on data=mnist"):
        find.find("best", None, "mnist", tmp_path)


def test_a_run_is_found_by_key_or_directory(store, tmp_path):
    with pytest.raises(InputError, match=r"has no runs.*caltech\.train"):
        find.find("best", None, None, tmp_path)
    first = store("first", "aaaa1", validation=0.7)
    assert find.find("aaaa1", None, None, tmp_path) == first
    assert find.find(str(first), None, None, Path("/nowhere")) == first
    with pytest.raises(InputError, match=r"run=aaaa2 is neither.*aaaa1.*run=best"):
        find.find("aaaa2", None, None, tmp_path)
    store("second", "aaaa1", validation=0.7)
    assert find.find("aaaa1", None, None, tmp_path) == first  # the same result: either will do
    third = store("third", "aaaa1", validation=0.6)
    with pytest.raises(InputError, match="study=first, study=second, study=third"):
        find.find("aaaa1", None, None, tmp_path)
    assert find.find("aaaa1", "third", None, tmp_path) == third


def test_what_cannot_be_loaded(finished, store, tmp_path):
    with pytest.raises(InputError, match=r"no result\.json: the run is not finished"):
        predictor.load(store("study", "eee", finished=False), "best", "cpu")

    damaged = shutil.copytree(finished, tmp_path / "damaged")
    (damaged / "best.safetensors").write_bytes(b"damaged")
    with pytest.raises(DamagedError, match=r"best\.safetensors was cut short or changed"):
        predictor.load(damaged, "best", "cpu")

    malicious = shutil.copytree(finished, tmp_path / "malicious")
    cfg = OmegaConf.load(malicious / "config.yaml")
    cfg.model = {"_target_": "os.mkdir", "path": str(tmp_path / "made")}
    OmegaConf.save(cfg, malicious / "config.yaml")
    with pytest.raises(InputError, match=r"os\.mkdir"):
        predictor.load(malicious, "best", "cpu")
    assert not (tmp_path / "made").exists()


def test_runs_that_did_not_keep_class_names_take_them_from_their_data(finished, tmp_path):
    old = shutil.copytree(finished, tmp_path / "old")
    provenance = read_sealed_json(old / "provenance.json")
    classes = provenance.pop("classes")
    write_json(old / "provenance.json", provenance)
    assert list(predictor.load(old, "best", "cpu").classes) == classes
    provenance["data"]["sha256"] = "other"
    write_json(old / "provenance.json", provenance)
    with pytest.raises(InputError, match="data set has changed"):
        predictor.load(old, "best", "cpu")


def test_grad_cam_is_the_formula_of_its_paper():
    """ReLU of the maps' sum, weighted by the class's mean gradients (its equations 1 and 2)."""
    torch.manual_seed(0)
    model = torchvision_model(5, "resnet18", None).eval()
    images = torch.randint(256, (2, 3, 64, 64), dtype=torch.uint8)
    classes = torch.tensor([1, 3])
    layer = explain.last_feature_map(model, images[:1])
    assert layer is model.backbone.network.layer4
    kept = []
    handle = layer.register_forward_hook(lambda module, given, output: kept.append(output))
    logits = model(images)
    handle.remove()
    (gradient,) = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), kept)
    weighted = (gradient.mean((2, 3), keepdim=True) * kept[0]).sum(1, keepdim=True).relu()
    expected = torch.nn.functional.interpolate(weighted.detach(), (64, 64), mode="bilinear")[:, 0]
    expected = expected / expected.amax((1, 2), keepdim=True)
    torch.testing.assert_close(explain.grad_cam(model, images, classes), expected)


@pytest.mark.parametrize("name", ["alexnet", "mobilenet_v3_small", "shufflenet_v2_x0_5"])
def test_the_last_feature_map_is_found(name):
    model = torchvision_model(5, name, None).eval()
    image = torch.zeros(1, 3, 96, 96, dtype=torch.uint8)
    heat = explain.grad_cam(model, image, torch.tensor([0]))
    assert heat.shape == (1, 96, 96)
    assert heat.min() >= 0 and heat.max() <= 1


def test_a_transformer_has_no_feature_map():
    model = models.timm_model(5, "test_vit", None).eval()
    with pytest.raises(InputError, match="--explain needs a convolutional network"):
        explain.last_feature_map(model, torch.zeros(1, 3, 160, 160, dtype=torch.uint8))


def test_overlays_are_written_and_never_overwritten(ask, images, tmp_path):
    one, other = images / "Faces" / "image_0001.jpg", images / "accordion" / "image_0001.jpg"
    code, output, _ = ask(one, other, "--explain", f"to={tmp_path}", "--json")
    overlays = [Path(image["overlay"]) for image in json.loads(output)["images"]]
    assert code == 0
    assert overlays == [
        tmp_path / name / f"image_0001.jpg{explain.SUFFIX}" for name in ("Faces", "accordion")
    ]
    for overlay in overlays:
        with Image.open(overlay) as image:
            assert image.size == (64, 64)
    before = overlays[0].read_bytes()
    with pytest.raises(InputError, match=r"gradcam\.png exists already.*to=FOLDER"):
        ask(one, other, "--explain", f"to={tmp_path}")
    assert overlays[0].read_bytes() == before

    beside = Path(shutil.copy(one, tmp_path / "mine.jpg"))
    assert f"seen where {beside}{explain.SUFFIX} is red" in ask(beside, "--explain")[1]
