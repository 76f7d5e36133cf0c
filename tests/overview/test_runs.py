"""`caltech runs`: every run of a study, as its directory says it is."""

import csv
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock

from caltech.errors import InputError
from caltech.files import read_sealed_json, write_sealed_json
from caltech.overview import clean, runs
from caltech.overview.listing import Listed, differing, listed, taken
from caltech.runs.directory import RunDirectory
from caltech.train import train
from tests.observers import TINY, Doing, Stopped, stop


@pytest.fixture(scope="module")
def study(tmp_path_factory, compose_in) -> Path:
    """A finished run, an interrupted one, and the config of one that a process has begun."""
    output = tmp_path_factory.mktemp("listed") / "multirun"
    train(compose_in(output, *TINY, "lr=0.1"), overrides=[*TINY, "lr=0.1", "study=default"])
    cfg = compose_in(output, *TINY, "lr=0.2")
    with pytest.raises(Stopped):
        train(cfg, overrides=[*TINY, "lr=0.2"], observer=Doing(stop, at_epoch=1))
    return output / "default"


def test_each_run_has_its_status_accuracy_and_words(study):
    newest, oldest = listed(study)
    assert (newest.status, oldest.status) == ("interrupted", "finished")
    assert differing([newest, oldest]) == {
        newest.directory: ("lr=0.2",), oldest.directory: ("lr=0.1",),
    }  # fmt: skip
    assert 0 <= oldest.test <= 1 and newest.test is None
    assert oldest.bytes == taken(oldest.directory.iterdir())


def test_words_that_were_typed_twice_are_those_that_count(study, tmp_path):
    (one,) = (path.parent for path in study.glob("*/result.json"))
    typed = {
        "a": "lr=0.01 data.root='/my data' lr=0.05",
        "b": "lr=0.05 lr=0.01 data.root='/my data'",
    }
    for name, words in typed.items():
        shutil.copytree(one, tmp_path / "twice" / name)
        path = RunDirectory(tmp_path / "twice" / name).description
        told = read_sealed_json(path)
        write_sealed_json(path, told | {"tags": {"overrides": words}})
    found = listed(tmp_path / "twice")
    differ = {path.name: words for path, words in differing(found).items()}
    assert differ == {"a": ("lr=0.05",), "b": ("lr=0.01",)}
    assert all("data.root='/my data'" in run.words and len(run.words) == 2 for run in found)


def test_a_run_whose_lock_is_held_runs(study):
    directory = RunDirectory(listed(study)[0].directory)
    with FileLock(directory.lock):
        assert listed(study)[0].status == "running"


def test_a_run_of_earlier_code_is_told_by_its_config(study, tmp_path):
    shutil.copytree(study, tmp_path / "old")
    for path in tmp_path.glob("old/*/description.json"):
        path.unlink()
    words = differing(listed(tmp_path / "old")).values()
    assert sorted(words) == [("optimizer.lr=0.1",), ("optimizer.lr=0.2",)]


@pytest.mark.parametrize("name", ["config.yaml", "manifest.json", "description.json"])
def test_a_file_of_another_run_is_not_believed(study, tmp_path, name):
    """What was typed for another one does not stand beside this one's result."""
    shutil.copytree(study, tmp_path / "swapped")
    newest, oldest = listed(tmp_path / "swapped")
    directory = RunDirectory(oldest.directory)
    other = RunDirectory(newest.directory)
    if name == "manifest.json":
        write_sealed_json(directory.manifest, {"key": newest.key, "files": {}})
    else:
        shutil.copy(other.path / name, directory.path / name)
    (found,) = (run for run in listed(tmp_path / "swapped") if run.key == oldest.key)
    if name == "description.json":
        assert found.status == "finished" and "optimizer.lr=0.1" in found.words
    else:
        assert found.status == "damaged" and found.test is None


def test_a_run_under_the_name_of_another_is_damaged_and_a_copy_says_where_it_is(
    study, tmp_path, capsys
):
    (one,) = (path.parent for path in study.glob("*/result.json"))
    shutil.copytree(one, tmp_path / "names" / "0123456789")
    shutil.copytree(one, tmp_path / "names" / f"{one.name}.old")
    assert sorted(run.status for run in listed(tmp_path / "names")) == ["damaged", "finished"]
    runs.main([f"output={tmp_path}"])
    assert f"{one.name}.old)" in capsys.readouterr().out


