"""Logits and temperatures of a finished run, as they are kept, asked for and refused."""

import csv
import json
from dataclasses import replace
from pathlib import Path
from shutil import copytree
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from caltech.calibration import calibration, probabilities
from caltech.config import build
from caltech.errors import DamagedError, InputError
from caltech.files import read_sealed_json
from caltech.runs import logits, manifest
from caltech.runs.directory import WEIGHTS, RunDirectory
from caltech.train import train
from tests.observers import TINY


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> RunDirectory:
    return RunDirectory(copytree(finished, tmp_path / "study" / finished.name))


def without_logits(directory: RunDirectory) -> None:
    """As earlier code left it."""
    for path in (*map(directory.logits, WEIGHTS), directory.calibration, directory.images):
        path.unlink()
    manifest.write(directory, directory.path.name, directory.result.read_bytes())


@pytest.mark.parametrize("name", WEIGHTS)
def test_the_test_s_answers_are_those_of_the_logits(finished, name):
    directory = RunDirectory(finished)
    parts = logits.read(directory, name)
    with np.load(directory.predictions(name)) as answers:
        for what in ("indices", "labels"):
            assert np.array_equal(getattr(parts["test"], what), answers[what])
        likely = torch.from_numpy(parts["test"].logits).softmax(1).max(1)
        assert np.array_equal(likely.indices.numpy(), answers["predictions"])
        assert np.array_equal(likely.values.numpy(), answers["confidences"])


def test_validation_is_there_with_the_accuracy_of_its_epoch(finished):
    directory = RunDirectory(finished)
    result = json.loads(directory.result.read_text())
    for name in WEIGHTS:
        validation = logits.read(directory, name)["validation"]
        accuracy = (validation.logits.argmax(1) == validation.labels).mean()
        assert accuracy == pytest.approx(result[name]["val/accuracy"])


def test_the_errors_before_and_after_are_kept(finished):
    directory = RunDirectory(finished)
    told = json.loads(directory.calibration.read_text())["best"]
    test = logits.read(directory, "best")["test"]
    temperature, images = logits.temperature_of(directory, "best")
    assert images == 10
    for name, by in ((logits.ERROR, 1.0), (logits.CALIBRATED, temperature)):
        likely = probabilities(test.logits, by)
        right = likely.argmax(1) == test.labels
        assert told[name] == pytest.approx(calibration(likely.max(1), right).error)


def test_images_are_named_by_their_index(finished):
    with RunDirectory(finished).images.open() as file:
        named = {int(row["index"]): row for row in csv.DictReader(file)}
    test = logits.read(RunDirectory(finished), "last")["test"]
    assert all(named[index]["part"] == "test" for index in test.indices.tolist())
    assert named[0]["file"].endswith("accordion/image_0001.jpg")


def test_changed_logits_are_named_and_not_used(copy):
    other = dict(np.load(copy.logits("last")))
    other["test_logits"] += 1
    np.savez_compressed(copy.logits("last"), **other)
    with pytest.raises(DamagedError, match=r"logits_last\.npz is not the file that run"):
        logits.read(copy, "last")


@pytest.mark.parametrize("harm", ["labels of no class", "a text", "an array less", "cut"])
def test_logits_of_a_run_without_a_manifest_are_looked_at(copy, harm):
    """And so are its answers. What they hold would else end in a traceback of numpy's."""
    copy.manifest.unlink()
    for path in (copy.logits("last"), copy.predictions("last")):
        arrays = dict(np.load(path))
        name = next(each for each in arrays if each in ("validation_labels", "predictions"))
        if harm == "labels of no class":
            arrays[name] = arrays[name] - 99 if "logits" in path.name else arrays[name][:-1]
        elif harm == "a text":
            arrays[name] = np.array("x")
        elif harm == "an array less":
            del arrays[name]
        np.savez(path, **arrays)
        if harm == "cut":
            path.write_bytes(path.read_bytes()[:-99])
    with pytest.raises(DamagedError, match=r"logits_last\.npz was cut short or changed"):
        logits.read(copy, "last")
    with pytest.raises(DamagedError, match=r"predictions_last\.npz (was cut|has not one answer)"):
        logits.require_same(copy, "last", np.zeros(20, np.int64))


