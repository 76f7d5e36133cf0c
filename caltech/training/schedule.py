"""Learning-rate schedules, stepped once per epoch. `schedule=step` is torch's own StepLR."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

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


def first_difference(
    short: Callable[[Optimizer], Any],
    long: Callable[[Optimizer], Any],
    groups: Sequence[Mapping[str, Any]],
    epochs: int,
    num_epochs: int,
) -> tuple[int, float, float] | None:
    """Where a run that goes on after `epochs` has other rates than one of `num_epochs` at once.

    Both are walked with throwaway optimizers, and the state goes from one schedule to the other as
    a checkpoint carries it: no schedule is believed by its name.

    Args:
        short, long: build the schedule of the first epochs, and that of all.
        groups: of the optimizer, as it was built.

    Returns:
        The first such epoch, from 1, and its learning rates of both; None if all is equal.
    """
    joined = _joined(short, long, groups, epochs, num_epochs)
    for epoch, other in enumerate(_walked(*_begun(long, groups), num_epochs), 1):
        try:
            one = next(joined)
        except (ArithmeticError, TypeError, ValueError):  # it is at its end
            return epoch, math.nan, other[0]["lr"]
        if one != other:
            return epoch, one[0]["lr"], other[0]["lr"]
    return None


def _joined(
    short: Callable[[Optimizer], Any],
    long: Callable[[Optimizer], Any],
    groups: Sequence[Mapping[str, Any]],
    epochs: int,
    num_epochs: int,
) -> Iterator[list[dict[str, Any]]]:
    optimizer, schedule = _begun(short, groups)
    yield from _walked(optimizer, schedule, epochs)
    states = optimizer.state_dict(), schedule.state_dict()
    optimizer, schedule = _begun(long, groups)
    optimizer.load_state_dict(states[0])
    schedule.load_state_dict(states[1])
    yield from _walked(optimizer, schedule, num_epochs - epochs)


def _begun(build: Callable[[Optimizer], Any], groups: Sequence[Mapping[str, Any]]) -> tuple:
    rates = [group.get("initial_lr", group["lr"]) for group in groups]
    weights = [{"params": [torch.zeros(1, requires_grad=True)], "lr": rate} for rate in rates]
    optimizer = SGD(weights, lr=1.0, momentum=0.5)
    return optimizer, build(optimizer)


def _walked(optimizer: Optimizer, schedule: Any, epochs: int) -> Iterator[list[dict[str, Any]]]:
    """Of each epoch what its groups have but their weights: a schedule may change any of it."""
    for _ in range(epochs):
        groups = optimizer.param_groups
        yield [{k: v for k, v in group.items() if k != "params"} for group in groups]
        optimizer.step()
        schedule.step()
