"""One place on the disk for what several files hold, under a name for each.

A file here is never written in place but replaced, so names that share one do not disturb each
other. Who edits one in place edits it under all its names, MLflow's copy as well. A name that is
copied or goes to another disk is a whole file of its own.
"""

import uuid
from collections.abc import Iterable
from pathlib import Path

from caltech.files import write_bytes


def link(source: Path, path: Path) -> bool:
    """Give a file that is never written in place a second name, in place of what has that name.

    Returns: whether it could be done: not over two disks, nor where there are no links.
    """
    try:
        if path.exists() and path.samefile(source):
            return True
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name[:40]}.{uuid.uuid4().hex[:16]}.partial")
        partial.hardlink_to(source)
        partial.replace(path)
    except OSError:
        return False
    return True


def write_shared(path: Path, content: bytes, beside: Iterable[Path]) -> None:
    """As write_bytes; if a file beside has the very same bytes, it gets a second name instead.

    Each name is a whole file: it can be moved, copied or deleted by itself.
    """
    different: set[int] = set()
    for other in beside:
        try:
            status = other.stat()
            if status.st_size != len(content) or status.st_ino in different:
                continue
            if _holds(other, content) and link(other, path):
                return
            different.add(status.st_ino)
        except OSError:  # it went meanwhile, or cannot be read
            continue
    write_bytes(path, content)


def _holds(path: Path, content: bytes) -> bool:
    """Whether a file has these bytes; read until the first that differs."""
    step = 1 << 20
    places = range(0, len(content), step)
    with path.open("rb") as file:  # bytes, since a memoryview is compared number by number
        return all(file.read(step) == content[at : at + step] for at in places)
