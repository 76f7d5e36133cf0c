"""Runs from a store: what was tracked is what is read, and the store is only read."""

import pytest
from omegaconf import OmegaConf

from caltech.errors import InputError
from caltech.keys import run_key
from caltech.report.sources.tracked import tracked
from tests.report.conftest import ENVIRONMENT, Store, described, made_up


def read(store: Store, study: str):
    """By learning rate."""
    found = tracked(store.tracking, study, {})[0]
    return {run.params["lr"]: run for run in sorted(found, key=lambda run: run.started)}


def test_a_tracked_run_is_what_was_made_up(store):
    store.add("study=whole", accuracy=0.3)
    (run,) = tracked(store.tracking, "whole", {})[0]
    expected = made_up("study=whole", accuracy=0.3, started=run.started)
    assert run == expected
    assert (run.predictions.last == expected.predictions.last).all()
    assert (run.predictions.confidences == expected.predictions.confidences).all()


def test_status_is_the_truth(store):
    """What MLflow calls failed is not finished, though its tag says so: files are missing."""
    store.add("study=sad", "lr=0.1", tags={"status": "pruned"})
    store.add("study=sad", "lr=0.2", tags={"status": "finished"}, ended="FAILED")
    store.add("study=sad", "lr=0.3", status="failed", tags={"failure": "DivergedError: nan"})
    store.add("study=sad", "lr=0.4", status="running")
    found = read(store, "sad")
    assert [run.status for run in found.values()] == ["pruned", "failed", "failed", "running"]
    assert all(run.predictions is None and not run.metrics for run in found.values())
    assert found["0.3"].reason == "DivergedError: nan" and found["0.4"].epochs == 3
    assert found["0.4"].data == {"name": "", "sha256": "d" * 64}  # until it has ended


def test_code_and_threads_that_went_on_with_a_run_are_told(store):
    code, environment = {"git": "def", "sha256": "e" * 16}, ENVIRONMENT | {"threads": 7}
    store.add("study=mixed", by=[{"code": code, "environment": environment}])
    (run,) = tracked(store.tracking, "mixed", {})[0]
    assert run.environment["threads"] == "2, then 7" and run.environment["device"] == "Abacus"
    assert run.code["git"] == "abc1234, then def"


def test_points_are_of_the_config_where_it_is_whole(store):
    """So that runs of before keys were normalised, or a group was added, join their seeds."""
    cfg, _ = described("study=points", "lr=0.1", "momentum=0.0")
    text = OmegaConf.to_yaml(cfg, resolve=True)
    before = text.replace("momentum: 0.0\n", "momentum: 0\n")
    lacking = OmegaConf.create(text)
    lacking.pop("average")
    incomplete = OmegaConf.create(text)
    incomplete.pop("loss")
    for config in (before, OmegaConf.to_yaml(lacking), OmegaConf.to_yaml(incomplete)):
        assert config != text
        tags = {"point": "0123456789", "key": run_key(OmegaConf.create(config))}
        store.add("study=points", "lr=0.1", "momentum=0.0", config=config, tags=tags)
    points = [run.point for run in tracked(store.tracking, "points", {})[0]]
    now = made_up("lr=0.1", "momentum=0.0").point
    assert sorted(points) == sorted([now, now, "0123456789"])


def test_an_unfinished_run_has_its_config_from_its_directory(store, tmp_path):
    """MLflow has files of what has ended; the directory's are another run's after rerun=true."""
    cfg, _ = described("study=begun", "lr=0.1")
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(cfg, resolve=True))
    (tmp_path / "mlflow_run_id").write_text("another run's")
    store.add("study=begun", "lr=0.1", status="running", tags={"directory": str(tmp_path)})
    (run,) = tracked(store.tracking, "begun", {})[0]
    assert run.config == {}
    (found,) = store.client.search_runs([store.experiment], "tags.study = 'begun'")
    (tmp_path / "mlflow_run_id").write_text(found.info.run_id)
    (run,) = tracked(store.tracking, "begun", {})[0]
    assert run.config == made_up("lr=0.1").config


def test_a_name_that_mlflow_s_filter_cannot_say_is_found(store):
    tags = {"study": "a|b 'c\" $d$"}
    store.add("lr=0.9", tags=tags)
    assert len(tracked(store.tracking, tags["study"], {})[0]) == 1


