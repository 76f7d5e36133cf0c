"""Learning rates by epoch, against what torch or a formula gives."""

import math

import pytest
import torch
from torch import nn

from caltech.config import build
from caltech.errors import InputError
from caltech.settings import CONF
from caltech.training.optimizers import arguments_of


def rates(configure, *overrides: str) -> list[float]:
    cfg = configure(*overrides)
    optimizer = build(arguments_of(cfg.optimizer), [nn.Parameter(torch.ones(2))])
    schedule = build(cfg.schedule, optimizer)
    seen = []
    for _ in range(cfg.num_epochs):
        seen.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return seen


def test_options(configure):
    options = sorted(path.stem for path in (CONF / "schedule").glob("*.yaml"))
    assert options == ["constant", "cosine", "step"]
    assert rates(configure, "schedule=constant", "num_epochs=3", "lr=0.5") == [0.5] * 3
    step = rates(configure, "schedule=step", "num_epochs=5", "step_size=2", "gamma=0.1", "lr=1")
    assert step == pytest.approx([1, 1, 0.1, 0.1, 0.01])
    cosine = rates(configure, "schedule=cosine", "num_epochs=6", "schedule.warmup_epochs=2", "lr=1")
    expected = [1 / 3, 2 / 3] + [0.5 * (1 + math.cos(math.pi * k / 4)) for k in range(4)]
    assert cosine == pytest.approx(expected)


def test_cosine_refuses_a_warmup_as_long_as_the_run(configure):
    with pytest.raises(InputError, match=r"warmup_epochs=1 .* num_epochs=1"):
        rates(configure, "schedule=cosine", "num_epochs=1")
