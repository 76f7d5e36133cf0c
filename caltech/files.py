"""Files that are whole, or are not there, or are found out: written atomically, sealed, checked.

A checksum (CRC-32, from zlib: 1.6 GB/s a core here) tells damage from good bytes: a file cut short,
a flipped bit, a page of zeros. It is no protection from a person who wants to deceive; nothing that
is read here is ever executed, whatever it says.
"""

import errno
import json
import logging
import os
import shutil
import stat
import tempfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from filelock import AcquireReturnProxy, FileLock

from caltech.amounts import size_of
from caltech.errors import DamagedError, DiskError
from caltech.locks import held_partial, remove_folder, remove_leftovers

log = logging.getLogger(__name__)

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no space, over quota, over the allowed file size
_NO_LOCKS = "its file system has no file locks, so two processes could write it at the same time"
_REASONS = dict.fromkeys((errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP), _NO_LOCKS) | {
    errno.ENOENT: "nothing can be made in that folder, or another process removed its temporary "
    "file (do file locks reach all hosts?)",
    errno.EISDIR: "a folder is in its place",
    errno.ENOTEMPTY: "another process made it meanwhile",
    errno.EEXIST: "a file is in the place of its folder",
    errno.ENOTDIR: "a file is in the place of its folder",
}
CHECKSUM = "crc32"  # the last key of a sealed JSON file


@contextmanager
def replacing(path: Path, size: int | None = None, syncs: bool = True) -> Iterator[Path]:
    """A temporary name in the same folder that takes the place of `path` once it is complete.

    What killed processes left in the folder is removed on the way.

    Args:
        size: bytes that will be written, if known.
        syncs: wait until the disk has them. Without, a killed process leaves what is whole, and a
            machine whose power fails may leave a damaged file.

    Raises:
        DiskError: they cannot be written; `path` is what it was before.
    """
    with explaining_disk(path, size):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent)
        with held_partial(path) as partial:
            try:
                yield partial
                if syncs:
                    sync(partial)
                partial.replace(path)
            finally:
                partial.unlink(missing_ok=True)


def remove(path: Path) -> None:
    """Delete a file if it is there.

    Raises:
        DiskError: it cannot be deleted, or is a folder.
    """
    with explaining_disk(path):
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until the disk has all of a file."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


@contextmanager
def making_folder(path: Path) -> Iterator[Path]:
    """A temporary name of a folder that becomes `path`, which is not there, once it is complete.

    Libraries put their temporary files there, too: killed, a process leaves nothing elsewhere.

    Raises:
        DiskError: it cannot be written; nothing of it stays.
    """
    with explaining_disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path.parent)
        with held_partial(path, is_folder=True) as partial:
            before, tempfile.tempdir = tempfile.tempdir, str(partial)
            try:
                yield partial / path.name
                (partial / path.name).rename(path)
            finally:
                tempfile.tempdir = before
                with suppress(OSError):
                    remove_folder(partial)


def acquire(path: Path, timeout: float = -1) -> AcquireReturnProxy:
    """Hold the lock that the file `path` stands for; to be left by `with`.

    Args:
        timeout: seconds to wait for another process; without, as long as it takes.

    Raises:
        Timeout: another process holds it.
        DiskError: it cannot be made, or its file system has no locks.
    """
    with explaining_disk(path):
        return FileLock(path, fallback_to_soft=False).acquire(timeout=timeout)


