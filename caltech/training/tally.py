"""What an epoch adds up. The numbers of its steps stay on the device until somebody asks for them.

A GPU is told what to do faster than it does it; reading one number from it waits until it has done
everything that it was told, and then it has nothing to do.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from caltech.runs.progress import Totals

# Steps whose numbers may be unread; a CPU has them at once, and need not go on with a step in vain.
UNREAD = {"cpu": 0}
UNREAD_ELSEWHERE = 50


class Tally:
    """The totals of an epoch that goes on.

    They are added in Python, step by step, so that they are the same bits however seldom read.

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
        """One more step: its mean loss and its hits, both () on the device.

        Raises:
            Exception: the one given, for this step or for one that was unread.
        """
        self.steps, self.images = self.steps + 1, self.images + images
        self._unread.append((loss.detach(), correct, images))
        if len(self._unread) > UNREAD.get(loss.device.type, UNREAD_ELSEWHERE):
            self.totals()

    def totals(self) -> Totals:
        """Of all steps so far, which waits for the device.

        Raises:
            Exception: the one given, for the first step whose loss is not finite.
        """
        unread, self._unread = self._unread, []
        if unread:
            losses, hits, images = zip(*unread, strict=True)
            numbers = torch.stack([*losses, *hits]).tolist()
            for step in zip(numbers, map(int, numbers[len(losses) :]), images, strict=False):
                self.known = self.known.plus(*step)
                if not math.isfinite(self.known.last_loss):
                    raise self._error(self.known)
        return self.known
