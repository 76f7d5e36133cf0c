"""A run's directory is the truth and a store its copy: any store, at any time, nothing twice."""

import json
import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric

from caltech.config import build, sqlite_url
from caltech.errors import DamagedError, StoreError
from caltech.files import read_sealed_json, write_sealed_json
from caltech.metrics import METRICS
from caltech.runs import checkpoint
from caltech.runs.directory import RunDirectory
from caltech.runs.result import Result
from caltech.tracking import contents, copying
from caltech.tracking.address import SECONDS
from caltech.tracking.command import TOLD, tell_one
from caltech.tracking.line import Line
from caltech.tracking.store import Store
from caltech.train import train
from tests.observers import Doing

EARLIER = ("identity", "description", "history", "manifest", "mlflow")  # no notes of earlier code


@pytest.fixture
def another(store, tmp_path):
    """A store that lacks all runs of now, with its places; called again, it is empty again."""

    def make() -> list[str]:
        shutil.copy(store.folder / "mlflow.db", tmp_path / "mlflow.db")
        uri, files = f"sqlite:///{tmp_path}/mlflow.db", f"{tmp_path}/files"
        return [f"tracking.uri={uri}", f"tracking.artifacts={files}"]

    return make


def told(cfg) -> tuple:
    """The run in the config's store: status, times, curves, numbers, parameters, files."""
    client = MlflowClient(cfg.tracking.uri)
    experiment = client.get_experiment_by_name("caltech").experiment_id
    (run,) = client.search_runs([experiment], f"tags.key = '{cfg.key}'")
    points = {name: client.get_metric_history(run.info.run_id, name) for name in METRICS}
    curves = {name: [(m.step, m.timestamp, m.value) for m in of] for name, of in points.items()}
    files = sorted(file.path for file in client.list_artifacts(run.info.run_id))
    times = run.info.start_time, run.info.end_time
    data = run.data
    return run.info.status, times, curves, data.metrics, data.params, files, data.tags


def test_a_finished_run_is_sent_to_any_store_that_lacks_it_as_it_was(tracked, another):
    cfg = tracked("lr=0.21", *another())
    train(cfg, {"model": "timm"}, ["lr=0.21"])
    directory = RunDirectory(cfg.directory)
    result, files = directory.result.read_bytes(), sorted(directory.path.iterdir())
    live = told(cfg)
    (kept,) = Path(cfg.tracking.artifacts).rglob("frozen.safetensors")
    assert kept.samefile(directory.frozen)  # the store's copy of weights takes no room
    history = json.loads(directory.history.read_text())
    assert [ended for _, ended, _ in live[2]["val/loss"]] == [
        epoch["ended"] for epoch in history["epochs"]
    ]
    assert live[1][1] == history["ended"] >= history["started"] >= live[1][0]
    another()  # the database was lost
    train(cfg, {"model": "timm"}, ["lr=0.21"])
    again = told(cfg)
    assert again[1] == (history["started"], history["ended"])
    assert (again[0], *again[2:]) == (live[0], *live[2:])
    assert (directory.result.read_bytes(), sorted(directory.path.iterdir())) == (result, files)


@pytest.mark.parametrize(("name", "part"), [("provenance", "data"), ("history", "epochs")])
def test_no_store_is_blamed_for_a_file_of_another_shape(finished, tmp_path, name, part):
    directory = RunDirectory(shutil.copytree(finished, tmp_path / finished.name))
    told = read_sealed_json(path := getattr(directory, name))
    del told[part]
    write_sealed_json(path, told)
    with pytest.raises(DamagedError, match="has a file that holds other values than its run wrote"):
        contents.read(directory)


