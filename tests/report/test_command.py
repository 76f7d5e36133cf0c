"""The command, from a run to its report."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from caltech.errors import InputError
from caltech.report.kept import kept
from caltech.train import train
from tests.conftest import REPOSITORY
from tests.report.conftest import accuracies

TINY = ("model=timm", "model.name=test_resnet", "model.weights=null", "data.resize=40")


def test_a_run_is_reported_and_its_page_is_the_same_without_its_data(configure, store, make):
    places = [f"tracking.uri={store.uri}", f"tracking.artifacts={store.folder}/artifacts"]
    fast = ["num_epochs=2", "batch_size=16", "lr=0.1", "freeze=none"]
    cfg = configure("tracking=mlflow", *places, *fast, "study=real", *TINY, "data.crop=32")
    train(cfg, {"model": "timm", "data": "caltech101"})
    data = [f"data.caltech101.{k}={cfg.data[k]}" for k in ("root", "resize", "crop", "cache")]
    folder, text = make("real", *places[:1], *data)
    result = json.loads((Path(cfg.directory) / "result.json").read_text())
    assert accuracies(text, "Runs") == {"timm": f"{result['last']['test/accuracy']:.4f}"}
    answered = np.load(Path(cfg.directory) / "predictions_last.npz")
    (run,), _ = kept(folder / "kept")
    assert run.images("validation") == 10 and run.data["classes"][0] == "accordion"
    assert (run.predictions.last == answered["predictions"]).all()
    wrong = (answered["predictions"] != answered["labels"]).sum()
    assert wrong > 0
    gallery = (folder / "gallery.html").read_text()
    assert gallery.count("data:image/jpeg") == min(wrong, 24)

    written = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert "gallery.html beside this page" in (folder / "report.html").read_text()
    (folder / "gallery.html").unlink()
    make("real", *places[:1])
    assert not (folder / "gallery.html").exists()
    written.pop(folder / "gallery.html")
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == written


def test_a_study_that_is_not_there(make, tmp_path):
    (tmp_path / "another").mkdir()
    with pytest.raises(InputError, match=r"study=nowhere has no run .*: another"):
        make("nowhere", "tracking=none")
    with pytest.raises(InputError, match="names a directory"):
        make("..", "tracking=none")


def test_the_command_line_of_which_a_pipe_reads_a_line(tmp_path):
    """Without runs it is a list of what to run; nothing but the report is written."""
    command = f"{sys.executable} -m caltech.report tracking=none output=out | head -n 1"
    own = {"cwd": tmp_path, "env": os.environ | {"PYTHONPATH": str(REPOSITORY)}}
    shown = subprocess.run(command, shell=True, capture_output=True, text=True, **own)
    assert (shown.stdout, shown.stderr) == ("# Study course\n", "")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    folder = tmp_path / "out" / "course"
    assert sorted(path.name for path in folder.iterdir()) == [
        "report.html",
        "table.csv",
        "table.md",
    ]
    text = (folder / "table.md").read_text()
    named = re.findall(r"^python -m caltech.train experiment=(\S+)$", text, re.MULTILINE)
    files = REPOSITORY.glob("conf/experiment/*/*.yaml")
    assert sorted(named) == sorted(f"{path.parent.name}/{path.stem}" for path in files)
