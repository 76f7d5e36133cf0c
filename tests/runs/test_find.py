"""A finished run is found by key, directory, or as the best; and a start from its weights."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from caltech.config import build
from caltech.errors import InputError
from caltech.files import read_sealed_json, write_json, write_sealed_json
from caltech.runs.directory import RunDirectory
from caltech.runs.find import experiment_of, find
from caltech.runs.known import require_study
from caltech.settings import CONF
from caltech.train import train
from tests.observers import TINY, outcome


@pytest.fixture
def store(tmp_path):
    """Make directories of made-up runs: what find() reads of them."""

    def put(study, key, validation=0.5, test=0.5, data="caltech101", finished=True) -> Path:
        directory = tmp_path / study / key
        directory.mkdir(parents=True)
        (directory / "config.yaml").write_text(f"key: {key}\n")
        made_from = {"data": {"name": data, "sha256": data[::-1]}}
        write_sealed_json(directory / "provenance.json", made_from)
        measured = {"val/accuracy": validation, "val/loss": 1.0, "test/accuracy": test, "epoch": 1}
        result = {"key": key, "status": "finished", "last": measured, "best": measured}
        result["majority/accuracy"] = 0.1
        if finished:
            write_json(directory / "result.json", result)
        return directory

    return put


@pytest.fixture
def found(tmp_path):
    def place(run: str, study: str | None = None, data: str | None = None, **word: str) -> Path:
        return find(run, study, data, tmp_path, **word).path

    return place


def test_the_best_run_is_that_of_highest_validation_accuracy(store, found):
    worse = store("first", "aaa", validation=0.7, test=0.9)
    best = store("second", "bbb", validation=0.8, test=0.6)
    store("second", "ccc", finished=False)
    assert found("best") == best
    assert found("best", study="first") == worse


def test_a_run_that_trained_on_its_validation_images_is_not_the_best(store, found, caplog):
    best = store("study", "bbb", validation=0.8)
    final = store("study", "ccc", validation=0.99)
    (final / "config.yaml").write_text("key: ccc\nsplit:\n  train_on_validation: true\n")
    assert found("best") == best
    assert "ccc trained on its validation images" in caplog.text


def test_the_best_runs_of_two_data_sets_are_not_compared(store, found, caplog):
    """That of the data set which was trained on last is taken, and the others are told."""
    last = store("study", "bbb", validation=0.8)
    other = store("study", "ddd", validation=0.99, data="digits")
    os.utime(other / "result.json", (1, 1))
    assert found("best") == last
    assert "\n  run=bbb  data=caltech101  0.8000\n  run=ddd  data=digits  0.9900" in caplog.text
    assert max(map(len, caplog.messages[-1].splitlines()[1:])) <= 80
    assert found("best", data="digits") == other
    with pytest.raises(InputError, match="no finished run on data=mnist"):
        found("best", data="mnist")


def test_the_data_set_trained_on_last_is_told_by_the_runs_not_by_their_files(store, found):
    for number, data in enumerate(("caltech101", "digits")):
        path = store("study", data, data=data)
        write_sealed_json(path / "history.json", {"ended": 1000 * number})
        os.utime(path / "result.json", (9 - number, 9 - number))  # as a copy or a checkout does
    assert found("best").name == "digits"


def test_a_path_that_is_no_run_is_told_as_a_path(store, found, tmp_path):
    store("study", "aaa")
    with pytest.raises(InputError, match=r"run=/nonexistent/path is not there\. Type run= with"):
        found("/nonexistent/path")
    with pytest.raises(InputError, match=r"has no config\.yaml of a run"):
        found(str(tmp_path / "study"))


def test_a_run_is_found_by_key_or_directory(store, found):
    with pytest.raises(InputError, match=r"has no runs.*caltech\.train"):
        found("aaaa1")
    with pytest.raises(InputError, match=r"^start=aaaa1: .*, or start= with a run's directory"):
        found("aaaa1", word="start")
    first = store("first", "aaaa1")
    assert found("aaaa1") == found(str(first)) == first
    with pytest.raises(InputError, match=r"run=aaaa2 is neither.*aaaa1.*run=best"):
        found("aaaa2")


def test_a_key_with_two_results_needs_its_study(store, found):
    first, _ = store("first", "aaaa1", validation=0.7), store("second", "aaaa1", validation=0.7)
    assert found("aaaa1") == first  # the same result: either will do
    third = store("third", "aaaa1", validation=0.6)
    with pytest.raises(InputError, match="study=first, study=second, study=third"):
        found("aaaa1")
    assert found("aaaa1", study="third") == third


@pytest.mark.parametrize("study", ["/abs/path", "../x", "", "a/b"])
@pytest.mark.parametrize("run", ["best", "aaaaaaaaa1", "directory"])
def test_a_study_that_is_no_folder_s_name_is_told(store, found, run, study):
    path = store("mine", "aaaaaaaaa1")
    with pytest.raises(InputError, match="it is the name of a folder in output, and no path"):
        found(str(path) if run == "directory" else run, study=study)


def test_a_run_of_other_data_or_of_another_study_is_none(store, found):
    path = store("mine", "aaaaaaaaa1", data="digits")
    for run in ("aaaaaaaaa1", str(path)):
        assert found(run, data="digits") == found(run, data="digits"[::-1][:3]) == path
        assert found(run, study="mine") == path
        with pytest.raises(InputError, match="is of data=digits, and not of data=nosuch"):
            found(run, data="nosuch")
    with pytest.raises(InputError, match="is a directory in mine, and study=other is another"):
        found(str(path), study="other")


def test_advice_names_the_study_in_which_a_run_is(store, found, tmp_path):
    store("mine", "aaaaaaaaa1"), store("names", "aaaaaaaaa2")
    for study in ("names", "nosuch"):
        with pytest.raises(InputError, match=r"is in mine\. Type study=mine\."):
            found("aaaaaaaaa1", study=study)
    (tmp_path / "mine+names").mkdir()  # of a joint report, without runs
    with pytest.raises(InputError, match=r"are: mine, names\. Type study=mine,names\."):
        require_study("mine+names", tmp_path)


@pytest.mark.parametrize("run", ["a" * 300, "a/" * 3000, "a\0b"])
def test_what_is_too_long_for_a_path_is_no_run(store, found, run):
    store("mine", "aaaaaaaaa1")
    with pytest.raises(InputError, match=r"is neither in|is not there"):
        found(run)


@pytest.fixture(scope="module")
def head(compose_in, tmp_path_factory):
    cfg = compose_in(tmp_path_factory.mktemp("head"), *TINY, "freeze=backbone")
    train(cfg)
    return cfg


def test_a_run_starts_from_another_one_s_best_weights(compose_in, head):
    tiny = [*TINY, "freeze=none", "num_epochs=1", "batch_size=64", "lr=1e-30"]
    cfg = compose_in(head.output, *tiny, f"start={head.key}")
    train(cfg)
    best = outcome(head)[2]
    for name, value in outcome(cfg)[1].items():
        if "running_" not in name and "num_batches" not in name:  # BatchNorm has seen a batch
            assert torch.allclose(value, best[name], rtol=0, atol=1e-20), name
    told = read_sealed_json(RunDirectory(cfg.directory).provenance)
    assert told["weights"]["name"].endswith(f", then the best of {head.key}")
    assert cfg.key != compose_in(head.output, *tiny).key


def test_another_model_cannot_start_from_it(compose_in, head):
    other = ["model=resnet18", "model.weights=null", f"start={head.key}"]
    with pytest.raises(InputError, match=r"of this model: of its tensors, \d+ are not in it"):
        train(compose_in(head.output, *TINY[3:], *other))


def test_a_start_from_another_split_is_refused(compose_in, head, tmp_path):
    """What it was trained on may be what this run is tested on."""
    own, halves = [], np.array_split(build(head.data).files, 2)
    for name, files in zip(("train", "test"), halves, strict=True):
        (tmp_path / f"{name}.txt").write_text("\n".join(files))
        own.append(f"data.{name}_files={tmp_path}/{name}.txt")
    with pytest.raises(InputError, match=r"another split .*may be test images here"):
        train(compose_in(head.output, *TINY, *own, f"start={head.key}"))


def test_a_missing_start_names_the_experiment_that_makes_it(compose_in, head):
    key = OmegaConf.load(CONF / "experiment" / "beyond" / "lite2.yaml").start
    with pytest.raises(InputError, match=r"first: caltech train experiment=beyond/lite2_head\."):
        train(compose_in(head.output, *TINY, f"start={key}"))


def test_a_key_of_no_experiment_has_no_name_and_hydra_stays_as_it_was():
    before = GlobalHydra.instance().hydra
    assert experiment_of("0123456789") is None
    assert GlobalHydra.instance().hydra is before
