"""MLflow: one truthful run per training, the same one on resume, every epoch told once."""

from urllib.parse import unquote

import pytest

from caltech.config import build
from caltech.errors import DivergedError, HeldError, InputError
from caltech.keys import point_key
from caltech.metrics import METRICS
from caltech.runs.directory import RunDirectory
from caltech.sweeps import jobs
from caltech.tracking.description import describe
from caltech.tracking.tracker import NoRun, refusal_recorded
from caltech.train import train


def test_a_run_is_told_with_its_numbers_data_and_files(tracked, store):
    cfg = tracked("lr=0.03")
    result = train(cfg, {"model": "timm"}, ["lr=0.03", "num_epochs=2"])
    (run,) = store.runs(cfg)
    assert (run.info.status, run.info.run_name) == ("FINISHED", "lr=0.03 num_epochs=2 timm")
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
    assert len(files) == 7


def test_a_resumed_run_is_the_same_run_and_tells_every_epoch_once(interrupted, store):
    cfg, run = interrupted("lr=0.04", at_epoch=1)
    assert (run.info.status, store.epochs(run)) == ("KILLED", [1])
    train(cfg)
    (same,) = store.runs(cfg)
    assert (same.info.run_id, same.info.status) == (run.info.run_id, "FINISHED")
    assert store.epochs(same) == [1, 2]
    assert "failure" not in same.data.tags


@pytest.fixture
def alone(tracked):
    """A tracker of a run that does not train."""
    cfg = tracked("lr=0.13")
    RunDirectory(cfg.directory).path.mkdir(parents=True)
    return cfg, build(cfg.tracking, describe(cfg, {}, [], None, None))


def test_what_ended_a_training_is_raised_even_if_mlflow_cannot_be_told(alone, caplog):
    with pytest.raises(ZeroDivisionError), alone[1] as tracker:
        tracker.client.set_terminated = None
        raise ZeroDivisionError
    assert "could not be told" in caplog.text


def test_metrics_that_could_not_be_sent_are_sent_with_the_next(alone, store):
    epochs = [dict.fromkeys(METRICS, float(number)) for number in range(1, 201)]
    with alone[1] as tracker:
        log_batch, tracker.flushed = tracker.client.log_batch, -1e9
        tracker.client.log_batch = None  # a server that fails
        with pytest.raises(TypeError):
            tracker.epoch(epochs)
        tracker.client.log_batch = log_batch
        tracker.epoch(epochs)
        told = store.client.get_run(tracker.run_id)
    assert store.epochs(told) == list(range(1, 201))  # 1400 numbers; MLflow takes 1000 at once


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
    link = build(tracked().tracking, None).charts("second")
    number = store.experiment.experiment_id
    assert link.startswith(f"http://127.0.0.1:5000/#/experiments/{number}/runs?")
    assert unquote(link).endswith('searchFilter=tags.sweep = "second"')
    assert NoRun(None).charts("second") is None


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
    assert run.info.run_name == "lr=-2 alexnet"
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
