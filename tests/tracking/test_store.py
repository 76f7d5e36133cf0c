"""MLflow's store: opened by many at once, and no run in it is said to live or to be another's."""

import re
import shutil
import signal
import socket
from pathlib import Path

import pytest
from filelock import FileLock
from mlflow.exceptions import MlflowException

from caltech.config import build
from caltech.runs.directory import RunDirectory
from caltech.tracking.description import describe
from caltech.tracking.store import Store
from caltech.train import train
from tests.observers import TINY


def test_eight_processes_that_start_together_on_an_empty_store(store):
    """MLflow's two races: without the lock some of these die, and some log into another place."""
    assert store.codes == [0] * 8
    runs, numbers = store.runs(), [str(number) for number in range(8)]
    assert sorted(run.info.run_name for run in runs) == numbers
    assert sorted(run.data.params["lr"] for run in runs) == numbers
    assert {run.info.status for run in runs} == {"FINISHED"}
    place = Path(store.experiment.artifact_location.removeprefix("file://"))
    assert place == store.folder / "files"


def test_a_killed_run_is_closed_by_the_next_and_goes_on_under_its_id(
    forks, tracked, store, tree, cache
):
    typed = [*TINY, "lr=0.06", "num_epochs=3"]
    cfg, other = tracked(*typed), tracked("lr=0.07")
    own = [f"output={cfg.output}", f"cache={cache}", f"data.root={tree}", "device=cpu"]
    forks.run([*own, *store.places, *typed], signal_at=("epoch 1/3", signal.SIGKILL))
    (run,) = store.runs(cfg)

    def status_after_another_began() -> str:
        build(other.tracking, describe(other, {}, [], None, None))
        return store.client.get_run(run.info.run_id).info.status

    store.client.set_tag(run.info.run_id, "host", "another-machine")
    assert status_after_another_began() == "RUNNING"  # it may be alive there
    store.client.set_tag(run.info.run_id, "host", socket.gethostname())
    with FileLock(RunDirectory(cfg.directory).lock):
        assert status_after_another_began() == "RUNNING"  # somebody goes on with it just now
    assert status_after_another_began() == "KILLED"
    (closed,) = store.runs(cfg)
    assert re.search(r"without a word.*\"pid\": \d+.*\"host\"", closed.data.tags["failure"])

    train(cfg)
    (resumed,) = store.runs(cfg)
    assert (resumed.info.run_id, resumed.info.status) == (run.info.run_id, "FINISHED")
    assert "failure" not in resumed.data.tags
    assert store.epochs(resumed) == [1, 2, 3]


def test_a_run_that_was_deleted_in_mlflow_is_tracked_anew(interrupted, store, caplog):
    cfg, run = interrupted("lr=0.05", at_step=1)
    store.client.delete_run(run.info.run_id)
    train(cfg)
    (new,) = store.runs(cfg)
    assert new.info.run_id != run.info.run_id
    assert new.info.status == "FINISHED"
    assert f"no longer has run {run.info.run_id}" in caplog.text


def test_a_server_that_does_not_answer_has_not_lost_a_run(interrupted, store, monkeypatch):
    cfg, _ = interrupted("lr=0.051", at_step=1)
    own = Store(cfg.tracking.uri, "caltech", cfg.tracking.artifacts)

    def fails(run_id: str):
        raise MlflowException("502 Bad Gateway")

    monkeypatch.setattr(own.client, "get_run", fails)
    with pytest.raises(MlflowException, match="502"):
        own.begin(describe(cfg, {}, [], None, None))
    assert len(store.runs(cfg)) == 1


def test_a_run_whose_process_died_before_its_note_is_found_again(interrupted, store):
    cfg, run = interrupted("lr=0.12", at_epoch=0)
    RunDirectory(cfg.directory).mlflow_run_id.unlink()
    train(cfg)
    (same,) = store.runs(cfg)
    assert (same.info.run_id, same.info.status) == (run.info.run_id, "FINISHED")
    assert "failure" not in same.data.tags


def test_a_new_run_leaves_an_old_one_that_has_metrics_alone(interrupted, store):
    """Its directory was removed after it was interrupted; the same command begins it anew."""
    cfg, old = interrupted("lr=0.11", at_epoch=1)
    shutil.rmtree(cfg.directory)
    train(cfg)
    status = {run.info.run_id: run.info.status for run in store.runs(cfg)}
    assert sorted(status.values()) == ["FINISHED", "KILLED"]
    assert status[old.info.run_id] == "KILLED"
