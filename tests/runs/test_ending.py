"""The last lines of a command: what they say of the run, and commands that can be typed."""

import logging
import shlex
from types import SimpleNamespace

import numpy as np
import pytest
from omegaconf import OmegaConf

from caltech.runs import ending
from caltech.runs.directory import RunDirectory
from caltech.runs.result import Result

NUMBERS = {"epoch": 1, "val/loss": 1.0, "val/accuracy": 0.5, "test/accuracy": 0.4}


@pytest.fixture
def result() -> Result:
    return Result("0123456789", "finished", NUMBERS, NUMBERS, majority_accuracy=0.1)


def test_they_name_the_run_and_three_commands_in_80_columns(configure, result, caplog):
    cfg = configure("lr=0.1", "data.resize=72")
    with caplog.at_level(logging.INFO):
        ending.tell(cfg, result, ["lr=0.1", "data.root=/a b", "weight_decay=0.0005", "study=x"])
    assert f"run 0123456789 in {cfg.directory}" in caplog.text
    lines = caplog.messages[-1].splitlines()
    assert max(len(line) for line in lines if "/tmp" not in line) <= 80
    words = shlex.split("\n".join(lines[1:]).replace("\\\n", ""))
    assert [word for word in words if word in ("predict", "report", "sweep")] == [
        "predict", "report", "sweep",
    ]  # fmt: skip
    assert "lr=0.03,0.1,0.3" in words and "data.root=/a b" in words and "lr=0.1" not in words
    assert f"output={cfg.output}" in words


def test_a_tracked_run_is_looked_at_where_it_is_tracked(configure, result):
    cfg = configure("tracking=mlflow", "tracking.uri=sqlite:////x.db")
    words = ending.next_commands(cfg, result.key, ["tracking.uri=sqlite:////x.db"])
    assert words[1][-2:] == ["ui", "tracking.uri=sqlite:////x.db"]


def test_what_is_one_s_own_is_typed_again(configure, result, monkeypatch):
    sources = [("main", "pkg://caltech/conf"), ("command-line", "/my conf")]
    runtime = {"config_sources": [{"provider": by, "path": path} for by, path in sources]}
    told = {
        "runtime": runtime,
        "overrides": {"hydra": ["hydra.searchpath=[/x]", "hydra.verbose=1"]},
    }
    known = SimpleNamespace(get=lambda: OmegaConf.create(told))
    known.initialized = lambda: True
    monkeypatch.setattr(ending, "HydraConfig", known)
    ask, _, sweep = ending.next_commands(configure(), result.key, ["plugins=[mine]", "loss=own"])
    assert ask[-1] == "plugins=[mine]"
    assert sweep[2:5] == ["--config-dir", "/my conf", "hydra.searchpath=[/x]"]
    assert sweep[-2:] == ["plugins=[mine]", "loss=own"]


def test_a_password_of_the_store_s_address_is_not_in_what_is_told_and_logged(
    configure, result, caplog
):
    with caplog.at_level(logging.INFO):
        typed = ["tracking.uri=postgresql://me:secret@host/x", "storage=mysql://me:secret@host/y"]
        ending.tell(configure("tracking=mlflow"), result, typed)
    assert "secret" not in caplog.text and caplog.text.count("***@host") == 3


@pytest.mark.parametrize(("answers", "warns"), [([1] * 20, True), ([0, 1] * 10, False)])
def test_a_run_that_answers_always_the_same_is_warned_of(tmp_path, caplog, answers, warns):
    directory = RunDirectory(tmp_path)
    np.savez(directory.predictions("last"), labels=[0, 1] * 10, predictions=answers)
    ending.warn_if_collapsed(directory, ("cat", "dog"))
    assert ("answer dog to (almost) every test image" in caplog.text) == warns


@pytest.mark.parametrize("content", [b"", b"PK"])
def test_answers_that_cannot_be_read_are_told_and_do_not_stop_the_command(
    tmp_path, caplog, content
):
    directory = RunDirectory(tmp_path)
    directory.predictions("best").write_bytes(content)
    ending.warn_if_collapsed(directory, ("cat", "dog"))
    assert "predictions_best.npz was cut short or changed" in caplog.text


def test_the_majority_s_accuracy_is_not_taken_for_the_run_s(result, caplog):
    with caplog.at_level(logging.INFO):
        result.log()
    assert caplog.messages[-1].startswith("for comparison, always the class most frequent")


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ('{"images": {"train": 39, "validation": 14, "test": 27}}',
         "images: 39 train, 14 validation, 27 test"),
        ("{", ""),
    ],
)  # fmt: skip
def test_they_say_how_many_images_an_accuracy_rests_on(configure, result, caplog, written, told):
    cfg = configure("lr=0.1")
    directory = RunDirectory(cfg.directory)
    directory.path.mkdir(parents=True, exist_ok=True)
    directory.data.write_text(written)
    with caplog.at_level(logging.INFO):
        ending.tell(cfg, result, [])
    assert told in caplog.text and ("images: " in caplog.text) == bool(told)
