"""MLflow: one truthful run per training, the same one on resume, no race between processes."""

import multiprocessing
import os
import re
import shutil
import signal
import socket
from pathlib import Path
from urllib.parse import unquote

import pytest
from filelock import FileLock
from hydra import compose, initialize_config_dir
from mlflow import MlflowClient
from omegaconf import OmegaConf

from caltech import train as training
from caltech.config import build, register
from caltech.errors import DivergedError, HeldError, InputError
from caltech.keys import point_key
from caltech.metrics import METRICS
from caltech.runs.directory import ARTIFACTS, claimed
from caltech.settings import CONF
from caltech.sweeps import jobs
from caltech.tracking.description import Description, describe
from caltech.tracking.store import comparison
from caltech.tracking.tracker import MlflowRun, refusal_recorded
from caltech.train import train
from caltech.training import fit

FAST = ["num_epochs=3", "batch_size=16"]


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A fresh store costs five seconds, so the tests here share one."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def tracked(configure, store):
    def composed(*overrides):
        places = [
            f"tracking.uri=sqlite:///{store}/mlflow.db",
            f"tracking.artifacts={store}/artifacts",
        ]
        cfg = configure("tracking=mlflow", *places, *FAST, *overrides)
        return cfg, MlflowClient(cfg.tracking.uri)

    return composed


def runs(client: MlflowClient, key: str):
    experiment = client.get_experiment_by_name("caltech")
    return client.search_runs([experiment.experiment_id], f"tags.key = '{key}'")


def test_a_run_is_tracked(tracked):
    cfg, client = tracked("lr=0.03")
    choices = {"model": "efficientnet_lite0", "freeze": "backbone", "hydra/launcher": "basic"}
    result = train(cfg, choices, ["lr=0.03", "num_epochs=3", "study=default"])
    (run,) = runs(client, cfg.key)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "lr=0.03 num_epochs=3 efficientnet_lite0 backbone"
    assert run.data.params["lr"] == "0.03"
    assert run.data.params["model"] == "efficientnet_lite0"
    assert "hydra/launcher" not in run.data.params
    assert run.data.tags["study"] == "default"
    assert "efficientnet-lite0-57934424.pth" in run.data.tags["weights"]
    for metric in METRICS:
        assert [m.step for m in client.get_metric_history(run.info.run_id, metric)] == [1, 2, 3]
    assert run.data.metrics["val/best_accuracy"] == result["best"]["val/accuracy"]
    assert 0 <= run.data.metrics["test/accuracy"] <= 1
    (data,) = run.inputs.dataset_inputs
    assert data.dataset.name == "caltech101"
    assert build(cfg.data).digest == run.data.tags["data"]
    assert run.data.tags["data"].startswith(data.dataset.digest)
    artifacts = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert artifacts == set(ARTIFACTS)
    assert run.data.tags["point"] == point_key(cfg) != cfg.key
    assert run.data.tags["threads"].isdigit()


