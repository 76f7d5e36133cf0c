"""Temporary files: what a killed process left is removed, and what a living one writes never."""

import errno
import fcntl
import multiprocessing
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from filelock import Timeout

from caltech import files, locks
from caltech.errors import DiskError
from tests.observers import Stopped

fork = multiprocessing.get_context("fork")


def killed_inside(context, path: Path) -> None:
    """Enter `context` for `path` in another process, write something, and kill that process."""

    def enter(path: Path) -> None:
        with context(path) as partial:
            if context is files.making_folder:
                partial.mkdir()
                partial /= "file"
            partial.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)

    process = fork.Process(target=enter, args=(path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def test_a_folder_that_another_process_made_meanwhile_stays(tmp_path):
    path = tmp_path / "model"
    made = pytest.raises(DiskError, match="another process made it meanwhile")
    with made, files.making_folder(path) as partial:
        for folder in (path, partial):
            folder.mkdir()
            (folder / folder.parent.name).touch()
    assert [each.name for each in path.iterdir()] == [tmp_path.name]


@pytest.mark.parametrize("context", [files.replacing, files.making_folder])
@pytest.mark.parametrize("name", ["x.json", "a b'%?#\n" + '"ü', "n" * 250])
def test_what_was_killed_is_removed_by_the_next_that_writes_there(tmp_path, context, name):
    killed_inside(context, tmp_path / name)
    (left,) = tmp_path.iterdir()
    assert left.name.endswith(".partial")
    files.write_json(tmp_path / "y.json", {})
    assert [path.name for path in tmp_path.iterdir()] == ["y.json"]


def test_what_a_host_without_our_locks_removes_is_written_again(tmp_path, monkeypatch):
    def removed(partial: Path) -> None:
        monkeypatch.undo()
        partial.unlink()
        files.sync(partial)

    monkeypatch.setattr(files, "sync", removed)
    files.write_bytes(tmp_path / "x", b"whole")
    assert (tmp_path / "x").read_bytes() == b"whole"


def test_what_lives_stays_whatever_its_host_is_called(tmp_path, monkeypatch):
    monkeypatch.setattr("socket.gethostname", lambda: "elsewhere")
    with files.replacing(tmp_path / "x") as partial, files.making_folder(tmp_path / "f") as folder:
        partial.write_text("whole")
        folder.mkdir()
        (tmp_path / f"{partial.name}-journal").touch()
        files.write_json(tmp_path / "y", {})
        assert partial.is_file() and folder.is_dir()
        assert (tmp_path / f"{partial.name}-journal").exists()
    files.remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"x", "f", "y"}


def test_removing_and_making_at_the_same_time(tmp_path):
    """A file may be found after it was made and before it is locked: it is made again."""

    def write(number: int) -> None:
        for count in range(40):
            files.write_json(tmp_path / f"{number}.json", {"count": count})

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(write, range(6)))
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"{n}.json" for n in range(6)]


@pytest.mark.parametrize("is_folder", [False, True])
def test_one_that_was_removed_before_it_was_locked_is_made_again(tmp_path, monkeypatch, is_folder):
    flock, names = fcntl.flock, []

    def too_late(descriptor: int, operation: int) -> None:
        if not names:
            names.extend(tmp_path.iterdir())
            monkeypatch.setattr(locks.fcntl, "flock", flock)
            locks.remove_leftovers(tmp_path)
            assert not list(tmp_path.iterdir())
        flock(descriptor, operation)

    monkeypatch.setattr(locks.fcntl, "flock", too_late)
    with locks.held_partial(tmp_path / "x", is_folder) as partial:
        assert partial.exists() and partial not in names


def test_a_folder_that_was_killed_before_its_lock_was_made_is_removed(tmp_path):
    (tmp_path / ".x.0123.partial").mkdir()
    files.remove_leftovers(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_file_locks_nothing_is_removed_and_a_lock_is_refused(tmp_path, monkeypatch, code):
    def refusing(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", refusing)
    (tmp_path / ".left.0123.partial").touch()
    files.write_json(tmp_path / "x.json", {})
    assert {path.name for path in tmp_path.iterdir()} == {".left.0123.partial", "x.json"}
    with pytest.raises(DiskError, match=r"x\.lock cannot be written: .* no file locks"):
        files.acquire(tmp_path / "x.lock")


def test_a_lock_is_held_by_one(tmp_path):
    with files.acquire(tmp_path / "x.lock"), pytest.raises(Timeout):
        files.acquire(tmp_path / "x.lock", timeout=0)
    with files.acquire(tmp_path / "x.lock", timeout=0):
        pass


def test_a_place_that_cannot_be_written_is_one_message(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder" / "x").mkdir(parents=True)
    for path in (tmp_path / "file" / "x", tmp_path / "file" / "y" / "x", tmp_path / "folder"):
        with pytest.raises(DiskError, match=r"cannot be written.*output=FOLDER"):
            files.write_json(path, {})
        with pytest.raises(DiskError, match=r"cannot be written.*output=FOLDER"):
            files.acquire(path if path.is_dir() else path / "lock")


def test_a_temporary_file_that_another_process_removed_is_told(tmp_path):
    with (
        pytest.raises(DiskError, match=r"another process removed its temporary file"),
        files.replacing(tmp_path / "x") as partial,
    ):
        partial.unlink()


def test_an_error_of_another_file_is_not_of_this_one(tmp_path):
    with pytest.raises(FileNotFoundError), files.replacing(tmp_path / "a" / "x"):
        (tmp_path / "b" / "y").read_text()


@pytest.mark.parametrize("allowed", range(6))
def test_a_folder_whose_removal_was_killed_is_removed_by_the_next(tmp_path, monkeypatch, allowed):
    """After any number of its files. Without its lock it would be taken for one in the making."""
    folder = tmp_path / ".exported.0123456789abcdef.partial"
    (folder / "exported").mkdir(parents=True)
    for name in ("lock", "exported/best.safetensors", "exported/config.yaml"):
        (folder / name).touch()
    left = iter(range(allowed))

    def killing(usual):
        def removes(*args, **details):
            if next(left, None) is None:
                raise Stopped
            return usual(*args, **details)

        return removes

    with monkeypatch.context() as patched, suppress(Stopped):
        for name in ("unlink", "rmdir"):
            patched.setattr(os, name, killing(getattr(os, name)))
        files.remove_leftovers(tmp_path)
    files.remove_leftovers(tmp_path)
    assert not list(tmp_path.iterdir())
