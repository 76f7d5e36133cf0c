"""`caltech clean` says what could go; nothing goes that a result or a living run needs."""

import os
import re
import shutil
import time
from pathlib import Path

import pytest
from filelock import FileLock

from caltech.errors import InputError
from caltech.files import write_sealed_json
from caltech.inference.predictor import Predictor
from caltech.locks import held_partial
from caltech.overview import clean
from caltech.runs.directory import RunDirectory
from caltech.runs.result import Result
from caltech.settings import PACKAGE
from caltech.train import train
from tests.observers import TINY, Doing, Stopped, stop


@pytest.fixture
def run(finished, tmp_path) -> RunDirectory:
    """A copy of a finished run with all that could go."""
    path = tmp_path / "multirun" / "default" / finished.name
    shutil.copytree(finished, path)
    directory = RunDirectory(path)
    for checkpoint in directory.checkpoints:
        checkpoint.write_bytes(bytes(9000))
    aside = path / "earlier-20260101T000000Z"
    aside.mkdir()
    shutil.copy(directory.weights("best"), aside)
    shutil.copy(directory.result, aside)
    (path / ".x.partial").write_bytes(bytes(9000))
    old = tmp_path / "cache" / "features" / "1.bin"
    old.parent.mkdir(parents=True)
    for path in (old, old.with_name("2.bin")):
        array(path)
    os.utime(old, (1, 1))
    return directory


def array(path: Path) -> None:
    """A cache, as far as it can be told by its files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(9000))
    note = {"row_bytes": 9000, "shape": [1, 9000], "dtype": "uint8", "blocks": [[1, "0"]]}
    write_sealed_json(path.with_suffix(".json"), note)
    path.with_suffix(".lock").touch()


def clear(tmp_path: Path, *words: str) -> None:
    clean.main([f"output={tmp_path}/multirun", f"cache={tmp_path}/cache", *words])


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_nothing_goes_unless_yes_is_typed(run, tmp_path, capsys):
    before = files(tmp_path)
    clear(tmp_path)
    said = capsys.readouterr().out
    assert files(tmp_path) == before
    *lines, command = said.splitlines()
    assert command.startswith("  caltech clean output=") and command.endswith(" yes=true")
    assert max(map(len, lines)) <= 80
    assert max(map(len, clean.ALL.values())) <= 44  # 36 columns stand before it


def test_what_goes_is_what_no_result_needs(run, tmp_path, capsys):
    before = files(tmp_path)
    answers = Predictor.load(run, "last", "cpu").summary()
    clear(tmp_path, "yes=true")
    gone = {Path(name).name for name in before - files(tmp_path)}
    assert gone == {
        "checkpoint.pt", "previous_checkpoint.pt", ".x.partial", "best.safetensors", "1.bin",
        "1.json", "1.lock",
    }  # fmt: skip
    assert run.weights("best").is_file()  # that of earlier-... went
    assert (tmp_path / "cache" / "features" / "2.bin").is_file()
    assert Predictor.load(run, "last", "cpu").summary() == answers
    assert re.search(r"^freed \d+ kB$", capsys.readouterr().out, re.MULTILINE)


def test_a_run_that_a_process_computes_is_left_alone(run, tmp_path):
    before = files(tmp_path)
    with FileLock(run.lock), held_partial(run.path / "y") as partial:
        clear(tmp_path, "checkpoints", "reruns", "yes=true")
        assert before <= files(tmp_path)
        clear(tmp_path, "leftovers", "yes=true")
        assert partial.is_file()
        assert not [*clean.search(tmp_path / "multirun", tmp_path / "none")]


@pytest.mark.parametrize("harm", ["result", "weights", "history"])
def test_the_checkpoint_of_a_run_that_may_need_it_stays(run, tmp_path, harm):
    """Its result was harmed, its weights are gone, or its curves are in the checkpoint alone."""
    harmed = {"result": run.result, "weights": run.weights("last"), "history": run.history}[harm]
    harmed.unlink()
    clear(tmp_path, "checkpoints", "yes=true")
    assert all(path.is_file() for path in run.checkpoints)


def test_last_weights_go_only_if_they_are_typed_and_the_run_is_answered_as_before(run, tmp_path):
    run.weights("last").write_bytes(run.weights("last").read_bytes())  # a file of its own
    result = Result.read(run, pruned_too=False)
    clear(tmp_path, "last")
    assert run.weights("last").is_file()
    clear(tmp_path, "last", "yes=true")
    assert not run.weights("last").exists()
    assert Result.read(run, pruned_too=False) == result
    assert Predictor.load(run, "best", "cpu").summary()["key"] == result.key
    with pytest.raises(
        InputError, match=r"has no last\.safetensors \(.*caltech clean last.*rerun=true"
    ):
        Predictor.load(run, "last", "cpu")


def test_a_checkpoint_that_was_asked_for_goes_only_if_it_is_typed(run, tmp_path):
    text = run.config.read_text()
    run.config.write_text(text.replace("keep_checkpoint: false", "keep_checkpoint: true"))
    clear(tmp_path, "yes=true")
    assert all(path.is_file() for path in run.checkpoints)
    clear(tmp_path, "kept", "yes=true")
    assert not any(path.is_file() for path in run.checkpoints)


def test_so_does_one_that_was_asked_for_when_the_run_went_on(configure, tmp_path):
    """With the last epoch's weights left out: only those that a run had are missed."""
    constant = (*TINY, "schedule=constant", f"output={tmp_path / 'multirun'}")
    with pytest.raises(Stopped):
        train(configure(*constant), observer=Doing(stop, at_epoch=1))
    asked = configure(*constant, "keep_checkpoint=true", "last_weights=none")
    train(asked)
    checkpoint = RunDirectory(asked.directory).checkpoint
    (tmp_path / "cache").mkdir()
    clear(tmp_path, "yes=true")
    assert checkpoint.is_file()
    clear(tmp_path, "kept", "yes=true")
    assert not checkpoint.is_file()


