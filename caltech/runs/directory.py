"""A run's directory: what its files are called, and one process at a time."""

import errno
import fcntl
import json
import logging
import os
import shutil
import socket
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import Timeout

from caltech.errors import DamagedError, DiskError, HeldError, InputError
from caltech.files import (
    acquire,
    explaining_disk,
    explaining_full_disk,
    read_sealed_json,
    write_json,
)
from caltech.runs import identity

log = logging.getLogger(__name__)

WEIGHTS = ("last", "best")  # of which epochs weights and predictions are kept
EXPORTED = "ensemble.json"  # in a folder of members that were exported together
FROZEN = "frozen.safetensors"  # what both have of what training did not change


def previous_of(checkpoint: Path) -> Path:
    """Where the checkpoint before this one is."""
    return checkpoint.with_name(f"previous_{checkpoint.name}")


class RunDirectory:
    """The files of one run, each named here and nowhere else."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.token: str | None = None  # of this process's claim, while it has one
        self.config = self.path / "config.yaml"
        self.provenance = self.path / "provenance.json"
        self.data = self.path / "data.json"
        self.timing = self.path / "timing.json"
        self.calibration = self.path / "calibration.json"  # temperatures
        self.images = self.path / "images.csv"  # files of validation and test, by index
        self.groups = self.path / "groups.json"  # of parameters, if there are several
        self.result = self.path / "result.json"
        self.checkpoint = self.path / "checkpoint.pt"
        self.checkpoints = self.checkpoint, previous_of(self.checkpoint)
        self.log = self.path / "train.log"
        self.frozen = self.path / FROZEN
        self.lock = self.path / "run.lock"
        self.holder = self.path / "holder.json"
        self.identity = self.path / identity.NAME
        self.history = self.path / "history.json"
        self.manifest = self.path / "manifest.json"
        self.description = self.path / "description.json"
        self.ended = self.path / "ended.json"  # while the run has stopped without a result
        self.mlflow = self.path / "mlflow.json"
        self.mlflow_lock = self.path / "mlflow.lock"  # while a store is told of the run
        self.mlflow_run_id = self.path / "mlflow_run_id"  # the note of earlier code

    def __str__(self) -> str:
        return str(self.path)

    @property
    def id(self) -> str | None:
        """Who this run is, at random; None of a run of earlier code, or if nothing is begun."""
        known = identity.read(self.path)
        return known.id if known else None

    def weights(self, name: str) -> Path:
        """The model of the `last` or the `best` epoch; without what is in `frozen`, if it is."""
        return self.path / f"{name}.safetensors"

    def model(self, name: str) -> list[Path]:
        """The files of that model, as far as they are there."""
        return [path for path in (self.weights(name), self.frozen) if path.is_file()]

    def predictions(self, name: str) -> Path:
        """Its answers on the test images."""
        return self.path / f"predictions_{name}.npz"

    def logits(self, name: str) -> Path:
        """What it gave for the validation and the test images, if that was kept."""
        return self.path / f"logits_{name}.npz"

    def artifacts(self) -> list[Path]:
        """What the tracker keeps; a report needs nothing else. A pruned run has fewer files."""
        files = [self.config, self.provenance, self.data, self.timing, self.groups]
        files.append(self.calibration)
        files += [*map(self.predictions, WEIGHTS), *self.model("best")]
        return [path for path in files if path.is_file()]

    def is_held(self) -> bool:
        """Whether a process computes the run: its lock is asked, and no file is made for that."""
        try:
            descriptor = os.open(self.lock, os.O_RDONLY)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # a file system without locks
            return self.holder.is_file()
        finally:
            os.close(descriptor)
        return False

    def require_writable(self) -> None:
        """Raise DiskError before any work if what is there may not be written, the log above all.

        A log that cannot be opened would end a training in the middle.
        """
        with explaining_disk(self.log):
            if self.path.is_dir() and not os.access(self.path, os.W_OK):
                raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(self.path))
            if self.log.exists():
                self.log.open("ab").close()

    def require_no_others(self) -> None:
        """Raise InputError for a folder of other files, which no run is to be mixed with.

        `rerun=true` would move them aside.
        """
        begun = self.config, self.provenance, self.result, self.identity
        if not self.path.is_dir() or any(path.is_file() for path in begun):
            return
        paths = (*vars(self).values(), *self.checkpoints)
        own = {path.name for path in paths if isinstance(path, Path)}
        others = sorted(p.name for p in self.path.iterdir() if p.name not in own)
        if others := [name for name in others if not name.endswith(".partial")]:
            listed = ", ".join(others[:3]) + (", ..." if len(others) > 3 else "")
            raise InputError(
                f"{self} holds no run, and other files: {listed}. Nothing of it is touched. Type "
                "directory= with a new folder, or leave it out."
            )

    def held_by(self) -> str | None:
        """Process and host that compute the run, as they noted themselves."""
        try:
            holder = json.loads(self.holder.read_bytes())
            return json.dumps({"pid": holder["pid"], "host": holder["host"]})
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError):
            return f"unknown: {self.holder} cannot be read"

    @contextmanager
    def claimed(self, waits: bool) -> Iterator[None]:
        """Hold the directory for this process; the system lets go of it if the process dies.

        Args:
            waits: while another process computes the same run, as another job of a sweep does
                whose values come to the same key.

        Raises:
            HeldError: another process holds it, and this one does not wait; names pid and host.
            DiskError: what a run writes has no room, or may not be written there.
        """
        with self._locked(waits):
            self.token = uuid.uuid4().hex
            try:
                with explaining_full_disk(self.path):  # MLflow's, for one, which may be elsewhere
                    process = {"pid": os.getpid(), "host": socket.gethostname()}
                    write_json(self.holder, process | {"token": self.token})
                    identity.renew(self.path, goes_on=not self._is_finished())
                    yield
            finally:
                if self._is_ours():
                    self.holder.unlink(missing_ok=True)
                self.token = None

    def require_held(self) -> None:
        """Raise HeldError if another process has claimed the directory after this one, and
        DiskError if it is there no more.

        It could where file locks do not reach its host. Called before anything is written that the
        other one may have written further.
        """
        if self.token is not None and not self.path.is_dir():
            raise DiskError(
                f"{self} was moved or removed while it was computed. If it was moved, the same "
                "command with study= or output= of its new place goes on from its last checkpoint."
            )
        if self.token is not None and not self._is_ours():
            raise HeldError(
                f"{self} was taken over by another process ({self.held_by() or 'ended by now'}): "
                "file locks do not reach from there to here. This process stops; the other one "
                "goes on from the last checkpoint. Type study=NAME to compute the same run in "
                "another place."
            )

    def _locked(self, waits: bool) -> AbstractContextManager:
        try:
            return acquire(self.lock, timeout=2)  # closing a dead run in MLflow takes it a moment
        except Timeout:
            who = self.held_by() or "starting just now"
            held = f"{self} is being computed by another process ({who})."
        if not waits:
            raise HeldError(
                f"{held} Wait for it, or type study=NAME to compute the same run in another place."
            )
        log.info("%s This job waits for its result.", held)
        return acquire(self.lock)

    def _is_ours(self) -> bool:
        """Whether no other process has written its token since."""
        try:
            return json.loads(self.holder.read_bytes())["token"] == self.token
        except (OSError, ValueError, TypeError, KeyError):
            return False

    def _is_finished(self) -> bool:
        try:
            return read_sealed_json(self.result).get("status") == "finished"
        except DamagedError:
            return False

    def set_aside(self) -> None:
        """Move what an earlier run left into a folder beside it; nothing is deleted."""
        stay = (self.lock, self.mlflow_lock, self.holder, self.log)
        earlier = [path for path in self.path.iterdir() if path not in stay]
        earlier = [path for path in earlier if not path.name.startswith("earlier-")]
        if earlier not in ([], [self.identity]):
            aside = self.path / f"earlier-{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}"
            aside.mkdir()
            for path in earlier:
                shutil.move(path, aside)
            identity.renew(self.path, goes_on=True)  # another run, with a name of its own
