"""One tracked training, as a report sees it: its numbers, curves and answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from caltech.calibration import Calibration, calibration

FINISHED = "finished"
PRUNED = "pruned"
RUNNING = "running"
INTERRUPTED = "interrupted"  # nobody computes it, and it goes on if its command is typed
THEN = ", then "  # between what a run was made by and what it went on by
NO_LIBRARIES = ("device", "gpu", "threads", "python")  # of an environment
# All pairs of more rows than these would be too many to read: the best is compared with each.
MOST_ROWS_IN_PAIRS = 10
MEAN_OVER_CLASSES = "test/accuracy_per_class"


@dataclass(frozen=True, eq=False)
class Predictions:
    """Answers on the test images, each (n,): the image, its label, last and best epoch's class."""

    indices: np.ndarray
    labels: np.ndarray
    last: np.ndarray
    best: np.ndarray
    confidences: np.ndarray  # probability of the last epoch's class, to four decimals

    @cached_property
    def correct(self) -> np.ndarray:
        """Whether the last epoch's answer is the label, (n,) bool."""
        return self.last == self.labels

    @cached_property
    def correct_at_best(self) -> np.ndarray:
        """The same of the best epoch's answer."""
        return self.best == self.labels

    @cached_property
    def calibration(self) -> Calibration:
        return calibration(self.confidences, self.correct)


@dataclass(frozen=True)
class Run:
    """One tracked training: one seed of a row."""

    key: str
    point: str  # the key without the seed
    status: str  # finished, pruned, running, failed, killed, interrupted
    reason: str  # why it failed, if that is known
    started: int  # ms since 1970
    params: dict[str, str]
    config: dict[str, Any]  # what decides the result, flat: optimizer.lr
    metrics: dict[str, float]
    history: dict[str, list[float]]  # by epoch
    seconds: float | None
    environment: dict[str, str]
    code: dict[str, str]  # git and sha256
    data: dict[str, Any]  # as Dataset.describe gives; the SHA-256 alone while there are no files
    experiment: str | None
    predictions: Predictions | None = field(default=None, repr=False, compare=False)
    source: str = field(default="", repr=False, compare=False)  # in words, where it was read
    place: str = field(default="", repr=False, compare=False)  # of its study, seen from the page

    @property
    def seed(self) -> int:
        return int(self.params["seed"])

    @property
    def split_seed(self) -> int | None:
        """Of a split by chance."""
        return self.config.get("split.seed")

    @property
    def split(self) -> str:
        """All that is asked of it: runs of one have the same images for the same part."""
        return str(sorted((k, v) for k, v in self.config.items() if k.startswith("split.")))

    @property
    def epochs(self) -> int:
        """How many epochs were told of."""
        return len(self.history["val/accuracy"])

    @property
    def tested(self) -> tuple[str, bytes]:
        """Which images the answers are of."""
        return self.data["sha256"], self.predictions.indices.tobytes()

    def images(self, part: str) -> int | None:
        """Of the train, validation or test part."""
        return self.data.get("images", {}).get(part)

    def number(self, name: str) -> float | None:
        """A final metric, the last epoch's value, or the seconds; None for what was not told."""
        last = {name: values[-1] for name, values in self.history.items() if values}
        return (last | {"seconds": self.seconds} | self.metrics).get(name)

    @property
    def state(self) -> str:
        """What became of it, or how far it is."""
        if self.status in (PRUNED, INTERRUPTED):
            return f"{self.status} after epoch {self.epochs}"
        if self.status == RUNNING:
            return f"running, epoch {self.epochs} of {self.asked}"
        return self.status

    @property
    def stopped(self) -> str:
        """After which epoch and by what it was finished before its last; empty if it was not."""
        patience = self.config.get("patience")
        if self.status != FINISHED or patience is None or self.epochs == self.asked:
            return ""
        return f"after epoch {self.epochs} of {self.asked} (patience={patience})"

    @property
    def asked(self) -> int:
        """How many epochs it was to have."""
        return int(self.params["num_epochs"])

    @property
    def version(self) -> str:
        """Of the code."""
        digests = [each[:8] for each in self.code["sha256"].split(THEN)]
        return f"{self.code['git']} ({THEN.join(digests)})"

    @property
    def versions(self) -> dict[str, str]:
        """Of the libraries that it was made with; where it was made is a column of its own."""
        return {k: v for k, v in self.environment.items() if k not in NO_LIBRARIES}

    def class_name(self, number: int) -> str:
        return self.data["classes"][number]


def flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Nested keys joined by dots; lists are values, and so are mappings of nothing."""
    leaves: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            leaves |= {f"{name}.{inner}": leaf for inner, leaf in flat(value).items()}
        else:
            leaves[name] = value
    return leaves


def nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """What flat made of it, as it was."""
    config: dict[str, Any] = {}
    for name, value in leaves.items():
        *groups, leaf = name.split(".")
        place = config
        for group in groups:
            place = place.setdefault(group, {})
        place[leaf] = value
    return config
