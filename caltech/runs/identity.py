"""Which run a directory is: a random name that is born in it, and does not follow a copy.

identity.json is sealed: {"id": 32 hexadecimal digits, "path": where the directory was when this was
written, "inode": the directory's number in its file system, "attempt": how many claims trained}.
"""

import logging
import os
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

from caltech.errors import DamagedError
from caltech.files import read_sealed_json, write_sealed_json

log = logging.getLogger(__name__)

NAME = "identity.json"


@dataclass(frozen=True)
class Identity:
    """As identity.json holds it."""

    id: str
    path: str
    inode: int
    attempt: int


def read(folder: Path) -> Identity | None:
    """What the folder says it is; None if it says nothing that can be read."""
    path, kinds = folder / NAME, {"id": str, "path": str, "inode": int, "attempt": int}
    if not os.path.lexists(path):
        return None
    try:
        kept = read_sealed_json(path, kinds)
        return Identity(**{name: kept[name] for name in kinds})
    except DamagedError as error:
        log.warning("%s It is not used.", error)
        return None


def renew(folder: Path, goes_on: bool) -> Identity:
    """Write who a claimed directory is, and return it.

    The same inode is the same directory, also after `mv`: it keeps its id. With another one it is a
    copy if the directory that is noted still has this id, and gets its own. Else it was moved over
    file systems or restored: a finished run keeps its id, and one that goes on gets its own, so
    that two that were copied from one never tell a tracker under one name.

    Args:
        goes_on: whether the run is not finished, and will train.
    """
    path, inode = folder.absolute(), folder.stat().st_ino
    noted = read(folder)
    is_same = noted is not None and noted.inode == inode
    if noted is None or not (is_same or (not goes_on and not _is_at(noted))):
        noted = Identity(uuid.uuid4().hex, "", 0, 0)
    now = Identity(noted.id, str(path), inode, noted.attempt + goes_on)
    if now != noted:
        write_sealed_json(folder / NAME, asdict(now))
    return now


def _is_at(noted: Identity) -> bool:
    """Whether the directory of this identity is still where it was."""
    found = read(Path(noted.path))
    return found is not None and (found.id, found.inode) == (noted.id, noted.inode)
