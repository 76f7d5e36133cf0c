"""How far a run is: what its checkpoint holds beside the states of what it trains."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

# Steps whose numbers may be unread. A CPU has them at once, and no diverged one is gone on from.
UNREAD, UNREAD_ELSEWHERE = {"cpu": 0}, 50


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


class Tally:
    """The totals of an epoch that goes on; its steps' numbers stay on the device until asked for.

    A GPU is told what to do faster than it does it, and whoever reads a number waits until it has
    done everything. They are added in Python, so they are the same bits however seldom read.

    Args:
        totals: of the steps that were made before.
        error: what to raise when the loss of a step is not finite, with the totals up to it.
    """

    def __init__(self, totals: Totals, error: Callable[[Totals], Exception]) -> None:
        self.known = totals  # without the steps that are unread
        self.steps, self.images = totals.steps, totals.images  # with them
        self._error = error
        self._unread: list[tuple[Tensor, Tensor, int]] = []

    def add(self, loss: Tensor, correct: Tensor, images: int) -> None:
        """One more step: its mean loss and its hits, both () on the device; raises as totals."""
        self.steps, self.images = self.steps + 1, self.images + images
        self._unread.append((loss.detach(), correct, images))
        if len(self._unread) > UNREAD.get(loss.device.type, UNREAD_ELSEWHERE):
            self.totals()

    def totals(self) -> Totals:
        """Of all steps so far; raises the error given for the first that is not finite."""
        unread, self._unread = self._unread, []
        if unread:
            losses, hits, images = zip(*unread, strict=True)
            numbers = torch.stack([*losses, *hits]).tolist()
            for step in zip(numbers, map(int, numbers[len(losses) :]), images, strict=False):
                self.known = self.known.plus(*step)
                if not math.isfinite(self.known.last_loss):
                    raise self._error(self.known)
        return self.known


@dataclass(frozen=True)
class Inside:
    """A place inside an epoch: its totals, and the states of torch's random generators."""

    totals: Totals
    generators: Mapping[str, Any]


@dataclass
class Progress:
    """Of one run. Pruned, or stopped by patience, it has fewer epochs than were asked for."""

    # Metrics of each whole epoch, and when it "ended" in ms since 1970, which is no result.
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0  # by validation accuracy, counted from 1; the earliest of equals
    best_state: dict[str, Tensor] = field(default_factory=dict)  # of what is trained, then
    seconds: float = 0.0
    inside: Inside | None = None  # the epoch after those of the history, if it is begun
    started: int | None = None  # when training began, in ms since 1970; earlier code did not say
    origin: Mapping[str, str] | None = None  # of provenance.origin; earlier code did not say

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> "Progress":
        """What `plain` gave."""
        progress = cls(**kept)
        if progress.inside is not None:
            totals = Totals(**progress.inside["totals"])
            progress.inside = Inside(totals, progress.inside["generators"])
        return progress

    def stopped(self, num_epochs: int, patience: int | None) -> str | None:
        """When and why it ends before its last epoch; None if it does not.

        Args:
            patience: epochs without a higher validation accuracy after which it ends.
        """
        epoch = len(self.history)
        if patience is None or epoch >= num_epochs or epoch - self.best_epoch < patience:
            return None
        return (
            f"after epoch {epoch} of {num_epochs}: no higher validation accuracy than that of "
            f"epoch {self.best_epoch} (patience={patience})"
        )

    def is_over(self, num_epochs: int, patience: int | None) -> bool:
        """Whether nothing is left to train."""
        return len(self.history) >= num_epochs or self.stopped(num_epochs, patience) is not None

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
