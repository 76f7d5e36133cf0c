"""A SQLite store that was moved or copied together with its artifacts: their addresses follow.

MLflow notes artifacts by absolute address, and has no command that changes one.
"""

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlparse


def follow(database: Path, experiment_id: str, noted: str, now: str) -> None:
    """Point an experiment, and those of its runs whose artifacts are there, to another folder.

    Only where it has moved: the noted folder is gone, or the database lies beside the present
    folder and not beside the noted one. Else whoever made the experiment has chosen the place.

    Args:
        noted: address of the experiment's artifacts in the database.
        now: address of the folder of tracking.artifacts.
    """
    before, after = _folder(noted), _folder(now)
    beside = database.resolve().parent
    is_copy = after.parent == beside and before.parent != beside
    if before == after or not (is_copy or not before.is_dir()):
        return
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute(
            "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?",
            (now, experiment_id),
        )
        query = "SELECT run_uuid, artifact_uri FROM runs WHERE experiment_id = ?"
        for run_id, address in connection.execute(query, (experiment_id,)).fetchall():
            rest = address.removeprefix(noted)
            if rest != address and _folder(now + rest).is_dir():
                command = "UPDATE runs SET artifact_uri = ? WHERE run_uuid = ?"
                connection.execute(command, (now + rest, run_id))


def _folder(address: str) -> Path:
    url = urlparse(address)
    return Path(unquote(url.path) if url.scheme else address)
