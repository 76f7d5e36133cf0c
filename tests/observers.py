"""Observers that end a training, as users, kernels and schedulers do, and what a run leaves."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import torch
from omegaconf import DictConfig

from caltech.runs import manifest
from caltech.runs.checkpoint import read_weights
from caltech.runs.directory import RunDirectory
from caltech.training.fit import Observer

KEY = "0123456789"  # of a made-up run
TINY = ["model=timm", "model.name=test_resnet", "model.weights=null", "data.resize=40"]
TINY += ["data.crop=32", "num_epochs=2", "batch_size=8", "lr=0.01"]  # 30 images: 4 steps an epoch


def made_anew(directory: RunDirectory) -> None:
    """After a change that stands for what the run itself might have written."""
    content = directory.result.read_bytes()
    manifest.write(directory, json.loads(content)["key"], content)


class Stopped(BaseException):
    """As a kill: nothing catches it."""


def stop() -> None:
    raise Stopped


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


class Doing(Observer):
    """Does something after the step of that number, or when that many epochs are finished."""

    def __init__(
        self, action: Callable[[], None], at_step: int | None = None, at_epoch: int | None = None
    ) -> None:
        self.action, self.at_step, self.at_epoch, self.steps = action, at_step, at_epoch, 0

    def step(self, totals) -> None:
        self.steps += 1
        if self.steps == self.at_step:
            self.action()

    def epoch(self, history) -> bool:
        if len(history) == self.at_epoch:
            self.action()
        return False


def outcome(cfg: DictConfig) -> tuple[dict, dict, dict]:
    """Result and both models of a finished run."""
    directory = Path(cfg.directory)
    weights = [read_weights(directory / f"{name}.safetensors") for name in ("last", "best")]
    return json.loads((directory / "result.json").read_text()), *weights


def assert_equal(found, expected) -> None:
    """Of two outcomes, bitwise."""
    assert found[0] == expected[0]
    for one, other in zip(found[1:], expected[1:], strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
