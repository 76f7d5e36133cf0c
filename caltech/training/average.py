"""Whose weights are validated, tested and kept: the last step's, or a mean over the steps."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from caltech.errors import InputError


class Last:
    """The weights as the last step left them; what the loop asks of any average."""

    def __init__(self, model: nn.Module) -> None:
        """Nothing of it is kept."""

    def update(self) -> None:
        """After a step: there is nothing to do."""

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Nothing is exchanged."""
        yield

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class MovingAverage(Last):
    """The exponential moving average of weights and of BatchNorm's statistics over the steps.

    After step t (from 1) the average moves to the model by the share 1 - min(decay, t / (9 + t)):
    early steps are forgotten sooner, so that it does not hang on where training began. Integer
    buffers are the model's. What does not train stays bitwise, which torch's own AveragedModel
    does not keep of integer buffers.

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
        self.model = model
        self.decay = decay
        self.steps = 0
        self.state = _copy(model)
        # All tensors of a kind are one call on a GPU, and one of Python's on a CPU.
        present = model.state_dict()
        moving = [name for name, value in present.items() if value.is_floating_point()]
        self._moving = [[state[name] for name in moving] for state in (self.state, present)]
        counted = [name for name in present if name not in moving]
        self._counted = [[state[name] for name in counted] for state in (self.state, present)]

    @torch.no_grad()
    def update(self) -> None:
        """Move towards the model's present weights, after a step of the optimizer."""
        self.steps += 1
        share = 1 - min(self.decay, self.steps / (9 + self.steps))
        torch._foreach_lerp_(*self._moving, share)
        if self._counted[0]:
            torch._foreach_copy_(*self._counted)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model is the average inside, and bitwise what it was after."""
        present = _copy(self.model)
        self.model.load_state_dict(self.state)
        try:
            yield
        finally:
            self.model.load_state_dict(present)

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "state": self.state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        for name, value in state["state"].items():
            self.state[name].copy_(value)


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
