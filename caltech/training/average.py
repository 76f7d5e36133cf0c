"""Whose weights are validated, tested and kept: the last step's, or a mean over the steps."""

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from caltech.amounts import is_number
from caltech.errors import InputError
from caltech.models.classifier import load_state

log = logging.getLogger(__name__)


class Last:
    """The weights as the last step left them; what the loop asks of any average."""

    def __init__(self, model: nn.Module) -> None:
        """Nothing of it is kept."""

    def update(self) -> None:
        """After a step: there is nothing to do."""

    def end_epoch(self) -> None:
        """After the last step of an epoch: there is nothing to do."""

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Nothing is exchanged."""
        yield

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass

    def end(self) -> None:
        """After the last epoch: there is nothing to say."""


class Mean(Last):
    """A mean of weights and of BatchNorm's statistics, at the model's precision and on its device.

    Integer buffers (BatchNorm's count of batches) are the model's last ones: torch's AveragedModel
    averages them. What is not trained stays as it is, bitwise.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.state = _copy(model)
        # All tensors of a kind are one call on a GPU, and one of Python's on a CPU.
        present = model.state_dict()
        moving = [name for name, value in present.items() if value.is_floating_point()]
        self._moving = [[state[name] for name in moving] for state in (self.state, present)]
        counted = [name for name in present if name not in moving]
        self._counted = [[state[name] for name in counted] for state in (self.state, present)]

    @torch.no_grad()
    def move(self, share: float) -> None:
        """Towards the model's present weights, by a share of the way."""
        torch._foreach_lerp_(*self._moving, share)
        if self._counted[0]:
            torch._foreach_copy_(*self._counted)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model is the average inside, and bitwise what it was after."""
        present = _copy(self.model)
        load_state(self.model, self.state)
        try:
            yield
        finally:
            load_state(self.model, present)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, value in state["state"].items():
            self.state[name].copy_(value)


class MovingAverage(Mean):
    """The exponential moving average of weights and of BatchNorm's statistics over the steps.

    After step t (from 1) the average moves to the model by the share 1 - min(decay, t / (9 + t)):
    early steps are forgotten sooner, so that it does not hang on where training began.

    Sources: Polyak and Juditsky, SIAM J. Control Optim. 1992; the warm-up is that of TensorFlow's
    ExponentialMovingAverage and of timm's ModelEmaV3.

    Args:
        model: whose state is averaged, on its device and at its precision.
        decay: how much of the average a step keeps, at least 0 and below 1; it reaches over about
            1 / (1 - decay) steps.

    Raises:
        InputError: decay is no such share.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0 <= decay < 1:
            raise InputError(
                f"average.decay={decay} is not allowed: it is the share of the average that a step "
                "keeps, at least 0 and below 1, for example average.decay=0.99."
            )
        super().__init__(model)
        self.decay = decay
        self.steps = 0

    def update(self) -> None:
        """Move towards the model's present weights, after a step of the optimizer."""
        self.steps += 1
        self.move(1 - min(self.decay, self.steps / (9 + self.steps)))

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "state": self.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        super().load_state_dict(state)


class StochasticWeightAverage(Mean):
    """The equal mean of the weights at the ends of the last epochs (Izmailov et al., UAI 2018).

    Until the first of them, the model's own weights are validated. BatchNorm's statistics are
    averaged as the weights are, which is torch's AveragedModel with use_buffers=True. The paper
    computes them anew for the mean weights, by one more pass over the training images.

    Args:
        model: whose state is averaged.
        start: share of the epochs after which averaging begins, at least 0 and below 1.
        num_epochs: of the training.

    Raises:
        InputError: start is no such share, or there are no such epochs.
    """

    def __init__(self, model: nn.Module, start: float, num_epochs: int) -> None:
        if not (is_number(start) and 0 <= start < 1):
            raise InputError(
                f"average.start={start} is not allowed: it is the share of the epochs after which "
                "averaging begins, at least 0 and below 1, for example average.start=0.75."
            )
        if not (isinstance(num_epochs, int) and num_epochs >= 1):
            raise InputError(
                f"average.num_epochs={num_epochs} is not allowed: it is how many epochs are "
                "trained. Leave it out."
            )
        super().__init__(model)
        # A share of 0.29 is 29 epochs of 100, and not the 28.999... that their product is.
        self.epochs_before = math.floor(start * num_epochs + 1e-9)
        self.epochs = 0

    @property
    def averaged(self) -> int:
        """Epochs that are in the mean."""
        return max(0, self.epochs - self.epochs_before)

    def end_epoch(self) -> None:
        """Take the model's present weights into the mean, if it has begun."""
        self.epochs += 1
        if self.averaged > 0:
            self.move(1 / self.averaged)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model is the mean inside, once there is one, and bitwise what it was after."""
        with super().applied() if self.averaged > 0 else nullcontext():
            yield

    def end(self) -> None:
        """Say so if the training ended before the mean began, as patience may have it."""
        if self.averaged == 0:
            log.warning(
                "Nothing was averaged: the mean begins with epoch %d, and the last was %d. What is "
                "tested are the weights as they were trained. Type a smaller average.start.",
                self.epochs_before + 1,
                self.epochs,
            )

    def state_dict(self) -> dict[str, Any]:
        return {"epochs": self.epochs, "state": self.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epochs = state["epochs"]
        super().load_state_dict(state)


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
