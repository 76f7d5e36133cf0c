"""Which run a directory is: a random name that is born in it, and does not follow a copy.

identity.json is sealed: {"id": 32 hexadecimal digits, "path": where the directory was when this was
written, "inode": the directory's number in its file system, "attempt": how many claims trained}.
"""

import glob
import logging
import os
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

from caltech.errors import DamagedError
from caltech.files import read_sealed_json, write_sealed_json

log = logging.getLogger(__name__)

NAME = "identity.json"
TOLD = "mlflow.json"  # tracking's note, which has the id, too


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
    noted = read(folder) or _told(folder, inode)
    is_same = noted is not None and noted.inode == inode
    if noted is None or not (is_same or (not goes_on and not _has_original(noted, folder))):
        noted = Identity(uuid.uuid4().hex, "", 0, 0)
    now = Identity(noted.id, str(path), inode, noted.attempt + goes_on)
    if now != noted:
        write_sealed_json(folder / NAME, asdict(now))
    return now


def is_stale(folder: Path, is_finished: bool) -> bool:
    """Whether a folder's id is to be renewed before anybody is told of it.

    It is a copy, or has none; a finished one that was moved notes its place for later copies.
    """
    noted = read(folder)
    if noted is None or noted.inode != folder.stat().st_ino:
        return True
    return is_finished and noted.path != str(folder.absolute())


def _has_original(noted: Identity, folder: Path) -> bool:
    """Whether the directory of this identity is still where it was, or in a study beside it."""
    beside = folder.absolute().parent.parent.glob(f"*/{glob.escape(folder.name)}")
    places = [Path(noted.path), *(each for each in beside if each != folder.absolute())]
    for place in places:
        found = read(place)
        if found is not None and found.id == noted.id and place.stat().st_ino == noted.inode:
            return True
    return False


def _told(folder: Path, inode: int) -> Identity | None:
    """Of a folder whose identity was harmed: the id by which stores know it."""
    if not os.path.lexists(folder / NAME) or not (folder / TOLD).is_file():
        return None
    try:
        kept = read_sealed_json(folder / TOLD, {"id": str})
    except DamagedError:
        return None
    return Identity(kept["id"], "", inode, 0)