HARMS = {"best": {"val/accuracy": "x"}, "last": {"epoch": float("inf")}, "status": None}


@pytest.mark.parametrize("name", [None, *HARMS, "tags"])
def test_a_harmed_run_is_in_the_list_too(study, tmp_path, capsys, name):
    """Cut, or with a value of another kind under a valid checksum."""
    shutil.copytree(study, tmp_path / "harmed")
    (result,) = (RunDirectory(p.parent) for p in tmp_path.glob("harmed/*/result.json"))
    if name is None:
        result.result.write_bytes(result.result.read_bytes()[:-9])
    elif name == "tags":
        told = read_sealed_json(result.description)
        write_sealed_json(result.description, told | {"tags": {"overrides": None}})
    else:
        write_sealed_json(result.result, read_sealed_json(result.result) | {name: HARMS[name]})
    assert sorted(run.status for run in listed(tmp_path / "harmed")) == ["damaged", "interrupted"]
    runs.main([f"output={tmp_path}"])
    assert "damaged" in capsys.readouterr().out


def test_it_fits_into_80_columns_and_a_spreadsheet_has_all(study, capsys):
    runs.main([f"output={study.parent}"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("default: 2 runs, ") and max(map(len, lines)) <= 80
    for named in ("default", "study=default"):
        runs.main([f"output={study.parent}", "csv=true", named])
        rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
        assert [row["status"] for row in rows] == ["interrupted", "finished"]


def test_shared_files_count_by_their_share(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(bytes(100_000))
    alone = taken([one])
    other.hardlink_to(one)
    assert taken([one, other]) == alone == 2 * taken([one])


@pytest.mark.parametrize(
    "word",
    [
        "defualt",
        "study=defualt",
        "csv=3",
        "outptu=x",
        "--json",
        "output=",
        "--output",
        "output=b",
        "csv",
    ],
)
def test_a_word_that_is_none_is_one_message(study, word):
    with pytest.raises(InputError, match="Type "):
        runs.main([f"output={study.parent}", word])


def test_a_list_needs_no_torch():
    program = "import sys\nfrom caltech.overview import clean, runs\n"
    subprocess.run(
        [sys.executable, "-c", program + "assert 'torch' not in sys.modules"], check=True
    )


def test_words_of_all_runs_on_a_data_set_stand_once_above_them():
    def run(key: str, *words: str) -> Listed:
        return Listed("s", key, "finished", "", words, 0.5, 0.5, 1, 1000, 0.0, Path(key))

    digits, long = ("data=digits", "data.resize=32"), "model.name=" + "a-long-name-" * 6
    made = [run("a", *digits, "lr=1"), run("b", "lr=1"), run("c", "lr=2", *digits[::-1])]
    made.append(run("d", long))
    lines = runs.table("s", made).splitlines()
    assert lines[2] == "with data=digits data.resize=32"
    assert [line.split()[0] for line in lines[3:8]] == ["a", "c", "with", "b", "d"]
    assert lines[3].endswith(" lr=1") and lines[4].endswith(" lr=2") and "digits" not in lines[3]
    *_, one, other, row = runs.table("s", [run("a", long, "lr=1")]).splitlines()
    assert [one, other] == [f"  {long}", "  lr=1"] and row.endswith("1.0 kB")
    alike = runs.table("s", [run("a", *digits, "lr=1"), run("b", *digits, "lr=1")]).splitlines()
    assert alike[2:] == ["with data=digits data.resize=32 lr=1", *alike[3:]]


def test_what_another_user_keeps_private_is_told_and_left_out(study, capsys, monkeypatch):
    private = study.parent / "of_somebody"
    private.mkdir()
    may = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != private and may(path, mode))
    for command in (runs, clean):  # and run=best
        command.main([f"output={study.parent}"])
        told = capsys.readouterr()
        assert told.err == f"warning: you may not read {private}: it is left out\n", command
    private.rmdir()
