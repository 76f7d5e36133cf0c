"""Freezing: parts of a classifier that training must not change."""

import hashlib
from collections.abc import Iterable

from torch import nn

from caltech.errors import InputError
from caltech.models.classifier import Classifier


def freeze(model: Classifier, stages: Iterable[str]) -> None:
    """Freeze the named stages: no gradient, and eval mode for as long as the model lives.

    Eval mode matters as much as the missing gradient: BatchNorm would go on adapting its
    statistics and dropout would go on dropping in a part that is called frozen.

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
            sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            sha.update(tensor.detach().cpu().contiguous().numpy())
    return sha.hexdigest()


def split_frozen(model: Classifier) -> tuple[Classifier, Classifier]:
    """The leading frozen stages, whose outputs are constants, and the rest, which is trained."""
    boundary = next(i for i, stage in enumerate(model) if not stage.frozen)
    return model[:boundary], model[boundary:]


def frozen_digest(model: Classifier) -> str:
    """Hash of the frozen stages alone."""
    return digest(stage for stage in model if stage.frozen)
