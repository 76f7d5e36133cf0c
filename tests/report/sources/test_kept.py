"""Results that are kept in git: read as they were, and not believed when they do not fit."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from caltech.report.sources.kept import keep, kept
from tests.conftest import REPOSITORY
from tests.report.conftest import HARMS, made_up


def names(folder: Path) -> tuple[list[str], list[str]]:
    """Keys that are read, and files that are named."""
    runs, unused = kept(folder)
    return [run.key for run in runs], [each.name for each in unused]


def test_what_was_kept_is_read_as_it_was_and_only_what_has_ended_is_kept(tmp_path):
    whole, pruned = made_up("lr=1"), made_up("lr=2", status="pruned")
    keep(tmp_path, [whole, pruned, made_up("lr=3", status="failed")], [])
    expected = [f"{whole.key}.csv", f"{whole.key}.json", f"{pruned.key}.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(expected)
    runs, unused = kept(tmp_path)
    assert sorted(runs, key=lambda run: run.params["lr"]) == [whole, pruned] and not unused
    (read,) = (run for run in runs if run.predictions)
    for name, values in vars(whole.predictions).items():
        assert np.array_equal(values, getattr(read.predictions, name))


def test_files_that_say_the_same_are_left_as_they_are(tmp_path):
    """Also those of before there were digests, and where less is known than was kept."""
    run = made_up("lr=1")
    keep(tmp_path, [run], [])
    for path in tmp_path.glob("*.json"):
        told = json.loads(path.read_text())
        told = {name: value for name, value in told.items() if "sha256" not in name}
        path.write_text(json.dumps(told))
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    for known in (run, replace(run, predictions=None)):
        keep(tmp_path, [known], kept(tmp_path)[0])
        assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    keep(tmp_path, [replace(run, seconds=1.0)], kept(tmp_path)[0])
    assert kept(tmp_path)[0] == [replace(run, seconds=1.0)]


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """What is kept of a run, in a folder of its study."""
    folder = tmp_path_factory.mktemp("study") / "kept"
    keep(folder, [made_up("lr=1")], [])
    return folder


def edited(path: Path, is_old: bool, **changes) -> None:
    """As a person edits it; an old file has no digest."""
    told = json.loads(path.read_text())
    for name, value in changes.items():
        told[name] = told[name] | value if isinstance(value, dict) else value
    if is_old:
        del told["answers sha256"], told["sha256"]
    path.write_text(json.dumps(told))


EDITS = {
    "test accuracy": {"metrics": {"test/accuracy": 0.99}},
    "best accuracy": {"metrics": {"val/best_accuracy": 0.99}},
    "best epoch": {"metrics": {"val/best_epoch": 1.5}},
    "not a number": {"metrics": {"test/loss": float("nan")}},
    "too large": {"metrics": {"test/loss": 1e308}},
    "a text": {"metrics": {"test/loss": "1"}},
    "lacking": {"metrics": None},
    "key": {"key": "../../../x"},
    "another key": {"key": "0123456789"},
    "config": {"config": {"optimizer.lr": 0.5}},
    "no config": {"config": []},
    "environment of a reader": {"config": {"data.x": "${oc.env:HOME}"}},
    "history": {"history": {"val/accuracy": [0.5]}},
    "epochs": {"history": {"lr": []}},
    "status": {"status": "running"},
    "unknown status": {"status": "well"},
    "time": {"started": 10**18},
    "seconds": {"seconds": -1},
    "data": {"data": {"images": {"test": "400"}}},
    "classes": {"data": {"classes": ["ant"]}},
    "half a character": {"reason": "\ud800"},
    "one more": {"more": 1},
    "answers": {"predictions": []},
}


@pytest.mark.parametrize("is_old", [False, True])
@pytest.mark.parametrize("changes", EDITS.values(), ids=EDITS)
def test_what_was_edited_is_named_and_not_used(one, tmp_path, changes, is_old):
    folder = shutil.copytree(one, tmp_path / "kept")
    (path,) = folder.glob("*.json")
    edited(path, is_old, **changes)
    assert names(folder) == ([], [f"kept/{path.name}"])


TOLD = vars(made_up("lr=1")).keys() - {"predictions", "source", "place"}


@pytest.mark.parametrize("field", sorted(TOLD))
def test_what_lacks_a_field_is_named_and_not_used(one, tmp_path, field):
    folder = shutil.copytree(one, tmp_path / "kept")
    (path,) = folder.glob("*.json")
    told = json.loads(path.read_text())
    del told[field], told["sha256"], told["answers sha256"]
    path.write_text(json.dumps(told))
    assert names(folder) == ([], [f"kept/{path.name}"])


@pytest.mark.parametrize("change", HARMS)
def test_harmed_files_are_named(one, tmp_path, change):
    """Without its answers a run still counts: its numbers are in the other file."""
    key = made_up("lr=1").key
    for name in (f"{key}.json", f"{key}.csv"):
        folder = shutil.copytree(one, tmp_path / name / "kept")
        change(folder / name)
        is_as_before = (folder / name).is_file() and "csv" in name
        is_as_before = is_as_before and (folder / name).read_bytes() == (one / name).read_bytes()
        if name == f"{key}.json" and change.__name__ == "gone":
            assert names(folder) == ([], [])
        elif not is_as_before:
            left = [key] if name == f"{key}.csv" else []
            assert names(folder) == (left, [f"kept/{name}"])
            assert all(run.predictions is None for run in kept(folder)[0])


@pytest.mark.parametrize("is_old", [False, True])
def test_answers_of_another_run_are_not_used(one, tmp_path, is_old):
    """Of an old file it cannot be told which of the two is the wrong one."""
    folder = shutil.copytree(one, tmp_path / "kept")
    (path,) = folder.glob("*.json")
    if is_old:
        edited(path, True)
    keep(tmp_path / "other", [made_up("lr=1", accuracy=0.7)], [])
    shutil.copy(tmp_path / "other" / f"{path.stem}.csv", folder)
    read, unused = names(folder)
    assert (read, unused) == (
        ([], [f"kept/{path.name}"]) if is_old else ([path.stem], [f"kept/{path.stem}.csv"])
    )


def test_a_file_of_another_name_is_not_used(one, tmp_path):
    """So that a copy does not count twice, and nothing is written under a name that is no key."""
    folder = shutil.copytree(one, tmp_path / "kept")
    (path,) = folder.glob("*.json")
    shutil.copy(path, folder / "copy.json")
    assert names(folder) == ([path.stem], ["kept/copy.json"])


def test_everything_that_is_in_git_is_accepted():
    for folder in REPOSITORY.glob("multirun/*/kept"):
        read, unused = names(folder)
        assert not unused and len(read) == len(list(folder.glob("*.json"))) > 3


def test_a_folder_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "kept").write_text("no folder")
    assert names(tmp_path / "kept") == ([], ["kept"])
    assert names(tmp_path / "absent") == ([], [])