def test_a_resumed_run_is_the_same_run_and_tells_every_epoch_once(tracked, monkeypatch):
    cfg, client = tracked("lr=0.04")
    train_epoch = fit.train_epoch

    def interrupt(setup, order, epoch, *rest):
        if epoch == 3:
            raise KeyboardInterrupt
        return train_epoch(setup, order, epoch, *rest)

    monkeypatch.setattr(fit, "train_epoch", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(cfg)
    (run,) = runs(client, cfg.key)
    assert run.info.status == "KILLED"
    monkeypatch.setattr(fit, "train_epoch", train_epoch)
    train(cfg)
    (same,) = runs(client, cfg.key)
    assert (same.info.run_id, same.info.status) == (run.info.run_id, "FINISHED")
    history = client.get_metric_history(run.info.run_id, "val/loss")
    assert [metric.step for metric in history] == [1, 2, 3]


def test_a_failed_run_says_why(tracked):
    cfg, client = tracked("model=resnet18", "model.weights=null", "freeze=none", "lr=1e30")
    with pytest.raises(DivergedError):
        train(cfg)
    (run,) = runs(client, cfg.key)
    assert run.info.status == "FAILED"
    assert "epoch 1, step 2" in run.data.tags["failure"]
    assert "sweep" not in run.data.tags


def test_a_run_that_was_deleted_in_mlflow_is_tracked_anew(tracked, monkeypatch):
    cfg, client = tracked("lr=0.05")
    monkeypatch.setattr(fit, "evaluate", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(cfg)
    monkeypatch.undo()
    (run,) = runs(client, cfg.key)
    client.delete_run(run.info.run_id)
    train(cfg)
    (new,) = runs(client, cfg.key)
    assert new.info.run_id != run.info.run_id
    assert new.info.status == "FINISHED"


@pytest.fixture(scope="module")
def context():
    """Of processes that share one import of what takes seconds."""
    forkserver = multiprocessing.get_context("forkserver")
    forkserver.set_forkserver_preload(["mlflow", "caltech.train"])
    return forkserver


def open_together(barrier, folder: str, number: int) -> None:
    """Body of a process: as training opens the store, at the same moment as the others."""
    own = Path(folder) / str(number)
    with claimed(own, waits=False):
        tags = {"key": str(number), "directory": str(own), "host": socket.gethostname()}
        data = {"name": "d", "sha256": "0" * 64}
        description = Description(own, str(number), {"lr": number}, tags, data)
        barrier.wait()
        with MlflowRun(description, f"sqlite:///{folder}/mlflow.db", "caltech", f"{folder}/files"):
            pass


def test_eight_processes_that_start_together_on_an_empty_store(context, tmp_path):
    """MLflow's two races: without the lock some of these die, and some log into another place."""
    barrier = context.Barrier(8)
    arguments = [(barrier, str(tmp_path), number) for number in range(8)]
    processes = [context.Process(target=open_together, args=each) for each in arguments]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
    assert [process.exitcode for process in processes] == [0] * 8
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("caltech")
    found = client.search_runs([experiment.experiment_id])
    assert sorted(run.info.run_name for run in found) == [str(number) for number in range(8)]
    assert sorted(run.data.params["lr"] for run in found) == [str(number) for number in range(8)]
    assert {run.info.status for run in found} == {"FINISHED"}
    assert Path(experiment.artifact_location.removeprefix("file://")) == tmp_path / "files"


def die_in_training(overrides: list[str]) -> None:
    """Body of a process: killed in the second epoch, as by the kernel when memory is short."""
    epoch = fit.fit_epoch

    def killed(setup, order, seed, number, *rest):
        if number == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return epoch(setup, order, seed, number, *rest)

    fit.fit_epoch = killed
    register()
    with initialize_config_dir(config_dir=str(CONF)):
        train(compose("train", overrides))


@pytest.fixture
def dead(tracked, context):
    """Config and MLflow run of a process that SIGKILL ended."""

    def made(lr: str):
        cfg, client = tracked(f"lr={lr}")
        overrides = [f"output={cfg.output}", f"cache={cfg.cache}", f"data.root={cfg.data.root}"]
        overrides += ["data.resize=72", "data.crop=64", "device=cpu", f"lr={lr}", *FAST]
        overrides += [f"tracking.{k}={cfg.tracking[k]}" for k in ("uri", "artifacts")]
        process = context.Process(target=die_in_training, args=(overrides,))
        process.start()
        process.join(timeout=120)
        assert process.exitcode == -signal.SIGKILL
        (run,) = runs(client, cfg.key)
        assert run.info.status == "RUNNING"  # nobody was left to say otherwise
        return cfg, client, run.info.run_id

    return made


def test_a_killed_process_s_run_is_closed_by_the_next_and_goes_on_under_its_id(dead, tracked):
    cfg, client, run_id = dead("0.06")
    other, _ = tracked("lr=0.07")
    client.set_tag(run_id, "host", "another-machine")
    build(other.tracking, description_of(other))
    assert client.get_run(run_id).info.status == "RUNNING"  # it may be alive there

    client.set_tag(run_id, "host", socket.gethostname())
    with FileLock(Path(cfg.directory) / "run.lock"):
        build(other.tracking, description_of(other))
        assert client.get_run(run_id).info.status == "RUNNING"  # somebody goes on with it just now

    build(other.tracking, description_of(other))
    closed = client.get_run(run_id)
    assert closed.info.status == "KILLED"
    assert re.search(r"without a word.*\"pid\": \d+.*\"host\"", closed.data.tags["failure"])

    train(cfg)
    (resumed,) = runs(client, cfg.key)
    assert (resumed.info.run_id, resumed.info.status) == (run_id, "FINISHED")
    assert "failure" not in resumed.data.tags
    history = client.get_metric_history(run_id, "val/loss")
    assert [metric.step for metric in history] == [1, 2, 3]


def description_of(cfg) -> Description:
    return describe(cfg, {}, [], None, None)


def attempt(cfg, choices, overrides) -> None:
    """As the command line does."""
    with refusal_recorded(cfg, choices, overrides, jobs.name()):
        train(cfg, choices, overrides)


@pytest.fixture
def sweep_named(monkeypatch, tmp_path):
    def named(name: str) -> None:
        monkeypatch.setenv(jobs.VARIABLE, str(tmp_path / name))

    return named


def test_a_sweep_s_runs_are_tagged_and_a_finished_one_joins_the_next(tracked, sweep_named):
    cfg, client = tracked("lr=0.08")
    sweep_named("first")
    attempt(cfg, {}, [])
    (run,) = runs(client, cfg.key)
    assert run.data.tags["sweep"] == "first"
    sweep_named("second")
    attempt(cfg, {}, [])
    (same,) = runs(client, cfg.key)
    assert (same.info.run_id, same.data.tags["sweep"]) == (run.info.run_id, "second")
    link = comparison(cfg.tracking, "second")
    assert link.startswith(f"http://127.0.0.1:5000/#/experiments/{run.info.experiment_id}/runs?")
    assert unquote(link).endswith('searchFilter=tags.sweep = "second"')
    assert comparison(OmegaConf.create({"_target_": "caltech.tracking.NoRun"}), "second") is None


def test_a_refused_job_of_a_sweep_is_recorded_once_and_a_single_run_is_not(tracked, sweep_named):
    cfg, client = tracked("lr=-2")
    with pytest.raises(InputError):
        attempt(cfg, {}, [])
    sweep_named("refused")
    with pytest.raises(InputError):
        attempt(cfg, {"model": "alexnet"}, ["lr=-2"])
    (run,) = runs(client, cfg.key)
    assert (run.info.status, run.data.tags["sweep"]) == ("FAILED", "refused")
    assert run.info.run_name == "lr=-2 alexnet"
    assert "lr=-2.0 is not allowed" in run.data.tags["failure"]


def test_a_job_whose_run_another_process_computes_is_no_failure_of_the_run(
    tracked, sweep_named, monkeypatch
):
    cfg, client = tracked("lr=0.09")
    sweep_named("shared")
    monkeypatch.setattr(training.run, "claimed", raising(HeldError("held")))
    with pytest.raises(HeldError):
        attempt(cfg, {}, [])
    assert runs(client, cfg.key) == []


def raising(error):
    def raises(*_, **__):
        raise error

    return raises


def test_a_new_run_leaves_an_old_one_that_has_metrics_alone(tracked, monkeypatch):
    """Its directory was removed after it was interrupted; other code begins it anew."""
    cfg, client = tracked("lr=0.11")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(training.run, "log_epoch", raising(KeyboardInterrupt()))
        train(cfg)
    (old,) = runs(client, cfg.key)
    client.log_metric(old.info.run_id, "val/accuracy", 0.5, step=1)  # what was pending, perhaps
    shutil.rmtree(cfg.directory)
    train(cfg)
    status = {run.info.run_id: run.info.status for run in runs(client, cfg.key)}
    assert sorted(status.values()) == ["FINISHED", "KILLED"]
    assert status[old.info.run_id] == "KILLED"


def test_a_job_that_fails_in_training_has_one_run_in_its_sweep(tracked, sweep_named):
    cfg, client = tracked("model=resnet18", "model.weights=null", "freeze=none", "lr=1e31")
    sweep_named("failed")
    with pytest.raises(DivergedError):
        attempt(cfg, {}, [])
    (run,) = runs(client, cfg.key)
    assert (run.info.status, run.data.tags["sweep"]) == ("FAILED", "failed")
