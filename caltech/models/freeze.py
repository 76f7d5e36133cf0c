"""Freezing: parts of a classifier that training must not change."""

import hashlib
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from caltech.errors import InputError
from caltech.models import parts
from caltech.models.classifier import Classifier


def freeze(model: Classifier, stages: Iterable[str], size: int | None = None) -> None:
    """Freeze the named stages: no gradient, and eval mode for as long as the model lives.

    Eval mode matters as much as the missing gradient: BatchNorm would go on adapting its
    statistics and dropout would go on dropping in a part that is called frozen.

    Args:
        size: of the images; stages are the same for all.

    Raises:
        InputError: for a stage that does not exist, or if nothing is left to train.
    """
    for name in stages:
        if name not in model.stage_names:
            raise InputError(
                f"freeze.stages has '{name}', which is no stage of a model: "
                f"stages are {', '.join(model.stage_names)}. Type freeze=backbone, for example."
            )
        stage = model.get_submodule(name)
        stage.requires_grad_(False)
        stage.frozen = True
    model.train(model.training)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InputError(
            f"Nothing is left to train with freeze.stages={list(stages)}. Type freeze=backbone "
            "to train the head, or freeze=none to train everything."
        )


def digest(modules: Iterable[nn.Module]) -> str:
    """SHA-256 over every parameter and buffer, to show that frozen means bitwise unchanged."""
    sha = hashlib.sha256()
    for module in modules:
        for name, tensor in module.state_dict().items():
            _add(sha, name, tensor)
    return sha.hexdigest()


def split_frozen(model: Classifier) -> tuple[nn.Sequential, nn.Sequential]:
    """What is frozen first, whose outputs are constants, and the rest, which is trained.

    The first is empty if nothing is, or if a network frozen until a block cannot be cut there.
    """
    if model.cut is not None:
        return parts.before(model, model.cut), parts.after(model, model.cut)
    boundary = next(i for i, stage in enumerate(model) if not stage.frozen)
    return model[:boundary], model if boundary == 0 else model[boundary:]


def frozen_names(model: Classifier) -> set[str]:
    """Of the model's state, what is frozen."""
    stages = tuple(f"{name}." for name in model.stage_names if model.get_submodule(name).frozen)
    names = model.state_dict()
    return {name for name in names if name in model.frozen_names or name.startswith(stages)}


def frozen_digest(model: Classifier) -> str:
    """Hash of all that is frozen, and of nothing else."""
    stages = digest(stage for stage in model if stage.frozen)
    state = model.state_dict()
    sha = hashlib.sha256(stages.encode())
    for name in sorted(model.frozen_names):
        _add(sha, name, state[name])
    return sha.hexdigest()


def _add(sha: Any, name: str, tensor: Tensor) -> None:
    sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
    sha.update(tensor.detach().cpu().contiguous().numpy())
