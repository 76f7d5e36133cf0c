"""One process at a time in a run's directory, and nothing in it is ever deleted."""

import os

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
        assert f'"pid": {os.getpid()}' in directory.held_by()
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


def test_where_locks_do_not_reach_the_second_to_claim_goes_on(tmp_path):
    """Two hosts' locks on one directory, played by a lock file that was removed in between."""
    first, second = RunDirectory(tmp_path), RunDirectory(tmp_path)
    with first.claimed(waits=False):
        first.require_held()
        first.lock.unlink()
        with second.claimed(waits=False):
            second.require_held()
            with pytest.raises(HeldError, match=r"taken over by another process \(.*pid"):
                first.require_held()
        with pytest.raises(HeldError, match="ended by now"):
            first.require_held()
    first.require_held()  # it holds nothing any more


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff", b'{"pid": 1}'])
def test_a_note_of_the_holder_that_cannot_be_read_is_no_error(tmp_path, content):
    directory = RunDirectory(tmp_path)
    directory.holder.write_bytes(content)
    assert "cannot be read" in directory.held_by()
    with directory.claimed(waits=False):
        directory.require_held()
