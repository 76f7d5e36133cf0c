"""Learning-rate schedules, stepped once per epoch. `schedule=step` is torch's own StepLR."""

import math
from collections.abc import Callable

import torch
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from caltech.errors import InputError


def constant(optimizer: Optimizer) -> LambdaLR:
    """The optimizer's learning rate throughout."""
    return LambdaLR(optimizer, lambda epoch: 1.0)


def cosine(optimizer: Optimizer, num_epochs: int, warmup_epochs: int) -> LambdaLR:
    """Linear warm-up over `warmup_epochs`, then half a cosine that would reach 0 at `num_epochs`.

    In closed form, so a resumed run has exactly the rates of an uninterrupted one.
    Source: Loshchilov and Hutter, SGDR, ICLR 2017, without restarts.
    """
    if not 0 <= warmup_epochs < num_epochs:
        raise InputError(
            f"schedule.warmup_epochs={warmup_epochs} is not allowed with num_epochs={num_epochs}: "
            "it must be at least 0 and less than num_epochs, for example schedule.warmup_epochs=0."
        )

    def factor(epoch: int) -> float:
        if epoch < warmup_epochs:
            return (epoch + 1) / (warmup_epochs + 1)
        progress = (epoch - warmup_epochs) / (num_epochs - warmup_epochs)
        return 0.5 * (1 + math.cos(math.pi * progress))

    return LambdaLR(optimizer, factor)


def require_steps(build: Callable[[Optimizer], LambdaLR], num_epochs: int) -> None:
    """Walk a schedule of a throwaway optimizer through the epochs (1000 at most) before any work.

    Raises:
        InputError: a step fails, which a run would only find out after that epoch.
    """
    optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=1.0, momentum=0.5)
    schedule = build(optimizer)
    try:
        for _ in range(min(num_epochs, 1000)):
            optimizer.step()
            schedule.step()
    except (ArithmeticError, TypeError, ValueError) as error:
        raise InputError(
            f"The schedule cannot be stepped once per epoch: {error}. Type schedule=step, "
            "schedule=cosine or schedule=constant, or --cfg job to see its values."
        ) from error
