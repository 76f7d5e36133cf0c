"""How far a run is: what its checkpoint holds beside the states of what it trains."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Totals:
    """What an epoch has added up so far: all that is needed, with the weights, to go on with it."""

    steps: int = 0
    images: int = 0
    loss_sum: float = 0.0
    correct: int = 0
    last_loss: float = math.nan

    def plus(self, loss: float, correct: int, images: int) -> "Totals":
        """After one more step with this mean loss."""
        return Totals(
            self.steps + 1,
            self.images + images,
            self.loss_sum + loss * images,
            self.correct + correct,
            loss,
        )


@dataclass(frozen=True)
class Inside:
    """A place inside an epoch: its totals, and the states of torch's random generators."""

    totals: Totals
    generators: Mapping[str, Any]


@dataclass
class Progress:
    """Of one run. A pruned run's history is shorter than the epochs that were asked for."""

    # Metrics of each whole epoch, and when it "ended" in ms since 1970, which is no result.
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0  # by validation accuracy, counted from 1; the earliest of equals
    best_state: dict[str, Tensor] = field(default_factory=dict)  # of what is trained, then
    seconds: float = 0.0
    inside: Inside | None = None  # the epoch after those of the history, if it is begun
    started: int | None = None  # when training began, in ms since 1970; earlier code did not say

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> "Progress":
        """What `plain` gave."""
        progress = cls(**kept)
        if progress.inside is not None:
            totals = Totals(**progress.inside["totals"])
            progress.inside = Inside(totals, progress.inside["generators"])
        return progress

    @property
    def told(self) -> dict[str, Any]:
        """What history.json holds of it."""
        return {"started": self.started, "epochs": self.history}

    def plain(self) -> dict[str, Any]:
        """Values and tensors as a checkpoint holds them; no tensor is copied."""
        inside = None
        if self.inside is not None:
            inside = dict(vars(self.inside), totals=dataclasses.asdict(self.inside.totals))
        return dict(vars(self), inside=inside)
