"""What a run came to, as it is written and believed."""

import json

import pytest

from caltech.runs.directory import RunDirectory
from caltech.runs.progress import Progress
from caltech.runs.result import Result, state_of

EPOCHS = [
    {"epoch": n, "val/accuracy": accuracy, "val/loss": 1.0, "images_per_second": 9.0}
    for n, accuracy in ((1, 0.4), (2, 0.6), (3, 0.5))
]
TESTED = {"last": {"test/accuracy": 0.45}, "best": {"test/accuracy": 0.55}}


@pytest.fixture
def directory(tmp_path) -> RunDirectory:
    return RunDirectory(tmp_path)


def test_a_result_is_of_the_last_and_the_best_epoch(directory):
    result = Result.of("0123456789", Progress(EPOCHS, best_epoch=2), TESTED, 0.1)
    assert (result.status, result.objective) == ("finished", 0.6)
    assert (result.last["epoch"], result.last["test/accuracy"]) == (3, 0.45)
    assert (result.best["epoch"], result.best["test/accuracy"]) == (2, 0.55)
    assert "images_per_second" in EPOCHS[0] and "images_per_second" not in result.last
    result.write(directory)
    assert Result.read(directory, pruned_too=False) == result
    kept = json.loads(directory.result.read_text())
    assert list(kept) == ["key", "status", "last", "best", "majority/accuracy", "crc32"]


def test_a_pruned_run_has_a_result_only_for_who_would_prune_again(directory):
    result = Result.of("0123456789", Progress(EPOCHS[:2], best_epoch=2), None, 0.1)
    assert (result.status, result.majority_accuracy) == ("pruned", None)
    result.write(directory)
    assert Result.read(directory, pruned_too=True) == result
    assert Result.read(directory, pruned_too=False) is None
    assert list(json.loads(directory.result.read_text())) == [
        "key", "status", "last", "best", "crc32",
    ]  # fmt: skip


def test_a_changed_result_is_none_and_told(directory, caplog):
    Result.of("0123456789", Progress(EPOCHS, best_epoch=2), TESTED, 0.1).write(directory)
    directory.result.write_text(directory.result.read_text().replace("0.45", "0.95"))
    assert Result.read(directory, pruned_too=True) is None
    assert f"{directory.result} does not match" in caplog.text and "without a result" in caplog.text


def test_what_a_command_would_find(tmp_path):
    new, resumable, finished = (RunDirectory(tmp_path / name) for name in ("a", "b", "c"))
    for each in (resumable, finished):
        each.path.mkdir()
        each.checkpoint.touch()
    Result.of("0123456789", Progress(EPOCHS, best_epoch=2), TESTED, 0.1).write(finished)
    assert [state_of([each]) for each in (new, resumable, finished)] == [
        "new", "resumable", "finished",
    ]  # fmt: skip
    assert state_of([new, finished, finished]) == "1 new, 2 finished"
