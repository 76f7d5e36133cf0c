"""A run's directory: what its files are called, and one process at a time."""

import logging
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from caltech.errors import HeldError
from caltech.files import explaining_full_disk, write_json
from caltech.runs import identity

log = logging.getLogger(__name__)

WEIGHTS = ("last", "best")  # of which epochs weights and predictions are kept


class RunDirectory:
    """The files of one run, each named here and nowhere else."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.provenance = self.path / "provenance.json"
        self.data = self.path / "data.json"
        self.timing = self.path / "timing.json"
        self.result = self.path / "result.json"
        self.checkpoint = self.path / "checkpoint.pt"
        self.log = self.path / "train.log"
        self.lock = self.path / "run.lock"
        self.holder = self.path / "holder.json"
        self.identity = self.path / identity.NAME
        self.history = self.path / "history.json"
        self.manifest = self.path / "manifest.json"
        self.mlflow = self.path / "mlflow.json"
        self.mlflow_run_id = self.path / "mlflow_run_id"  # the note of earlier code

    def __str__(self) -> str:
        return str(self.path)

    @property
    def id(self) -> str | None:
        """Who this run is, at random; None of a run of earlier code, or if nothing is begun."""
        known = identity.read(self.path)
        return known.id if known else None

    def weights(self, name: str) -> Path:
        """A complete model of the `last` or the `best` epoch."""
        return self.path / f"{name}.safetensors"

    def predictions(self, name: str) -> Path:
        """Its answers on the test images."""
        return self.path / f"predictions_{name}.npz"

    def artifacts(self) -> list[Path]:
        """What the tracker keeps; a report needs nothing else. A pruned run has fewer files."""
        files = [self.config, self.provenance, self.data, self.timing]
        files += [*map(self.predictions, WEIGHTS), self.weights("best")]
        return [path for path in files if path.is_file()]

    def held_by(self) -> str | None:
        """Process and host that compute the run, as they noted themselves."""
        return " ".join(self.holder.read_text().split()) if self.holder.is_file() else None

    @contextmanager
    def claimed(self, waits: bool) -> Iterator[None]:
        """Hold the directory for this process; the system lets go of it if the process dies.

        Args:
            waits: while another process computes the same run, as another job of a sweep does
                whose values come to the same key.

        Raises:
            HeldError: another process holds it, and this one does not wait; names pid and host.
            DiskError: what a run writes has no room.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.lock)
        try:
            lock.acquire(timeout=2)  # closing a dead run in MLflow takes the lock for a moment
        except Timeout:
            who = self.held_by() or "starting just now"
            held = f"{self} is being computed by another process ({who})."
            if not waits:
                raise HeldError(
                    f"{held} Wait for it, or type study=NAME to compute the same run in another "
                    "place."
                ) from None
            log.info("%s This job waits for its result.", held)
            lock.acquire()
        try:
            with explaining_full_disk(self.path):  # MLflow's, for one, which may be elsewhere
                write_json(self.holder, {"pid": os.getpid(), "host": socket.gethostname()})
                identity.renew(self.path, goes_on=not self.result.is_file())
                yield
        finally:
            self.holder.unlink(missing_ok=True)
            lock.release()

    def set_aside(self) -> None:
        """Move what an earlier run left into a folder beside it; nothing is deleted."""
        stay = (self.lock, self.holder, self.log)
        earlier = [path for path in self.path.iterdir() if path not in stay]
        earlier = [path for path in earlier if not path.name.startswith("earlier-")]
        if earlier not in ([], [self.identity]):
            aside = self.path / f"earlier-{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}"
            aside.mkdir()
            for path in earlier:
                shutil.move(path, aside)
            identity.renew(self.path, goes_on=True)  # another run, with a name of its own