def test_a_run_of_earlier_code_says_how_it_gets_them(copy):
    without_logits(copy)
    for asked in (logits.read, logits.temperature_of):
        with pytest.raises(InputError, match=r"has no .*Type its training command.*logits=keep"):
            asked(copy, "best")


def test_a_finished_run_gets_them_by_its_command_and_nothing_is_trained(configure):
    first = configure(*TINY, "logits=none")
    result = train(first)
    directory = RunDirectory(first.directory)
    assert not directory.logits("last").exists() and directory.calibration.is_file()
    weights = directory.weights("last").read_bytes()
    assert train(configure(*TINY, "logits=keep")) == result
    assert directory.weights("last").read_bytes() == weights
    kept = {name: directory.logits(name).read_bytes() for name in WEIGHTS}
    assert train(configure(*TINY, "logits=keep", "study=other")) == result
    for name in WEIGHTS:
        other = directory.path.parent.parent / "other" / directory.path.name
        assert RunDirectory(other).logits(name).read_bytes() == kept[name]


def test_a_run_whose_last_weights_were_removed_gets_those_of_the_best_epoch(configure, caplog):
    result = train(cfg := configure(*TINY, "logits=none"))
    directory = RunDirectory(cfg.directory)
    told = read_sealed_json(directory.calibration)
    directory.weights("last").unlink()
    assert train(configure(*TINY, "logits=keep")) == result
    assert "no last.safetensors (caltech clean last removes it" in caplog.text
    assert logits.are_there(directory) and logits.read(directory, "best")
    assert read_sealed_json(directory.calibration) == told
    with pytest.raises(InputError, match=r"of its last epoch.*clean last.*weights="):
        logits.read(directory, "last")
    directory.weights("best").unlink()
    with pytest.raises(DamagedError, match=r"has no best\.safetensors; it had one"):
        manifest.verify(directory, [directory.weights("best")])


def test_weights_that_answer_otherwise_here_give_no_logits(copy):
    with np.load(copy.predictions("last")) as file:
        answers = file["predictions"]
    with pytest.raises(InputError, match="another answer to 2 of 20 test images"):
        logits.require_same(copy, "last", np.where(np.arange(20) < 2, answers + 1, answers))


def test_validation_images_that_were_trained_on_give_no_temperature(configure):
    data = build(configure().data)
    scores = logits.Scores(np.arange(2), np.array([0, 1]), np.eye(2, dtype=np.float32))
    both = replace(data, train=torch.cat([data.train, data.validation]))
    told = logits.calibrated({"validation": scores, "test": scores}, both)
    assert "trained on" in told["reason"] and "temperature" not in told


@pytest.mark.parametrize(
    ("option", "trained", "is_sweep", "expected"),
    [("auto", 10, False, True), ("auto", 10, True, False), ("auto", 10**6, True, True),
     ("keep", 10, True, True), ("none", 10**6, False, False)],
)  # fmt: skip
def test_a_sweep_of_little_that_is_trained_keeps_none(
    configure, option, trained, is_sweep, expected
):
    assert logits.are_wanted(option, build(configure().data), trained, is_sweep) is expected


def test_the_room_that_is_told_is_the_most_that_they_take(caplog):
    """Where the last epoch is the best one, both are one file, and half of it."""
    made = SimpleNamespace(classes=range(5000), validation=range(1000), test=range(1000))
    caplog.set_level("INFO")
    assert logits.are_wanted("keep", made, 10, False)
    assert caplog.messages == ["logits are kept: at most 80 MB; logits=none keeps none"]
