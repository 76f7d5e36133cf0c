"""Temporary files and folders that are locked while a process writes them.

The system lets go of a dead process's lock, whatever host it lived on. So a lock that nobody holds
tells what was left behind, where a process number could be that of another machine.
"""

import fcntl
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def held_partial(path: Path, is_folder: bool = False) -> Iterator[Path]:
    """A temporary name beside `path`, there and locked until the end, whatever the end is."""
    while True:
        # A long name leaves no room for more, and this one is nobody's but the process's.
        partial = path.with_name(f".{path.name[:40]}.{uuid.uuid4().hex[:16]}.partial")
        if is_folder:
            partial.mkdir()
        try:
            descriptor = os.open(_locked_in(partial), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except FileNotFoundError:  # an empty folder, taken for what a killed process left
            continue
        try:
            with suppress(OSError):  # no locks here: then nobody removes it, either
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is_open(descriptor, _locked_in(partial)):  # else removed before it was locked
                yield partial
                return
        finally:
            os.close(descriptor)


def leftovers(folder: Path) -> Iterator[Path]:
    """What remove_leftovers would delete now; a folder's files, too. Nothing is changed."""
    for path in folder.glob(".*.partial"):
        with suppress(OSError), _unlocked(path):
            yield from (path.rglob("*") if path.is_dir() else [path])
    for path in folder.glob(".*.partial-*"):
        if not path.with_name(path.name.rpartition("-")[0]).exists():
            yield path


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files and folders in `folder` whose process was killed.

    The lock on each tells, wherever its process lived. Where there are no locks, all stay.
    """
    for path in folder.glob(".*.partial"):
        with suppress(OSError):  # it lives, is another user's, or another process was faster
            _remove_unlocked(path)
    for path in folder.glob(".*.partial-*"):  # SQLite's journal of a database
        if not path.with_name(path.name.rpartition("-")[0]).exists():
            with suppress(OSError):
                path.unlink()


def remove_folder(partial: Path) -> None:
    """Delete a temporary folder, its lock last: killed before, it is still known for what it is.

    A folder with files and without a lock could be one that another process fills.
    """
    for path in partial.iterdir():
        if path != _locked_in(partial):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    shutil.rmtree(partial)


def _is_open(descriptor: int, path: Path) -> bool:
    """Whether `path` names the open file."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _remove_unlocked(path: Path) -> None:
    try:
        with _unlocked(path):
            if path.is_dir():
                remove_folder(path)
            else:
                path.unlink()
    except FileNotFoundError:
        path.rmdir()  # killed before there was a lock in it


@contextmanager
def _unlocked(path: Path) -> Iterator[None]:
    """Raise OSError if a process holds it, or FileNotFoundError if there is nothing to hold."""
    descriptor = os.open(_locked_in(path), os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _locked_in(partial: Path) -> Path:
    """What is locked of a temporary name: the file itself, or a file in the folder."""
    return partial / "lock" if partial.is_dir() else partial