def require_room(path: Path, size: int) -> None:
    """Raise DiskError before any work unless `size` bytes fit into the folder of `path`."""
    with explaining_disk(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(path.parent).free < size:
        raise DiskError(_no_room(path, size, "no space is left for it"))


@contextmanager
def explaining_disk(path: Path, size: int | None = None) -> Iterator[None]:
    """As explaining_full_disk, also where `path` is in a place that cannot be written."""
    try:
        with explaining_full_disk(path, size):
            yield
    except OSError as error:
        if not _concerns(error, path):
            raise
        reason = _REASONS.get(error.errno, error.strerror)
        named = error.filename if error.errno not in _REASONS else None
        place = f" ({os.fsdecode(named)})" if named and str(path) != named else ""
        raise DiskError(
            f"{path} cannot be written: {reason}{place}. Type output=FOLDER (runs), cache=FOLDER "
            "(caches) or to=FOLDER (exports) for a place where you may write."
        ) from error


@contextmanager
def explaining_full_disk(path: Path, size: int | None = None) -> Iterator[None]:
    """Turn what any library raises when the disk is full into one DiskError that names `path`."""
    try:
        yield
    except DiskError:
        raise
    except Exception as error:
        if reason := full_disk(error):
            raise DiskError(_no_room(path, size, reason)) from error
        raise


def full_disk(error: BaseException | None) -> str | None:
    """The reason if a full disk is behind `error` or behind what it was raised from, else None."""
    while error is not None:
        text = str(error).splitlines()[0] if str(error) else ""
        if getattr(error, "errno", None) in FULL:
            return os.strerror(error.errno)
        # SQLite gives no errno, nor do libraries in Rust.
        if any(said in text for said in ("No space left", "os error 28", "disk is full")):
            return text
        if "os error 27" in text or "File too large" in text:
            return text
        error = error.__cause__ or error.__context__
    return None


def write_at(descriptor: int, array: np.ndarray, offset: int) -> None:
    """Write all bytes: the system may take fewer at a time, the last ones of a disk for example."""
    data = memoryview(np.ascontiguousarray(array)).cast("B")
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written


def write_json(path: Path, value: Any) -> None:
    """Write atomically, keys in the given order."""
    write_bytes(path, (json.dumps(value, indent=2) + "\n").encode())


def write_sealed_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write atomically, keys in the given order, then a checksum."""
    write_bytes(path, sealed_json(value))


def sealed_json(value: Mapping[str, Any]) -> bytes:
    """The content of a sealed file: keys in the given order, then a checksum."""
    return (json.dumps({**value, CHECKSUM: _sum_of(value)}, indent=2) + "\n").encode()


def write_bytes(path: Path, content: bytes) -> None:
    """Write atomically.

    A host that locks do not reach takes a temporary file for a dead process's and removes it, as it
    begins: then it is written once more.
    """
    try:
        _write(path, content)
    except DiskError as error:
        if not isinstance(error.__cause__, FileNotFoundError):
            raise
        _write(path, content)


def _write(path: Path, content: bytes) -> None:
    with replacing(path, len(content)) as partial:
        partial.write_bytes(content)


def read_sealed_json(path: Path, needs: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What write_sealed_json wrote.

    Args:
        needs: types of the values that have to be there, by name.

    Raises:
        DamagedError: it is not that any more, or cannot be read.
    """
    require_no_pipe(path)
    try:
        value = json.loads(path.read_bytes())
        if not isinstance(value, dict):
            raise ValueError("it is no longer an object of JSON")
        found = value.pop(CHECKSUM, None)
    except OSError as error:
        raise DamagedError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise DamagedError(f"{path} was cut short or changed: {error}.") from error
    if found is not None and found != _sum_of(value):
        raise DamagedError(f"{path} does not match its checksum.")
    for name, kind in (needs or {}).items():
        if not isinstance(value.get(name), kind):
            raise DamagedError(f"{path} was cut short or changed: it has no {name}.")
    if found is None:
        log.warning("%s has no checksum; an earlier version wrote it so.", path)
    return value


def require_no_pipe(path: Path) -> None:
    """Raise DamagedError for a pipe or a device in a file's place, which is read without an end."""
    with suppress(OSError):  # which reading tells
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise DamagedError(f"{path} cannot be read: it is a pipe or a device, and no file.")


def sum_of(data: Any) -> str:
    """The checksum of bytes, or of what has a buffer, as eight hexadecimal digits."""
    return f"{zlib.crc32(data):08x}"


def _sum_of(value: Mapping[str, Any]) -> str:
    return sum_of(json.dumps(value).encode())


def _concerns(error: OSError, path: Path) -> bool:
    """Whether an error is of `path`, its temporary file, or a folder that it is in."""
    if error.filename is None:
        return error.errno in (*_REASONS, errno.EROFS, errno.EIO)
    named = Path(os.fsdecode(error.filename))
    return path.is_relative_to(named) or named.is_relative_to(path.parent)


def _no_room(path: Path, size: int | None, reason: str) -> str:
    folder = path.parent
    while not folder.is_dir():
        folder = folder.parent
    needed = "" if size is None else f" It needs {size_of(size)};"
    return (
        f"{path} cannot be written: {reason}.{needed} "
        f"{size_of(shutil.disk_usage(folder).free)} are free there. Make room, or type "
        "output=FOLDER (runs) or cache=FOLDER (caches) for another place; the same command then "
        "goes on from the last checkpoint."
    )
