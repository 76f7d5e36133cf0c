"""What a run's directory notes for stores: how far each was told, and how its process ended.

mlflow.json is {"id": the run's, "stores": {a store's name: {"run_id": MLflow's, "described": sum of
parameters and tags, "former": how many epochs earlier code told, "epochs": how many were told,
"status": in MLflow's words}}}. One with another id came with a copied directory, and is not this
run's. ended.json is there while a run has stopped without a result: {"status", "reason", "ended":
ms since 1970}. Both are sealed.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace

from filelock import FileLock, Timeout

from caltech.errors import DamagedError, StoreError
from caltech.files import read_sealed_json, write_sealed_json
from caltech.runs.directory import RunDirectory

log = logging.getLogger(__name__)


@dataclass
class Told:
    """How far one store was told."""

    run_id: str
    described: str = ""
    former: int = 0
    epochs: int = 0
    status: str = ""


@dataclass
class Note:
    """What all stores were told of one run."""

    id: str
    stores: dict[str, Told] = field(default_factory=dict)

    @classmethod
    def read(cls, directory: RunDirectory, run_id: str) -> "Note":
        """Empty if there is none, it is another run's, or it cannot be read: then all is told
        again, which a store takes as once."""
        try:
            if directory.mlflow.is_file():
                kept = read_sealed_json(directory.mlflow)
                stores = {name: Told(**told) for name, told in kept["stores"].items()}
                return cls(run_id, stores if kept["id"] == run_id else {})
        except (DamagedError, KeyError, TypeError, AttributeError) as error:
            log.warning("%s is not used: %s", directory.mlflow, error)
        return cls(run_id)

    def told(self, run_id: str) -> Told:
        """Of the store whose run has this id of MLflow's: it may have moved since it was told."""
        known = (each for each in self.stores.values() if each.run_id == run_id)
        return replace(next(known, Told(run_id)))

    def write(self, directory: RunDirectory) -> None:
        write_sealed_json(directory.mlflow, asdict(self))


@dataclass(frozen=True)
class End:
    """A run's process ended without a result: as MLflow calls that, why, when in ms since 1970."""

    status: str
    reason: str
    ended: int

    @classmethod
    def read(cls, directory: RunDirectory) -> "End | None":
        """None if the run goes on, is finished, or ended without a word."""
        if not directory.ended.is_file():
            return None
        try:
            return cls(**read_sealed_json(directory.ended))
        except (DamagedError, TypeError) as error:
            log.warning("%s is not used: %s", directory.ended, error)
            return None

    def write(self, directory: RunDirectory) -> None:
        write_sealed_json(directory.ended, asdict(self))


@contextmanager
def noting(directory: RunDirectory, seconds: float) -> Iterator[None]:
    """Be the only process that tells stores of a run and notes it.

    It is not the run's own lock: nobody who trains waits for a slow store.

    Raises:
        StoreError: another process does so for longer than this.
    """
    try:
        with FileLock(directory.mlflow_lock, timeout=seconds):
            yield
    except Timeout as error:
        raise StoreError(f"another process tells it of {directory} just now") from error