def test_a_run_with_groups_of_parameters_is_told_with_them(tracked, another):
    """Also one of code whose manifest did not list their file."""
    words = ["freeze=none", "optimizer.backbone_lr=0.5"]
    cfg = tracked(*words, *another())
    train(cfg)
    assert told(cfg)[0] == "FINISHED" and "groups.json" in told(cfg)[5]
    directory = RunDirectory(cfg.directory)
    kept = read_sealed_json(directory.manifest)
    del kept["files"]["groups.json"]
    write_sealed_json(directory.manifest, kept)
    cfg = tracked(*words, *another())
    train(cfg)
    assert told(cfg)[0] == "FINISHED" and "groups.json" in told(cfg)[5]


def test_what_is_told_again_is_there_once(tracked, store):
    cfg = tracked("lr=0.22")
    train(cfg)
    before, directory = told(cfg), RunDirectory(cfg.directory)
    own = Store(cfg.tracking.uri, "caltech", cfg.tracking.artifacts)
    assert copying.send(own, directory) is False
    directory.mlflow.unlink()
    assert copying.send(own, directory) is True
    assert told(cfg) == before
    with directory.claimed(waits=False):
        assert copying.send(own, directory) is None


@pytest.fixture
def outage(monkeypatch):
    """Makes the store fail, until it is ended, and counts how often it was tried."""
    state = {"is_dead": False, "tried": 0}
    send = copying.send

    def fails(*args, **kwargs):
        state["tried"] += 1
        if state["is_dead"]:
            raise ConnectionError("nobody is there")
        return send(*args, **kwargs)

    monkeypatch.setattr(copying, "send", fails)
    monkeypatch.setattr("caltech.tracking.tracker.FLUSH_SECONDS", 0.0)
    monkeypatch.setattr("caltech.tracking.line.PAUSE_SECONDS", 0.0)
    return state


@pytest.mark.parametrize("until", [3, None])
def test_an_outage_is_one_warning_and_all_is_told_after_it(tracked, outage, caplog, until):
    cfg = tracked(f"lr=0.2{until or 4}", "num_epochs=5")

    def dies() -> None:
        outage["is_dead"] = True

    def comes_back(history) -> None:
        dies() if len(history) == 1 else None
        if len(history) == until:
            outage["is_dead"] = False

    observer = Doing(dies)
    observer.epoch = comes_back
    train(cfg, observer=observer)
    assert caplog.text.count("is not told: nobody is there. Nothing is lost") == 1
    assert Result.read(RunDirectory(cfg.directory), pruned_too=False) is not None
    if until is None:
        outage["is_dead"] = False
        train(cfg)
    assert told(cfg)[0] == "FINISHED"
    assert [step for step, *_ in told(cfg)[2]["val/loss"]] == [1, 2, 3, 4, 5]


def test_a_dead_store_costs_two_per_cent_at_most(monkeypatch):
    seconds = [0.0]

    def hangs(self, action) -> None:
        seconds[0] += SECONDS
        raise StoreError("nobody is there")

    monkeypatch.setattr("caltech.tracking.line.time.monotonic", lambda: seconds[0])
    monkeypatch.setattr(Line, "use", hangs)
    dead, trained = Line("http://127.0.0.1:9", "caltech", None), 0.0
    while seconds[0] < 10_000:
        assert not dead.attempt(lambda store: None)
        seconds[0], trained = seconds[0] + 1, trained + 1
    assert trained > 0.975 * seconds[0]


def as_earlier_code_left_it(directory: RunDirectory) -> None:
    """With its curves in the checkpoint, which stayed, and nowhere else."""
    epochs = read_sealed_json(directory.history)["epochs"]
    epochs = [{name: epoch[name] for name in epoch if name != "ended"} for epoch in epochs]
    key = read_sealed_json(directory.result)["key"]
    checkpoint.save(directory.checkpoint, key, {}, {"history": epochs})
    for name in EARLIER:
        getattr(directory, name).unlink()


