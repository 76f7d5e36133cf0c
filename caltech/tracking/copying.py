"""The copy of a run's directory in a store: made at any time, by whoever asks, nothing twice."""

import copy
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from mlflow.entities import Metric

from caltech.errors import InputError
from caltech.metrics import METRICS
from caltech.runs import manifest
from caltech.runs.directory import RunDirectory
from caltech.settings import names_a_folder
from caltech.tracking.address import SECONDS, require_answer
from caltech.tracking.contents import Contents, Point, read
from caltech.tracking.note import End, Note, Told, noting
from caltech.tracking.store import Store

log = logging.getLogger(__name__)

UPLOAD_SECONDS = 60  # that a server may take to answer for one artifact
MOST = 1000  # metrics in one batch, by MLflow's rule
FINISHED, KILLED, RUNNING = "FINISHED", "KILLED", "RUNNING"
# Tags that change with a directory. What else earlier code told, the directory does not know.
FOLLOWING = ("run", "directory", "study", "sweep", "overrides")


def send(
    store: Store,
    directory: RunDirectory,
    live: Sequence[Mapping[str, float]] | None = None,
    seconds: float = SECONDS,
) -> bool | None:
    """Tell a store what a run's directory holds and it was not told yet.

    The times of all numbers are the directory's, so whatever is told again is the same to MLflow.
    The run's lock is not taken: nobody who wants to train waits for a store.

    Args:
        live: the epochs so far, if this process trains the run; else a run that is computed just
            now is left to its own process.
        seconds: how long another process's lock on the database or the note is waited for.

    Returns: whether there was anything to tell; None of a run that another process computes.

    Raises:
        StoreError, or what MLflow and drivers raise.
    """
    require_answer(store.uri, seconds)
    if not directory.path.is_dir():
        raise InputError(f"{directory} is not there any more.")
    with noting(directory, seconds):
        if live is None and directory.is_held():
            return None
        contents = read(directory, live)
        note = Note.read(directory, contents.id)
        if contents.result and note.stores.get(store.name, Told("")).status != FINISHED:
            manifest.verify(directory, directory.artifacts())  # before anything of it is told
        before = copy.deepcopy(note)
        told = _find(store, directory, contents, note)
        try:
            _tell(store, directory, contents, note, told, live is not None)
        finally:
            if note != before:
                note.write(directory)
        return note != before


def close_lost(store: Store, run_id: str, end: End) -> None:
    """Tell how a run ended whose directory was moved or removed while it was computed.

    Args:
        run_id: the random id that the directory had.
    """
    for run in store.search("attributes.status = 'RUNNING'", run=run_id):
        store.end(run.info.run_id, end)


def close_abandoned(store: Store, output: Path) -> None:
    """Tell the truth of runs that are RUNNING there and have no process any more (SIGKILL).

    Only of those whose directory lies in this output folder, has their id and is locked by nobody:
    what a tag says is a name to look for, never a place to write. No host and no pid matters.
    """
    for run in store.search("attributes.status = 'RUNNING'"):
        study, key, run_id = (run.data.tags.get(tag, "") for tag in ("study", "key", "run"))
        if run_id and names_a_folder(study) and names_a_folder(key):
            directory = RunDirectory(output / study / key)
            if directory.id == run_id and not directory.is_held():
                send(store, directory)


def _find(store: Store, directory: RunDirectory, contents: Contents, note: Note) -> Told:
    """What this store was told; a run is made there if it has none with the directory's id."""
    told, run = note.stores.get(store.name), None
    if told is not None:
        run = store.run(told.run_id)
        if run is None:
            log.warning("MLflow no longer has run %s of %s.", told.run_id, directory)
            told = None
    if run is None:
        run = next(store.search(run=contents.id), None)
        told = note.told(run.info.run_id) if run else _former(store, directory, contents)
    if run is not None and told.status == RUNNING and run.info.status in (KILLED, "FAILED"):
        told = replace(told, status=run.info.status)  # it was taken for dead, or lost
    if told is None:
        tags = {**contents.description.tags, "run": contents.id}
        run = store.create(contents.description.name, tags, contents.started)
        told = Told(run.info.run_id)
    if run is not None and told.status == FINISHED != run.info.status:  # an older copy of the store
        told = Told(told.run_id, former=told.former, epochs=told.former)
    if note.stores.get(store.name) != told:
        note.stores[store.name] = told
        note.write(directory)  # before anything is told, which may not come to its end
    return told


