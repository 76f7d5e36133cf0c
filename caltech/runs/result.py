"""What a run came to: written once, sealed, and believed only while it is as it was written."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from caltech.amounts import is_number
from caltech.errors import DamagedError
from caltech.files import read_sealed_json, remove, sealed_json, write_bytes
from caltech.runs import manifest
from caltech.runs.directory import WEIGHTS, RunDirectory
from caltech.runs.progress import Progress

log = logging.getLogger(__name__)

FINISHED, PRUNED = "finished", "pruned"
MAJORITY = "majority/accuracy"
TIMED = {"images_per_second", "ended"}  # of an epoch, and never twice the same


@dataclass(frozen=True)
class Result:
    """Metrics of the last and the best epoch; a pruned run has none of the test part."""

    key: str
    status: str
    last: Mapping[str, float]
    best: Mapping[str, float]
    majority_accuracy: float | None = None  # test accuracy of always the most frequent class
    stopped: str | None = None  # after which epoch and why, if it was finished before its last

    @classmethod
    def of(
        cls,
        key: str,
        progress: Progress,
        tested: Mapping[str, Mapping[str, float]] | None,
        majority_accuracy: float | None = None,
        stopped: str | None = None,
    ) -> "Result":
        """Of a run's epochs and, unless it was pruned, the test of their weights by name."""
        epochs = {"last": len(progress.history), "best": progress.best_epoch}
        measured = {}
        for name in WEIGHTS:
            measured[name] = progress.history[epochs[name] - 1] | dict((tested or {}).get(name, {}))
            for timed in TIMED & set(measured[name]):  # all else is equal when a run is repeated
                del measured[name][timed]
        status = PRUNED if tested is None else FINISHED
        majority = majority_accuracy if tested else None
        return cls(key, status, **measured, majority_accuracy=majority, stopped=stopped)

    @classmethod
    def read(cls, directory: RunDirectory, pruned_too: bool) -> "Result | None":
        """Of a finished run, or of a pruned one if nothing but a pruner would go on.

        One that is damaged, or another run's, is told and not used.
        """
        try:
            if not directory.result.is_file():
                return None
            kept = read_sealed_json(directory.result)
            if directory.manifest.is_file():
                manifest.verify(directory, [directory.result])
            kept["majority_accuracy"] = kept.pop(MAJORITY, None)
            result = cls(**kept)
            result._require_whole()
        except (DamagedError, TypeError) as error:
            said = error if isinstance(error, DamagedError) else f"{directory.result}: {error}"
            log.warning("%s The run counts as one without a result.", said)
            return None
        return None if result.status == PRUNED and not pruned_too else result

    def write(self, directory: RunDirectory, keeps_checkpoint: bool = False) -> None:
        """The run has ended: it needs no checkpoint any more. A pruned one may go on from its last.

        Args:
            keeps_checkpoint: the last one stays, for a run of more epochs to go on from.

        Raises:
            HeldError: another process goes on with the run; nothing is written.
        """
        directory.require_held()
        told = {"key": self.key, "status": self.status, "last": self.last, "best": self.best}
        if self.majority_accuracy is not None:
            told[MAJORITY] = self.majority_accuracy
        if self.stopped is not None:
            told["stopped"] = self.stopped
        content = sealed_json(told)
        manifest.write(directory, self.key, content)
        write_bytes(directory.result, content)
        for path in directory.checkpoints[keeps_checkpoint or self.status == PRUNED :]:
            remove(path)

    def _require_whole(self) -> None:
        """Raise TypeError if a value is of another kind than Result.of gives."""
        measured = ("epoch", "val/loss", "val/accuracy")
        tested = ("test/accuracy",) if self.status == FINISHED else ()
        is_whole = isinstance(self.key, str) and self.status in (FINISHED, PRUNED)
        for metrics in (self.last, self.best):
            is_whole = is_whole and isinstance(metrics, dict)
            is_whole = is_whole and all(is_number(metrics.get(n)) for n in (*measured, *tested))
            is_whole = is_whole and all(isinstance(n, int | float) for n in metrics.values())
        if self.status == FINISHED:
            is_whole = is_whole and is_number(self.majority_accuracy)
        is_whole = is_whole and isinstance(self.stopped, str | None)
        if not is_whole:
            raise TypeError("it has not what the result of a run has.")

    @property
    def objective(self) -> float:
        """What sweeps maximise: the best validation accuracy (top-1) of any epoch."""
        return self.best["val/accuracy"]

    def log(self) -> None:
        """A run's accuracies."""
        if self.status == PRUNED:
            told = self.last["epoch"], self.objective
            log.info("pruned after epoch %d: best validation accuracy %.4f", *told)
            return
        if self.stopped is not None:
            log.info("stopped %s", self.stopped)
        for name, measured in (("last", self.last), ("best", self.best)):
            log.info(
                "%s (epoch %d): validation accuracy %.4f, test accuracy %.4f", name,
                measured["epoch"], measured["val/accuracy"], measured["test/accuracy"],
            )  # fmt: skip
        log.info(
            "for comparison, always the class most frequent in training: %.4f",
            self.majority_accuracy,
        )


def state_of(directories: Iterable[RunDirectory]) -> str:
    """What typing a run's command would find: it is finished, pruned, resumable or new."""
    states = []
    for directory in directories:
        if result := Result.read(directory, pruned_too=True):
            states.append(result.status)
        else:
            states.append("resumable" if directory.checkpoint.is_file() else "new")
    counted = Counter(states)
    return states[0] if len(counted) == 1 else ", ".join(f"{n} {s}" for s, n in counted.items())
