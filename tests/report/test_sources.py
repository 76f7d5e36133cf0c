"""Runs from a store, runs that were kept, and which of the two counts."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from omegaconf import OmegaConf

from caltech.errors import InputError
from caltech.report import sources
from tests.report.conftest import ENVIRONMENT, Store, described, made_up


def read(store: Store, study: str):
    """By learning rate."""
    found = sources.tracked(store.tracking, study)
    return {run.params["lr"]: run for run in sorted(found, key=lambda run: run.started)}


def test_a_tracked_run_is_what_was_made_up(store):
    store.add("study=whole", accuracy=0.3)
    (run,) = sources.tracked(store.tracking, "whole")
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
    (run,) = sources.tracked(store.tracking, "mixed")
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
        store.add("study=points", "lr=0.1", "momentum=0.0", config=config, tags={"point": "old"})
    points = [run.point for run in sources.tracked(store.tracking, "points")]
    now = made_up("lr=0.1", "momentum=0.0").point
    assert sorted(points) == sorted([now, now, "old"])


def test_an_unfinished_run_has_its_config_from_its_directory(store, tmp_path):
    """MLflow has files of what has ended; the directory's are another run's after rerun=true."""
    cfg, _ = described("study=begun", "lr=0.1")
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(cfg, resolve=True))
    (tmp_path / "mlflow_run_id").write_text("another run's")
    store.add("study=begun", "lr=0.1", status="running", tags={"directory": str(tmp_path)})
    (run,) = sources.tracked(store.tracking, "begun")
    assert run.config == {}
    (found,) = store.client.search_runs([store.experiment], "tags.study = 'begun'")
    (tmp_path / "mlflow_run_id").write_text(found.info.run_id)
    (run,) = sources.tracked(store.tracking, "begun")
    assert run.config == made_up("lr=0.1").config


def test_a_name_that_mlflow_s_filter_cannot_say_is_found(store):
    tags = {"study": "a|b 'c\" $d$"}
    store.add("lr=0.9", tags=tags)
    assert len(sources.tracked(store.tracking, tags["study"])) == 1


def test_no_store_is_created_and_one_that_is_none_is_told(tmp_path):
    uri = f"sqlite:///{tmp_path}/absent.db"
    assert sources.tracked(OmegaConf.create({"uri": uri, "experiment": "caltech"}), "any") == []
    assert sources.tracked(OmegaConf.create({}), "any") == [] == list(tmp_path.iterdir())
    (tmp_path / "absent.db").write_text("this is no database")
    with pytest.raises(InputError, match=r"cannot be read.*tracking=none to use kept"):
        sources.tracked(OmegaConf.create({"uri": uri, "experiment": "caltech"}), "any")


def test_what_was_kept_is_read_as_it_was_and_only_what_has_ended_is_kept(tmp_path):
    runs = [made_up("lr=1", key="a"), made_up("lr=2", key="b", status="pruned")]
    sources.keep(tmp_path, [*runs, made_up("lr=3", key="c", status="failed")])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "a.json", "b.json"]
    kept = sources.kept(tmp_path)
    assert kept == runs
    assert vars(kept[0].predictions).keys() == vars(runs[0].predictions).keys()
    for name, values in vars(kept[0].predictions).items():
        assert np.array_equal(values, getattr(runs[0].predictions, name))
    (tmp_path / "a.csv").touch()
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    sources.keep(tmp_path, runs)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before


def test_which_run_of_a_key_counts():
    """The store's newest finished one, a kept finished one, the store's newest, a kept pruned."""
    finished = made_up("lr=1", started=1)
    bare = replace(finished, predictions=None)
    pruned = replace(bare, status="pruned")
    running = replace(bare, status="running", started=2)
    newer = replace(finished, started=3)
    combine = sources.combine
    assert combine([], [pruned]) == [pruned]
    assert combine([running], [pruned]) == [running]  # the same, that goes on
    assert combine([running], [finished]) == combine([pruned], [finished]) == [finished]
    assert combine([finished], [pruned]) == [finished]
    assert combine([newer, running, finished], []) == [newer]
    (found,) = combine([bare], [finished])  # MLflow's files are gone
    assert found.predictions is finished.predictions


def test_a_report_is_remade_from_kept_results(store, make):
    """From the store, without its files, and without the store; the store is believed first."""
    files = [store.add("study=kept", f"seed={seed}", accuracy=0.3) for seed in (0, 1)]
    tracking = f"tracking.uri={store.uri}"
    folder, _ = make("kept", tracking)

    def written() -> dict[str, bytes]:
        return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    before = written()
    assert len(before) == 3 + 4
    for path in (folder / "kept").glob("*.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"seconds": 1e6}))
    make("kept", tracking)
    assert written() == before
    for path in files:
        shutil.rmtree(path)
    make("kept", tracking)
    assert written() == before
    for path in folder.glob("*.*"):
        path.unlink()
    make("kept", "tracking=none")
    assert written() == before


def test_a_run_is_told_by_what_it_used_whatever_older_code_told(store):
    """That told the root's value also where the optimizer had one of its own."""
    told = {"seed": "0", "lr": "0.1", "weight_decay": "5e-05", "log10_lr": "-1.0"}
    store.add("study=used", "optimizer.weight_decay=0", "optimizer.lr=1", params=told)
    (run,) = sources.tracked(store.tracking, "used")
    assert (run.params["weight_decay"], run.params["lr"]) == ("0.0", "1.0")
    assert run.params["log10_lr"] == "0.0"