def test_a_cache_in_use_stays(run, tmp_path, capsys):
    with FileLock(tmp_path / "cache" / "features" / "1.lock"):
        clear(tmp_path, "caches", "yes=true")
    assert (tmp_path / "cache" / "features" / "1.bin").is_file()
    assert "in use" in capsys.readouterr().out


def test_a_linked_file_frees_nothing(run, tmp_path):
    (tmp_path / "other").hardlink_to(run.checkpoint)
    found = clean.Found("checkpoints", (run.checkpoint,), run)
    assert found.bytes == 0


def test_of_a_folder_with_other_things_only_our_caches_are_looked_at(tmp_path):
    """CALTECH_CACHE=~/.cache, and output=~ with a project's configs below it."""
    for name in ("hf/model", "datasets/one", "features/noted"):
        array(tmp_path / "cache" / f"{name}.bin")
    (tmp_path / "cache" / "features" / "noted.json").write_text('{"shape": [1]}')
    (tmp_path / "cache" / "features" / "alone.bin").write_bytes(bytes(9))
    (tmp_path / "multirun" / "project" / "conf").mkdir(parents=True)
    (tmp_path / "multirun" / "project" / "conf" / "config.yaml").write_text("key: 1\n")
    for folder in ("cache/hf", "multirun/project", "multirun/project/conf"):
        (tmp_path / folder / ".x.partial").write_bytes(bytes(9))
    for path in tmp_path.rglob("*.bin"):
        os.utime(path, (1, 1))
    before = files(tmp_path)
    clear(tmp_path, "yes=true")
    assert files(tmp_path) == before


def test_every_folder_that_caches_are_written_to_is_known():
    texts = [path.read_text() for path in PACKAGE.rglob("*.py")]
    written = {name for text in texts for name in re.findall(r'cache / "(\w+)" /', text)}
    assert written == {*clean.CACHES}


@pytest.mark.parametrize("name", ["output", "cache"])
def test_a_folder_that_is_not_there_is_no_clean_one(tmp_path, name):
    there = {"output": tmp_path, "cache": tmp_path} | {name: tmp_path / "nowhere"}
    with pytest.raises(InputError, match=f"{name}={tmp_path}/nowhere is no folder here"):
        clean.main([f"{one}={place}" for one, place in there.items()])


def test_another_kind_is_one_message(tmp_path):
    with pytest.raises(InputError, match="no kind of what can go"):
        clear(tmp_path, "everything")


def test_time_is_that_of_the_last_reading(run, tmp_path):
    old = tmp_path / "cache" / "features" / "1.bin"
    os.utime(old, (time.time(), 1))
    assert "caches" not in {found.kind for found in clean.search(tmp_path, tmp_path / "cache")}
