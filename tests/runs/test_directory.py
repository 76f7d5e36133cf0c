"""One process at a time in a run's directory, and nothing in it is ever deleted."""

import pytest
from filelock import FileLock

from caltech.errors import HeldError
from caltech.runs.directory import RunDirectory


def test_a_run_that_another_process_computes_is_refused(tmp_path):
    directory = RunDirectory(tmp_path / "run")
    directory.path.mkdir()
    directory.holder.write_text('{"pid": 4711, "host": "elsewhere"}')
    with (
        FileLock(directory.lock),
        pytest.raises(HeldError, match=r"4711.*elsewhere.*study="),
        directory.claimed(waits=False),
    ):
        pass


def test_a_claim_is_noted_and_let_go_also_by_an_error(tmp_path):
    directory = RunDirectory(tmp_path / "run")
    with pytest.raises(ZeroDivisionError), directory.claimed(waits=False):
        assert '"pid"' in directory.held_by()
        raise ZeroDivisionError
    assert directory.held_by() is None
    with directory.claimed(waits=False):
        pass


def test_what_is_set_aside_is_all_there(tmp_path):
    directory = RunDirectory(tmp_path)
    for path in (directory.config, directory.result, directory.weights("best"), directory.lock):
        path.write_text(path.name)
    directory.set_aside()
    assert {path.name for path in tmp_path.iterdir() if path.is_file()} == {
        "identity.json", "run.lock",
    }  # fmt: skip
    (aside,) = tmp_path.glob("earlier-*")
    assert {p.name for p in aside.iterdir()} == {"config.yaml", "result.json", "best.safetensors"}
    assert all(path.read_text() == path.name for path in aside.iterdir())
    directory.set_aside()
    assert list(tmp_path.glob("earlier-*")) == [aside]


def test_what_is_not_there_is_no_artifact(tmp_path):
    directory = RunDirectory(tmp_path)
    directory.config.touch()
    assert directory.artifacts() == [directory.config]
