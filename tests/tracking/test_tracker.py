"""MLflow: one truthful run per training, the same one on resume, every epoch told once."""

import shutil
from pathlib import Path
from urllib.parse import unquote

import pytest
import torch

from caltech.config import build
from caltech.errors import DiskError, DivergedError, HeldError, InputError
from caltech.keys import point_key
from caltech.metrics import METRICS
from caltech.runs.directory import RunDirectory
from caltech.sweeps import jobs
from caltech.tracking import copying
from caltech.tracking.tracker import NoRun, refusal_recorded
from caltech.train import train
from tests.observers import Doing


def test_a_run_is_told_with_its_numbers_data_and_files(tracked, store):
    cfg = tracked("lr=0.03")
    result = train(cfg, {"model": "timm"}, ["lr=0.03", "num_epochs=2"])
    (run,) = store.runs(cfg)
    name = f"lr=0.03 num_epochs=2 {cfg.key[:4]} timm"
    assert (run.info.status, run.info.run_name) == ("FINISHED", name)
    assert (run.data.params["lr"], run.data.params["model"]) == ("0.03", "timm")
    assert run.data.tags["point"] == point_key(cfg) != cfg.key
    assert run.data.tags["threads"].isdigit()
    for metric in METRICS:
        assert store.epochs(run, metric) == [1, 2]
    assert run.data.metrics["val/best_accuracy"] == result.best["val/accuracy"]
    assert run.data.metrics["test/accuracy"] == result.last["test/accuracy"]
    (data,) = run.inputs.dataset_inputs
    assert data.dataset.name == "caltech101"
    assert build(cfg.data).digest == run.data.tags["data"]
    assert run.data.tags["data"].startswith(data.dataset.digest)
    files = {file.path for file in store.client.list_artifacts(run.info.run_id)}
    assert files == {path.name for path in RunDirectory(cfg.directory).artifacts()}
    assert len(files) == 9


def test_a_resumed_run_is_the_same_run_and_tells_every_epoch_once(interrupted, store):
    cfg, run = interrupted("lr=0.04", at_epoch=1)
    assert (run.info.status, store.epochs(run)) == ("KILLED", [1])
    train(cfg)
    (same,) = store.runs(cfg)
    assert (same.info.run_id, same.info.status) == (run.info.run_id, "FINISHED")
    assert store.epochs(same) == [1, 2]
    assert "failure" not in same.data.tags


def attempt(cfg, choices=None, overrides=()) -> None:
    """As the command line does."""
    with refusal_recorded(cfg, choices or {}, overrides, jobs.sweep()):
        train(cfg, choices, overrides)


@pytest.fixture
def sweep_named(monkeypatch, tmp_path):
    return lambda name: monkeypatch.setenv(jobs.VARIABLE, str(tmp_path / name))


def test_a_sweep_s_runs_are_tagged_and_a_finished_one_joins_the_next(tracked, store, sweep_named):
    cfg = tracked("lr=0.08")
    for name in ("first", "second"):
        sweep_named(name)
        attempt(cfg)
        assert [run.data.tags["sweep"] for run in store.runs(cfg)] == [name]


def test_a_sweep_s_charts_have_an_address(tracked, store):
    link = build(tracked().tracking).charts("second")
    number = store.experiment.experiment_id
    assert link.startswith(f"http://127.0.0.1:5000/#/experiments/{number}/runs?")
    assert unquote(link).endswith('searchFilter=tags.sweep = "second"')
    assert NoRun().charts("second") is None


def test_a_refused_job_of_a_sweep_is_recorded_once_and_a_single_run_is_not(
    tracked, store, sweep_named
):
    cfg = tracked("lr=-2")
    with pytest.raises(InputError):
        attempt(cfg)
    assert store.runs(cfg) == []
    sweep_named("refused")
    for _ in range(2):
        with pytest.raises(InputError):
            attempt(cfg, {"model": "alexnet"}, ["lr=-2"])
    (run,) = store.runs(cfg)
    assert (run.info.status, run.data.tags["sweep"]) == ("FAILED", "refused")
    assert run.info.run_name == f"lr=-2 alexnet {cfg.key[:4]}"
    assert "lr=-2.0 is not allowed" in run.data.tags["failure"]


def test_a_refused_job_s_error_is_raised_even_if_it_cannot_be_recorded(tracked, sweep_named):
    sweep_named("unrecorded")
    with pytest.raises(InputError, match="lr=-2"):
        attempt(tracked("lr=-2", "tracking.uri=nonsense://x"))