def test_no_store_is_created_and_one_that_is_none_is_told(tmp_path):
    uri = f"sqlite:///{tmp_path}/absent.db"
    assert tracked(OmegaConf.create({"uri": uri, "experiment": "caltech"}), "any", {})[0] == []
    assert tracked(OmegaConf.create({}), "any", {})[0] == [] == list(tmp_path.iterdir())
    (tmp_path / "absent.db").write_text("this is no database")
    with pytest.raises(InputError, match=r"cannot be read.*tracking=none to ask none"):
        tracked(OmegaConf.create({"uri": uri, "experiment": "caltech"}), "any", {})[0]


def test_a_run_is_told_by_what_it_used_whatever_older_code_told(store):
    """That told the root's value also where the optimizer had one of its own."""
    told = {"seed": "0", "lr": "0.1", "weight_decay": "5e-05", "log10_lr": "-1.0"}
    store.add("study=used", "optimizer.weight_decay=0", "optimizer.lr=1", params=told)
    (run,) = tracked(store.tracking, "used", {})[0]
    assert (run.params["weight_decay"], run.params["lr"]) == ("0.0", "1.0")
    assert run.params["log10_lr"] == "0.0"


EDITS = {
    "key": {"tags": {"key": "../../../x"}},
    "another key": {"tags": {"key": "0123456789"}},
    "config": {"config": "lr: 1"},
    "no yaml": {"config": "{"},
    "numbers": {"metrics": {"test/accuracy": 1e308}},
    "epochs": {"history": {"val/accuracy": [0.5]}},
    "answers": {"metrics": {}},
    "seed": {"params": {"seed": "x", "lr": "0.1"}, "status": "failed"},
}


@pytest.mark.parametrize("told", EDITS.values(), ids=EDITS)
def test_a_tracked_run_that_does_not_fit_is_named_and_not_used(store, told, request):
    study = f"wrong {request.node.callspec.id}"
    store.add(f"study='{study}'", "lr=0.1", **told)
    store.add(f"study='{study}'", "lr=0.2")
    runs, unused = tracked(store.tracking, study, {})
    assert [run.params["lr"] for run in runs] == ["0.2"]
    (run,) = store.client.search_runs(
        [store.experiment], f"tags.study = '{study}'", max_results=1, order_by=["start_time ASC"]
    )
    assert [each.name for each in unused] == [f"run {run.info.run_id} of the store"]


def test_what_is_known_better_is_not_asked_for(store):
    store.add("study=known")
    (run,), _ = tracked(store.tracking, "known", {})
    key = run.key
    assert tracked(store.tracking, "known", {key: run.started})[0] == []
    assert len(tracked(store.tracking, "known", {key: run.started - 1})[0]) == 1


@pytest.mark.parametrize("content", [b"", b"SQLite format 3\0", b"x" * 5000])
def test_a_database_that_is_no_store_is_told_and_left_as_it_is(tmp_path, content, monkeypatch):
    """MLflow would make its tables in an empty one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a #é.db").write_bytes(content)
    place = OmegaConf.create({"uri": f"sqlite:///{tmp_path}/a #é.db", "experiment": "caltech"})
    with pytest.raises(InputError, match=r"cannot be read.*Type tracking\.uri="):
        tracked(place, "any", {})
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [content]


@pytest.mark.parametrize("uri", ["nosuch://x", "http://127.0.0.1:9", "sqlite:////proc/1/x/y.db"])
def test_a_store_that_does_not_answer_is_one_message(uri, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    try:
        assert tracked(OmegaConf.create({"uri": uri, "experiment": "x"}), "any", {}) == ([], [])
    except InputError as error:
        assert f"The tracking store {uri} cannot be read" in str(error)
        assert "HTTPConnectionPool" not in str(error)
    assert list(tmp_path.iterdir()) == []


def test_a_store_is_only_read(store, tmp_path, monkeypatch):
    store.add("study=only")
    monkeypatch.chdir(tmp_path)
    before = (store.folder / "mlflow.db").read_bytes()
    assert len(tracked(store.tracking, "only", {})[0]) == 1
    assert (store.folder / "mlflow.db").read_bytes() == before and not list(tmp_path.iterdir())