def _former(store: Store, directory: RunDirectory, contents: Contents) -> Told | None:
    """The run that earlier code made, which noted its id alone, if its tags say it is this one."""
    if not directory.mlflow_run_id.is_file():
        return None
    run = store.run(directory.mlflow_run_id.read_text().strip())
    tags = run.data.tags if run else {}
    ours = contents.description.tags
    if not tags or "run" in tags or tags.get("key") != ours["key"]:
        return None
    noted = tags.get("directory", "")
    if noted != ours["directory"] and (contents.result is None or Path(noted).is_dir()):
        return None  # a copy, or one that may be
    history = store.client.get_metric_history(run.info.run_id, METRICS[-1])
    epochs = max((metric.step for metric in history), default=0)
    is_whole = contents.result is not None and run.info.status == FINISHED
    return Told(run.info.run_id, "", epochs, epochs, FINISHED if is_whole else "")


def _tell(
    store: Store, directory: RunDirectory, contents: Contents, note: Note, told: Told, is_live: bool
) -> None:
    _describe(store, contents, told)
    if contents.result and told.status == FINISHED:
        return
    end = _end(directory, contents, told, is_live) if contents.result is None else None
    if end is None and (is_live or contents.result) and told.status != RUNNING:
        _go_on(store, told)
    for points in _in_batches(contents.points[told.epochs :]):
        _log(store, told, points)
        told.epochs = points[-1].epoch
        note.write(directory)
    if contents.result:
        _finish(store, directory, contents, told)
    elif end is not None and told.status != end.status:
        store.end(told.run_id, end)
        told.status = end.status


def _describe(store: Store, contents: Contents, told: Told) -> None:
    description, described = contents.description, contents.description.sum
    if told.described == described:
        return
    tags = {**description.tags, "run": contents.id}
    if told.former or told.status == FINISHED:
        tags = {name: tags[name] for name in FOLLOWING if tags.get(name)}
    else:
        store.describe(told.run_id, description)
    store.tag(told.run_id, tags)
    told.described = described


def _end(directory: RunDirectory, contents: Contents, told: Told, is_live: bool) -> End | None:
    """How a run without a result ended; None if it goes on, or waits to go on."""
    if (end := End.read(directory)) or is_live:
        return end
    ended = contents.points[-1].ended if contents.points else contents.started
    if who := directory.held_by():  # it did not leave: the system ended it
        return End(KILLED, f"ended without a word, as by SIGKILL (process {who})", ended)
    if not told.status:
        return End(KILLED, "ended, and it is not known how", ended)
    return None


def _go_on(store: Store, told: Told) -> None:
    run = store.client.get_run(told.run_id)
    for tag in {"failure", "status", "stopped"} & set(run.data.tags):
        store.client.delete_tag(told.run_id, tag)
    store.client.update_run(told.run_id, status=RUNNING)
    told.status = RUNNING


def _finish(store: Store, directory: RunDirectory, contents: Contents, told: Told) -> None:
    _log(store, told, [contents.last_point])
    tags = {"status": contents.result.status}  # MLflow knows no pruned ones
    if contents.result.stopped:
        tags["stopped"] = contents.result.stopped
    store.tag(told.run_id, tags)
    with _patience():
        for path in directory.artifacts():
            store.keep(told.run_id, path)
    store.client.set_terminated(told.run_id, FINISHED, contents.ended)
    told.status = FINISHED


def _log(store: Store, told: Told, points: Sequence[Point]) -> None:
    store.client.log_batch(
        told.run_id,
        metrics=[
            Metric(name, value, point.ended, point.epoch)
            for point in points
            for name, value in point.metrics.items()
        ],
    )


def _in_batches(points: Sequence[Point]) -> Iterator[Sequence[Point]]:
    size = MOST // len(METRICS)
    for first in range(0, len(points), size):
        yield points[first : first + size]


@contextmanager
def _patience() -> Iterator[None]:
    """A server passes artifacts on before it answers, and has answered all else so far."""
    name = "MLFLOW_HTTP_REQUEST_TIMEOUT"
    before = os.environ.get(name)
    os.environ[name] = str(max(UPLOAD_SECONDS, int(before or 0)))
    try:
        yield
    finally:
        os.environ[name] = before or str(SECONDS)