def test_a_job_whose_run_another_process_computes_is_no_failure_of_the_run(
    tracked, store, sweep_named, monkeypatch
):
    def claimed(*_, **__):
        raise HeldError("held")

    cfg = tracked("lr=0.09")
    sweep_named("shared")
    monkeypatch.setattr(RunDirectory, "claimed", claimed)
    with pytest.raises(HeldError):
        attempt(cfg)
    assert store.runs(cfg) == []


def test_a_job_that_fails_in_training_says_why_in_one_run_of_its_sweep(tracked, store, sweep_named):
    cfg = tracked("freeze=none", "lr=1e30")
    sweep_named("failed")
    with pytest.raises(DivergedError):
        attempt(cfg)
    (run,) = store.runs(cfg)
    assert (run.info.status, run.data.tags["sweep"]) == ("FAILED", "failed")
    assert "epoch 1, step" in run.data.tags["failure"]


def test_a_run_that_another_process_took_over_tells_nothing_of_its_end(tracked, store):
    def taken() -> None:
        raise HeldError("another process trains it")

    cfg = tracked("lr=0.31")
    with pytest.raises(HeldError):
        train(cfg, observer=Doing(taken, at_epoch=1))
    (run,) = store.runs(cfg)
    assert run.info.status == "RUNNING"
    assert not RunDirectory(cfg.directory).ended.exists()


@pytest.mark.parametrize(("code", "status"), [(143, "KILLED"), (-1, "SCHEDULED")])
def test_a_job_that_waits_in_the_queue_again_is_not_killed(tracked, store, code, status):
    def leave() -> None:
        raise SystemExit(code)  # -1 is submitit's, once the job is in the queue

    cfg = tracked(f"lr=0.3{200 + code}")
    with pytest.raises(SystemExit):
        train(cfg, observer=Doing(leave, at_epoch=1))
    assert [run.info.status for run in store.runs(cfg)] == [status]
    build(cfg.tracking).open(Path(cfg.output), is_needed=True)
    assert [run.info.status for run in store.runs(cfg)] == [status]
    train(cfg)
    assert [run.info.status for run in store.runs(cfg)] == ["FINISHED"]


def test_a_finished_run_is_answered_though_no_store_can_be_used(tracked, caplog):
    cfg = tracked("lr=0.33")
    result = train(cfg)
    for uri in ("http://127.0.0.1:9", "mysql://nobody@127.0.0.1:9/y"):
        cfg.tracking.uri = uri
        assert train(cfg) == result
    assert caplog.text.count("Nothing is lost") == 2


def test_how_a_run_ended_is_told_by_the_next_command_if_nobody_listened_then(
    tracked, store, monkeypatch
):
    def fails() -> None:
        monkeypatch.setattr(copying, "send", None)  # the store dies, and then training does
        raise DivergedError("at last")

    cfg = tracked("lr=0.34")
    with pytest.raises(DivergedError):
        train(cfg, observer=Doing(fails, at_epoch=1))
    assert [run.info.status for run in store.runs(cfg)] == ["RUNNING"]
    monkeypatch.undo()
    build(cfg.tracking).open(Path(cfg.output), is_needed=True)
    (run,) = store.runs(cfg)
    assert (run.info.status, store.epochs(run)) == ("FAILED", [1])
    assert run.data.tags["failure"] == "DivergedError: at last"


@pytest.mark.parametrize("how", ["removed", "moved"])
def test_a_run_whose_directory_is_gone_is_one_error_and_ends_in_mlflow(tracked, store, how):
    cfg = tracked(f"lr=0.35{len(how)}")
    path = Path(cfg.directory)
    moved = path.parent.parent / "moved"

    def goes() -> None:
        shutil.rmtree(path) if how == "removed" else path.rename(moved)

    with pytest.raises(DiskError, match="was moved or removed while it was computed"):
        train(cfg, observer=Doing(goes, at_epoch=1))
    (run,) = store.runs(cfg)
    assert (run.info.status, path.exists()) == ("FAILED", False)
    assert "was moved or removed" in run.data.tags["failure"]
    if how == "moved":
        moved.rename(path)
        train(cfg)
        (run,) = store.runs(cfg)
        assert (run.info.status, store.epochs(run)) == ("FINISHED", [1, 2])
        assert "failure" not in run.data.tags


def test_a_checkpoint_of_another_run_is_refused_before_anybody_is_told(tracked, store):
    a, b = tracked("lr=0.36"), tracked("lr=0.37")
    train(a), train(b)
    RunDirectory(a.directory).result.unlink()
    torch.save({"key": b.key}, RunDirectory(a.directory).checkpoint)
    with pytest.raises(InputError, match="Move it away"):
        train(a)
    assert [run.info.status for run in store.runs(a)] == ["FINISHED"]
    assert not RunDirectory(a.directory).ended.exists()
