"""Freezing: parts of a classifier that training must not change."""

import copy
import hashlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

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


@torch.no_grad()
def folded(frozen: nn.Module, size: int) -> nn.Module:
    """A copy in which each BatchNorm is part of the convolution that feeds it: fewer passes.

    The outputs are the same up to rounding (a relative error of 2.4e-6 with EfficientNet-Lite0).
    Which convolution feeds which BatchNorm is seen in a forward pass, and the outputs of one image
    are compared, both in float32 on the CPU. Without such a pair it is `frozen` itself.

    Source: Jacob et al., CVPR 2018, section 3.2.

    Args:
        size: of the images, in pixels.

    Raises:
        InputError: the copy gives other outputs, as where something else reads a convolution, too.
    """
    copied = copy.deepcopy(frozen).cpu().float().eval()
    image = (torch.arange(3 * size * size) * 37 % 251).to(torch.uint8).view(1, 3, size, size)
    pairs, expected = _fed_by_convolutions(copied, image)
    if not pairs:
        return frozen
    names = {module: name for name, module in copied.named_modules()}
    for convolution, norm in pairs:
        copied.set_submodule(names[convolution], fuse_conv_bn_eval(convolution, norm))
        # timm's has dropout and activation within.
        rest = [getattr(norm, name) for name in ("drop", "act") if hasattr(norm, name)]
        copied.set_submodule(names[norm], nn.Sequential(*rest))
    difference = (copied(image).float() - expected.float()).norm()
    tolerance = 1e-4 if expected.dtype is torch.float32 else 1e-2
    if not difference <= tolerance * expected.float().norm():
        raise InputError(
            "features=folded is not possible with this model: with BatchNorm folded into its "
            "convolutions it gives other outputs. Type features=auto."
        )
    device = next(frozen.parameters()).device
    return copied.to(device, memory_format=torch.channels_last)


def _fed_by_convolutions(
    network: nn.Module, image: Tensor
) -> tuple[list[tuple[nn.Conv2d, nn.BatchNorm2d]], Tensor]:
    """Each convolution with the BatchNorm that reads what it gives, both run once; the output."""
    given: dict[int, tuple[nn.Module, Tensor, int]] = {}  # with the tensor: no id is used twice
    runs: list[nn.Module] = []
    pairs = []

    def made(module: nn.Module, _: Any, output: Tensor) -> None:
        runs.append(module)
        given[id(output)] = module, output, output._version

    def reads(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        runs.append(module)
        convolution, output, version = given.get(id(inputs[0]), (None, inputs[0], -1))
        if output._version == version:  # else an activation has changed it in place
            pairs.append((convolution, module))

    hooks = []
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            hooks.append(module.register_forward_hook(made))
        elif isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            hooks.append(module.register_forward_pre_hook(reads))
    output = network(image)
    for hook in hooks:
        hook.remove()
    return [pair for pair in pairs if all(runs.count(module) == 1 for module in pair)], output


def frozen_names(model: Classifier) -> set[str]:
    """Of the model's state, what is frozen."""
    stages = tuple(f"{name}." for name in model.stage_names if model.get_submodule(name).frozen)
    names = model.state_dict()
    return {name for name in names if name in model.frozen_names or name.startswith(stages)}


def frozen_digest(model: Classifier) -> str:
    """Hash of all that is frozen, and of nothing else."""
    sha, state = hashlib.sha256(), model.state_dict()
    for name in sorted(frozen_names(model)):
        _add(sha, name, state[name])
    return sha.hexdigest()


def _add(sha: Any, name: str, tensor: Tensor) -> None:
    sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
    sha.update(tensor.detach().cpu().contiguous().numpy())
