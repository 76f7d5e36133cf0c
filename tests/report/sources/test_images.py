"""Names of a test part's files: of the run's directory, as they were kept, and without either."""

from pathlib import Path

import pytest

from caltech.report import render, rows
from caltech.report.sources import images
from caltech.report.sources.directories import found
from caltech.runs import manifest
from caltech.runs.directory import RunDirectory
from tests.report.conftest import CLASSES, DATA, IMAGES, made_up, trained

LINES = ['validation,0,"not this.jpg"', *(f'test,{n},"a ""b"", {n}.jpg"' for n in range(IMAGES))]


@pytest.fixture
def folder(tmp_path) -> Path:
    """A study of one run whose directory names the files, with commas and quotes."""
    directory = RunDirectory(trained(tmp_path / "mine", "lr=1"))
    directory.images.write_text("\n".join(["part,index,file", *LINES]) + "\n")
    manifest.renew(directory)
    return tmp_path / "mine"


def test_a_directory_s_names_are_kept_and_read_again(folder):
    runs, _ = found(folder, ())
    names, unused = images.named(folder, runs)
    assert unused == [] and names[DATA["sha256"]][0] == 'a "b", 0.jpg'
    images.keep_names(folder, names)
    RunDirectory(folder / runs[0].key).images.unlink()
    assert images.named(folder, runs) == (names, [])


def test_what_is_no_list_of_names_is_told(folder):
    runs, _ = found(folder, ())
    RunDirectory(folder / runs[0].key).images.write_text("part,index,file\n")
    images.kept_names(folder, DATA["sha256"]).parent.mkdir(exist_ok=True)
    images.kept_names(folder, DATA["sha256"]).write_text("index,file\n")
    names, unused = images.named(folder, runs)
    assert names == {} and len(unused) == 2


def test_errors_confusions_and_classes_name_files():
    run = made_up(accuracy=0.5)
    table = rows.Table("Runs", (rows.Row("x", (run,), {}),), (), False)
    names = {n: f"{CLASSES[n % 4]}/{n}.jpg" for n in range(IMAGES)}
    assert render.mistakes(table, 1, names)[0]["file"] == "$dog$/399.jpg"
    assert render.mistakes(table, 1)[0]["file"] == "image 399"
    assert {len(pair["files"]) for pair in render.confusions(table, names)} == {50}
    (worst, *_) = render.classes(table, names)
    assert (worst["images"], worst["accuracy"], len(worst["files"])) == (100, 0.5, 50)
    assert worst["low"] < 0.5 < worst["high"]
    sheet = render.Sheet(table, [run], {DATA["sha256"]: names})
    page = render.text_and_page("mine", [sheet], [run], {"Runs": []})[1]
    assert "bass|&lt;b&gt;/201.jpg" in page and "image 399" not in page
