"""Runs from their directories: read as they were, truthful about their state, never written to."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from filelock import FileLock

from caltech.files import read_sealed_json, write_sealed_json
from caltech.keys import former_key, run_key
from caltech.report.sources import directories
from caltech.runs.directory import RunDirectory
from tests.report.conftest import CODE, ENVIRONMENT, HARMS, NO_FILE, described, made_up, trained


def found(folder: Path, experiments=()):
    return directories.found(folder, experiments)


def only(folder: Path, experiments=()):
    """The one run of a folder in which all is well."""
    (run,), unused = found(folder, experiments)
    assert unused == []
    return run


@pytest.mark.parametrize("is_old", [False, True])
def test_a_directory_tells_what_a_store_would(tmp_path, is_old):
    trained(tmp_path, "lr=0.2", accuracy=0.3, is_old=is_old)
    run, expected = only(tmp_path), made_up("lr=0.2", accuracy=0.3)
    assert run.metrics.pop("test/loss") == run.metrics.pop("test/best_loss") == 1.0
    del run.metrics["val/best_loss"], run.metrics["test/best_accuracy_per_class"]
    assert run.started == 1 or is_old  # of such a run the oldest file's time
    assert replace(run, started=1, predictions=None) == replace(expected, predictions=None)
    assert list(run.params) == list(expected.params)
    for name, values in vars(expected.predictions).items():
        assert np.array_equal(values, getattr(run.predictions, name)), name


def test_an_experiment_is_known_again_by_its_published_numbers(tmp_path, experiments):
    mine = next(each for each in experiments if each.experiment == "scratch/model2")
    trained(tmp_path, "lr=0.2", published={"table": mine.table, "row": mine.name})
    run = only(tmp_path, experiments)
    assert run.experiment == run.params["experiment"] == "scratch/model2"


def test_the_states_of_runs_that_are_not_finished(tmp_path):
    running = trained(tmp_path, "lr=0.1", status="running")
    trained(tmp_path, "lr=0.2", status="running", is_old=True)
    trained(tmp_path, "lr=0.3", status="pruned")
    before = sorted(tmp_path.rglob("*"))
    lock = FileLock(running / "run.lock")
    with lock:
        runs = {run.params["lr"]: run for run in found(tmp_path)[0]}
        again = {run.params["lr"]: run.status for run in found(tmp_path)[0]}
    told = {lr: run.state for lr, run in runs.items()}
    assert told == {
        "0.1": "running, epoch 3 of 30",
        "0.2": "interrupted after epoch 3",
        "0.3": "pruned after epoch 3",
    }
    assert again["0.1"] == "running" and not any(run.metrics for run in runs.values())
    assert sorted(set(tmp_path.rglob("*")) - {running / "run.lock"}) == before
    (running / "run.lock").touch()
    assert {run.status for run in found(tmp_path)[0]} == {"interrupted", "pruned"}


def test_who_went_on_with_a_run_is_told(tmp_path):
    now = ENVIRONMENT | {"torch": "10.0", "threads": 7}
    trained(tmp_path, by=[{"code": CODE | {"git": "def"}, "environment": now}])
    run = only(tmp_path)
    assert run.environment["torch"] == "9.9, then 10.0" and run.versions == {
        "torch": "9.9, then 10.0"
    }
    assert run.code["git"] == "abc1234, then def" and "host" not in run.environment


OLD = ("config.yaml", "provenance.json", "data.json", "timing.json", "result.json")
OLD += ("predictions_last.npz", "predictions_best.npz", "checkpoint.pt")
CASES = [(name, True) for name in OLD]
CASES += [(name, False) for name in (*OLD[:-1], "history.json", "manifest.json")]


@pytest.fixture(scope="module", params=[False, True], ids=["new", "old"])
def study(request, tmp_path_factory):
    """Two runs, and whether they are of earlier code."""
    folder = tmp_path_factory.mktemp("study")
    for overrides in (("lr=0.2",), ("lr=0.3",)):
        trained(folder, *overrides, is_old=request.param)
    whole = folder.parent / "whole" / str(request.param)
    shutil.copytree(folder / made_up("lr=0.2").key, whole / "any name")
    return folder, request.param


@pytest.mark.parametrize("change", HARMS)
def test_a_harmed_file_is_named_and_what_it_says_is_not_used(study, tmp_path, change):
    """Of each kind of file; what is left of the run, and the other run, are told as they are."""
    folder, is_old = study
    key = made_up("lr=0.2").key
    for name in (name for name, of_old in CASES if of_old == is_old):
        path = shutil.copytree(folder, tmp_path / name) / key / name
        try:
            change(path)
        except UnicodeDecodeError:  # no text to be changed
            continue
        runs, unused = found(tmp_path / name)
        by_rate = {run.params["lr"]: run for run in runs}
        assert by_rate.pop("0.3").status == "finished"
        left = by_rate.get("0.2")
        is_as_before = path.is_file() and path.read_bytes() == (folder / key / name).read_bytes()
        if is_as_before or (name == "manifest.json" and change in NO_FILE):  # as of earlier code
            whole = only(folder.parent / "whole" / str(is_old))
            assert replace(left, started=0) == replace(whole, started=0) and not unused
        elif name == "result.json" and change in NO_FILE:
            assert left.status == "interrupted" and not unused
        else:
            assert [each.name for each in unused] == [key], name
            assert left is None or (left.predictions is None and "predictions" in name)


def test_what_is_no_run_is_left_alone_and_what_cannot_be_read_is_named(tmp_path, monkeypatch):
    for name in ("kept", "pictures", "sweeps", "\udcff\n", "empty"):
        (tmp_path / name).mkdir()
    (tmp_path / "table.md").touch()
    assert found(tmp_path) == ([], []) == found(tmp_path / "absent")
    (tmp_path / "\udcff\n" / "result.json").write_text("{}")
    ((name, why),) = [(each.name, each.why) for each in found(tmp_path)[1]]
    assert (name, why) == ("?", "config.yaml: No such file or directory")
    monkeypatch.setattr(
        Path,
        "iterdir",
        lambda path: (_ for _ in ()).throw(PermissionError(13, "Permission denied")),
    )
    ((name, why),) = [(each.name, each.why) for each in found(tmp_path)[1]]
    assert (name, why) == (tmp_path.name, "Permission denied")


@pytest.mark.parametrize("change", [{"lr": 0.7}, {"batch_size": 7}, {"seed": "x"}, {"data": None}])
def test_a_config_of_another_key_is_not_used(tmp_path, change):
    """Of a run of earlier code; one of today has a manifest. A former key goes on being one."""
    path = trained(tmp_path, "optimizer.weight_decay=0", is_old=True)
    config = yaml.safe_load((path / "config.yaml").read_text())
    (path / "config.yaml").write_text(
        yaml.dump(config | {"optimizer": config["optimizer"] | change, **change})
    )
    runs, unused = found(tmp_path)
    assert runs == [] and [each.name for each in unused] == [path.name]


def test_a_run_of_a_former_key_and_one_of_a_list_that_is_gone_are_read(tmp_path):
    """Keys told 0 and 0.0 apart once. What a list of files said cannot be told when it is gone."""
    config = described("optimizer.weight_decay=0")[0]
    former = former_key(config)
    assert former != run_key(config)
    path = trained(tmp_path / "former", "optimizer.weight_decay=0", is_old=True, key=former)
    assert path.name == former == only(tmp_path / "former").key
    (tmp_path / "list.txt").write_text("a/1.jpg\n")
    lists = f"data.train_files={tmp_path}/list.txt"
    trained(tmp_path / "gone", lists, is_old=True)
    whole = only(tmp_path / "gone")
    (tmp_path / "list.txt").unlink()
    assert only(tmp_path / "gone").key == whole.key


def test_how_a_process_ended_and_what_was_typed_are_told_where_they_are_noted(tmp_path):
    path = trained(tmp_path, "lr=0.2", status="running")
    write_sealed_json(path / "ended.json", {"status": "FAILED", "reason": "nan\x1b[1m", "ended": 1})
    params = made_up("lr=0.2").params | {"model": "typed", "lr": "7"}
    write_sealed_json(path / "description.json", {"name": "", "params": params, "tags": {}})
    run = only(tmp_path)
    assert (run.status, run.reason, run.params["model"]) == ("failed", "nan\x1b[1m", "typed")
    assert run.params["lr"] == "0.2"  # its config decides


def test_the_calibration_error_is_what_the_run_measured(finished):
    """Of its logits, and not of the answers' four decimals."""
    (run,) = (each for each in found(finished.parent)[0] if each.key == finished.name)
    told = read_sealed_json(RunDirectory(finished).calibration)
    assert run.number("test/calibration_error") == told["last"]["test/calibration_error"]
    assert run.number("test/best_calibrated_error") == told["best"]["test/calibrated_error"]
