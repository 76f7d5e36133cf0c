"""MLflow: one truthful run per training, the same one on resume, no race between processes."""

import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from caltech import train as training
from caltech.config import build
from caltech.errors import DivergedError
from caltech.tracking import METRICS
from caltech.train import train

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
    objective = train(cfg, choices, ["lr=0.03", "num_epochs=3", "study=default"])
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
    assert run.data.metrics["val/best_accuracy"] == objective
    assert 0 <= run.data.metrics["test/accuracy"] <= 1
    (data,) = run.inputs.dataset_inputs
    assert data.dataset.name == "caltech101"
    assert build(cfg.data).digest == run.data.tags["data"]
    assert run.data.tags["data"].startswith(data.dataset.digest)
    artifacts = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert artifacts == {"best.safetensors", "config.yaml", "provenance.json"}


def test_a_resumed_run_is_the_same_run_and_tells_every_epoch_once(tracked, monkeypatch):
    cfg, client = tracked("lr=0.04")
    train_epoch = training.train_epoch

    def interrupt(setup, order, epoch, *rest):
        if epoch == 3:
            raise KeyboardInterrupt
        return train_epoch(setup, order, epoch, *rest)

    monkeypatch.setattr(training, "train_epoch", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(cfg)
    (run,) = runs(client, cfg.key)
    assert run.info.status == "KILLED"
    monkeypatch.setattr(training, "train_epoch", train_epoch)
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


def test_a_run_that_was_deleted_in_mlflow_is_tracked_anew(tracked, monkeypatch):
    cfg, client = tracked("lr=0.05")
    monkeypatch.setattr(training, "evaluate", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(cfg)
    monkeypatch.undo()
    (run,) = runs(client, cfg.key)
    client.delete_run(run.info.run_id)
    train(cfg)
    (new,) = runs(client, cfg.key)
    assert new.info.run_id != run.info.run_id
    assert new.info.status == "FINISHED"


OPEN = """
import sys
from pathlib import Path
from caltech.tracking import Description, MlflowRun
folder = Path(sys.argv[1])
own = folder / sys.argv[2]
own.mkdir()
tags = {"key": sys.argv[2], "directory": str(own)}
description = Description(own, sys.argv[2], {"lr": 1}, tags, {"name": "d", "sha256": "0" * 64})
with MlflowRun(description, f"sqlite:///{folder}/mlflow.db", "caltech", f"{folder}/artifacts"):
    pass
"""


def test_processes_that_start_together_on_an_empty_store(tmp_path):
    """MLflow's two races: without the lock some of these die, and some log into another place."""
    command = [sys.executable, "-c", OPEN, str(tmp_path)]
    started = [subprocess.Popen([*command, str(i)], stderr=subprocess.PIPE) for i in range(4)]
    for process in started:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors.decode()
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("caltech")
    found = client.search_runs([experiment.experiment_id])
    assert sorted(run.info.run_name for run in found) == ["0", "1", "2", "3"]
    assert {run.info.status for run in found} == {"FINISHED"}
    assert Path(experiment.artifact_location.removeprefix("file://")) == tmp_path / "artifacts"
