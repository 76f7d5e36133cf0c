"""MLflow's store: opened by many at once, and no run in it is said to live or to be another's."""

import re
import shutil
import signal
from pathlib import Path

import pytest
from filelock import FileLock
from mlflow.exceptions import MlflowException

from caltech.config import build
from caltech.runs.directory import RunDirectory
from caltech.tracking import copying
from caltech.tracking.store import Store
from caltech.train import train
from tests.observers import TINY, outcome


def test_eight_processes_that_start_together_on_an_empty_store(store):
    """MLflow's two races: without the lock some of these die, and some log into another place."""
    assert store.codes == [0] * 8
    runs, numbers = store.runs(), [str(number) for number in range(8)]
    assert sorted(run.info.run_name for run in runs) == numbers
    assert sorted(run.data.params["lr"] for run in runs) == numbers
    assert {run.info.status for run in runs} == {"FINISHED"}
    place = Path(store.experiment.artifact_location.removeprefix("file://"))
    assert place == store.folder / "files"


def close_abandoned(cfg) -> None:
    """As any run does that begins with the same output folder."""
    build(cfg.tracking).open(Path(cfg.output), is_needed=True)


def test_a_killed_run_is_closed_by_the_next_and_goes_on_under_its_id(
    forks, tracked, store, tree, cache
):
    typed = [*TINY, "lr=0.06", "num_epochs=3"]
    cfg = tracked(*typed)
    own = [f"output={cfg.output}", f"cache={cache}", f"data.root={tree}", "device=cpu"]
    forks.run([*own, *store.places, *typed], signal_at=("epoch 1/3", signal.SIGKILL))
    (run,) = store.runs(cfg)

    def status_after_another_began() -> str:
        close_abandoned(cfg)
        return store.client.get_run(run.info.run_id).info.status

    store.client.set_tag(run.info.run_id, "host", "another-machine")  # of no matter: the lock is
    with FileLock(RunDirectory(cfg.directory).lock):
        assert status_after_another_began() == "RUNNING"  # somebody goes on with it just now
    store.client.set_tag(run.info.run_id, "run", "another id")
    assert status_after_another_began() == "RUNNING"  # of another machine with the same path
    store.client.set_tag(run.info.run_id, "run", RunDirectory(cfg.directory).id)
    assert status_after_another_began() == "KILLED"
    (closed,) = store.runs(cfg)
    assert re.search(r"without a word.*\"pid\": \d+.*\"host\"", closed.data.tags["failure"])

    train(cfg)
    (resumed,) = store.runs(cfg)
    assert (resumed.info.run_id, resumed.info.status) == (run.info.run_id, "FINISHED")
    assert "failure" not in resumed.data.tags
    assert store.epochs(resumed) == [1, 2, 3]


def test_a_run_that_begins_while_it_is_closed_waits_for_no_store_and_ends_as_running(
    interrupted, store, monkeypatch
):
    cfg, run = interrupted("lr=0.061", at_epoch=1)
    directory = RunDirectory(cfg.directory)
    directory.ended.unlink()
    directory.holder.write_text('{"pid": 1, "host": "gone"}')
    store.client.update_run(run.info.run_id, status="RUNNING")
    ended = Store.end

    def slow(self, run_id, end) -> None:
        with directory.claimed(waits=False):  # nobody holds the run's lock
            ended(self, run_id, end)

    monkeypatch.setattr(Store, "end", slow)
    directory.mlflow.unlink()
    close_abandoned(cfg)
    assert store.client.get_run(run.info.run_id).info.status == "KILLED"
    train(cfg)
    assert store.client.get_run(run.info.run_id).info.status == "FINISHED"


@pytest.mark.parametrize("way", ["/etc", "..", "a/b", "", "x" * 300])
def test_nothing_is_written_where_a_tag_says_that_a_directory_is(tracked, store, tmp_path, way):
    cfg = tracked("lr=0.062")
    outside = tmp_path / "outside"
    outside.mkdir()
    tags = {"run": "1" * 32, "study": way, "key": way, "directory": str(outside)}
    run = store.client.create_run(store.experiment.experiment_id, tags=tags)
    close_abandoned(cfg)
    assert list(outside.iterdir()) == []
    assert not Path(cfg.output).exists()
    store.client.delete_run(run.info.run_id)


def test_a_run_that_was_deleted_in_mlflow_is_tracked_anew(interrupted, store, caplog):
    cfg, run = interrupted("lr=0.05", at_step=1)
    store.client.delete_run(run.info.run_id)
    train(cfg)
    (new,) = store.runs(cfg)
    assert new.info.run_id != run.info.run_id
    assert (new.info.status, store.epochs(new)) == ("FINISHED", [1, 2])
    assert f"no longer has run {run.info.run_id}" in caplog.text


def test_a_server_that_does_not_answer_has_not_lost_a_run(interrupted, store, monkeypatch):
    cfg, _ = interrupted("lr=0.051", at_step=1)
    own = Store(cfg.tracking.uri, "caltech", cfg.tracking.artifacts)

    def fails(run_id: str):
        raise MlflowException("502 Bad Gateway")

    monkeypatch.setattr(own.client, "get_run", fails)
    with pytest.raises(MlflowException, match="502"):
        copying.send(own, RunDirectory(cfg.directory))
    assert len(store.runs(cfg)) == 1


def test_a_run_whose_process_died_before_its_note_is_found_again(interrupted, store):
    cfg, run = interrupted("lr=0.12", at_epoch=1)
    RunDirectory(cfg.directory).mlflow.unlink()
    train(cfg)
    (same,) = store.runs(cfg)
    assert (same.info.run_id, same.info.status) == (run.info.run_id, "FINISHED")
    assert store.epochs(same) == [1, 2]
    assert "failure" not in same.data.tags


def test_a_new_run_leaves_an_old_one_alone(interrupted, store):
    """Its directory was removed after it was interrupted; the same command begins it anew."""
    cfg, old = interrupted("lr=0.11", at_epoch=1)
    shutil.rmtree(cfg.directory)
    train(cfg)
    status = {run.info.run_id: run.info.status for run in store.runs(cfg)}
    assert sorted(status.values()) == ["FINISHED", "KILLED"]
    assert status[old.info.run_id] == "KILLED"


def test_a_copied_run_and_one_with_another_s_note_are_runs_of_their_own(interrupted, store):
    cfg, first = interrupted("lr=0.111", at_epoch=1)
    copy = cfg.copy()
    copy.study, copy.directory = "copied", str(Path(cfg.output) / "copied" / cfg.key)
    shutil.copytree(Path(cfg.output) / cfg.study, Path(cfg.output) / "copied")
    train(copy)
    (same,) = (run for run in store.runs(cfg) if run.info.run_id == first.info.run_id)
    assert (same.info.status, store.epochs(same)) == ("KILLED", [1])
    (new,) = (run for run in store.runs(cfg) if run.info.run_id != first.info.run_id)
    assert (new.info.status, store.epochs(new)) == ("FINISHED", [1, 2])
    assert new.data.tags["study"] == "copied"
    shutil.copy(RunDirectory(copy.directory).mlflow, cfg.directory)  # its own is lost
    train(cfg)
    assert [store.epochs(run) for run in store.runs(cfg)] == [[1, 2], [1, 2]]
    assert outcome(cfg)[0] == outcome(copy)[0]