def test_a_run_of_earlier_code_is_sent_with_its_curves(tracked, another):
    cfg = tracked("lr=0.25", *another())
    train(cfg)
    live = told(cfg)
    as_earlier_code_left_it(RunDirectory(cfg.directory))
    another()
    assert tell_one(build(cfg.tracking), RunDirectory(cfg.directory)) == TOLD
    again = told(cfg)
    assert again[0] == "FINISHED"
    assert [(s, v) for s, _, v in again[2]["val/loss"]] == [
        (s, v) for s, _, v in live[2]["val/loss"]
    ]
    assert again[3] == live[3] and again[5] == live[5]
    assert again[4]["lr"] == live[4]["lr"] and again[4]["model"] == "timm"


def test_the_run_that_earlier_code_made_is_adopted_and_told_nothing_twice(tracked, another):
    cfg = tracked("lr=0.26", *another())
    train(cfg)
    directory = RunDirectory(cfg.directory)
    as_earlier_code_left_it(directory)
    another()
    client = MlflowClient(cfg.tracking.uri)
    experiment = client.get_experiment_by_name("caltech").experiment_id
    tags = {"key": cfg.key, "directory": cfg.directory, "overrides": "as typed then"}
    run_id = client.create_run(experiment, tags=tags).info.run_id
    metrics = [Metric(name, 1.0, 5, epoch) for name in METRICS for epoch in (1, 2)]
    client.log_batch(run_id, metrics)
    client.set_terminated(run_id)
    directory.mlflow_run_id.write_text(run_id)
    train(cfg)
    status, _, curves, _, _, _, found = told(cfg)
    assert (status, found["overrides"]) == ("FINISHED", "as typed then")
    assert found["run"] == directory.id
    assert curves["val/loss"] == [(1, 5, 1.0), (2, 5, 1.0)]


def test_a_store_that_moved_with_its_artifacts_goes_on_there(tracked, another, tmp_path):
    places = another()
    cfg = tracked("lr=0.27", *places)
    train(cfg)
    new = tmp_path / "moved é?%41#'\" \n" / "there"
    new.mkdir(parents=True)
    for name in ("mlflow.db", "files"):
        shutil.move(tmp_path / name, new / name)
    shutil.move(tmp_path / "multirun", new)
    cfg.tracking.uri = sqlite_url(str(new), "mlflow.db")
    cfg.tracking.artifacts = str(new / "files")
    cfg.output = str(new / "multirun")
    cfg.directory = str(Path(cfg.output) / cfg.study / cfg.key)
    train(cfg)
    moved = told(cfg)
    assert (moved[0], len(moved[5])) == ("FINISHED", 9)
    assert moved[6]["directory"] == cfg.directory
    other = tracked("lr=0.28", f"output={tmp_path}/other")
    other.tracking = cfg.tracking
    train(other)
    assert len(told(other)[5]) == 9
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {new.parent.name, "other"}


def test_what_was_typed_says_the_study_where_the_run_is_now(tracked, store):
    """Of a copy of a finished run, too, and of one that went on by another command."""
    cfg = tracked("lr=0.27", "study=c1")
    train(cfg, overrides=["lr=0.27", "study=c1"])
    shutil.copytree(Path(cfg.directory).parent, Path(cfg.output) / "c2")
    train(copied := tracked("lr=0.27", "study=c2"), overrides=["study=c2", "lr=0.27"])
    typed = {run.data.tags["directory"]: run.data.tags["overrides"] for run in store.runs(cfg)}
    assert typed == {cfg.directory: "lr=0.27 study=c1", copied.directory: "lr=0.27 study=c2"}


def test_an_experiment_of_a_server_is_not_told_around_it(store, tmp_path):
    shutil.copy(store.folder / "mlflow.db", tmp_path / "server.db")
    uri = f"sqlite:///{tmp_path}/server.db"
    MlflowClient(uri).create_experiment("served", artifact_location="mlflow-artifacts:/1")
    with pytest.raises(StoreError, match=r"an MLflow server, .* Type tracking\.uri=http"):
        Store(uri, "served", None)
