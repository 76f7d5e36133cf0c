"""`python -m caltech.predict`: what is typed, what is printed, and the exit code."""

import json
import runpy
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image

from caltech import predict
from caltech.inference.explain import OVERLAY


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


@pytest.fixture
def start(monkeypatch, capsys):
    """The same of `python -m MODULE WORDS`, with all that Python does around it."""

    def started(module: str, *words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", [module, *words])
        monkeypatch.delitem(sys.modules, module, raising=False)
        with pytest.raises(SystemExit) as stopped:
            runpy.run_module(module, run_name="__main__")
        return stopped.value.code, *capsys.readouterr()

    return started


def test_unreadable_files_are_named_and_the_others_answered(ask, images, tmp_path):
    good, broken = images / "wild_cat" / "image_0002.jpg", tmp_path / "text.jpg"
    broken.write_text("no image")
    code, output, errors = ask(broken, good)
    assert code == 1
    assert output.startswith(f"{good}\n") and output.count("%") == 5
    assert f"unreadable: {broken}: not an image in a format" in errors
    code, output, _ = ask(broken, good, "--json")
    document = json.loads(output)
    assert code == 1
    assert [image["image"] for image in document["images"]] == [str(good)]
    assert [list(image) for image in document["unreadable"]] == [["image", "reason"]]
    assert ask(good)[0] == 0


def test_missing_files_are_told_first_and_load_no_model_alone(ask, images, monkeypatch, tmp_path):
    good = images / "wild_cat" / "image_0002.jpg"
    code, output, errors = ask(good, tmp_path / "cat.jpg")
    assert (code, output.count("%")) == (1, 5)
    assert errors.startswith(f"unreadable: {tmp_path}/cat.jpg: no such file\nrun ")
    monkeypatch.setattr(predict.command_line, "load", lambda given: pytest.fail("loaded"))
    code, output, errors = ask(tmp_path / "cat.jpg", tmp_path, tmp_path / "*.png")
    assert (code, output, errors.count("unreadable: ")) == (1, "", 3)
    assert errors.endswith(f"{tmp_path}/*.png: nothing matches\n")
    assert json.loads(ask(tmp_path / "cat.jpg", "--json")[1])["run"] is None


@pytest.mark.parametrize("typed", [["weights=last"], ["--weights", "last"], ["--weights=last"]])
def test_json_has_the_run_and_its_answers(ask, images, finished, typed):
    code, output, _ = ask(images / "Faces", "--json", *typed)
    document = json.loads(output)
    assert code == 0
    assert list(document["run"].values())[:4] == [finished.name, "default", str(finished), "last"]
    files = [Path(image["image"]).name for image in document["images"]]
    assert files == [f"image_{number:04d}.jpg" for number in range(1, 13)]
    assert {tuple(image) for image in document["images"]} == {("image", "top")}
    assert list(document["images"][0]["top"][0]) == ["class", "probability"]
    assert document["unreadable"] == []


def test_overlays_are_written_where_they_are_asked_for(ask, images, tmp_path):
    one, other = images / "Faces" / "image_0001.jpg", images / "accordion" / "image_0001.jpg"
    code, output, _ = ask(one, other, "--explain", f"to={tmp_path}", "--json")
    overlays = [Path(image["overlay"]) for image in json.loads(output)["images"]]
    assert code == 0
    assert overlays == [
        tmp_path / name / f"image_0001.jpg{OVERLAY}" for name in ("Faces", "accordion")
    ]
    for overlay in overlays:
        with Image.open(overlay) as image:
            assert image.format == "PNG"
            assert image.width == 2 * image.height  # what the model saw, and beside it where
    beside = Path(shutil.copy(one, tmp_path / "mine.jpg"))
    assert f"seen where {beside}{OVERLAY} is yellow" in ask(beside, "--explain")[1]


def test_the_command_from_another_directory(start, finished, images, tmp_path, monkeypatch):
    """The run is found by its key; there is no progress bar and no warning."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.jpg").write_text("no image")
    words = ["text.jpg", str(images / "Faces" / "image_0001.jpg"), "device=cpu"]
    words += [f"run={finished.name}", f"output={finished.parent.parent}", "study=default"]
    code, output, errors = start("caltech.predict", *words)
    assert code == 1
    assert output.count("%") == 5
    assert [line.split(":")[0] for line in errors.splitlines()] == [
        f"run {finished.name} of study default", "unreadable",
    ]  # fmt: skip


@pytest.mark.parametrize("module", ["caltech.predict", "caltech.export"])
def test_errors_are_one_line_and_an_exit_code(start, finished, module):
    words = [__file__] if module == "caltech.predict" else ["format=onnx", "to=x"]
    words += ["run=0123456789", f"output={finished.parent.parent}"]
    code, _, errors = start(module, *words)
    assert code == 1
    assert errors.startswith("error: run=0123456789 is neither in")
    assert finished.name in errors and errors.count("\n") == 1


@pytest.mark.parametrize(
    "words", ["a.jpg weights=first", "a.jpg --jsn", "a.jpg to=x", "a.jpg explain=true", ""]
)
def test_mistyped_options_are_one_line(ask, capsys, words):
    with pytest.raises(SystemExit) as stopped:
        ask(*words.split())
    assert stopped.value.code == 2
    errors = capsys.readouterr().err
    assert errors.startswith("error: ") and errors.count("\n") == 1
