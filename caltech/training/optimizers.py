"""Any optimizer of torch.optim or timm.optim by its name, and which weights learn at which rate."""

import inspect
import logging
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import chain
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn
from torch.optim import Optimizer

from caltech import plugins
from caltech.amounts import is_number
from caltech.config import build
from caltech.errors import InputError
from caltech.keys import ADDED
from caltech.models.blocks import blocks_of
from caltech.models.classifier import Classifier
from caltech.models.names import require_known
from caltech.settings import CONF
from caltech.training.device import begun, fused

log = logging.getLogger(__name__)

# Keys of the group optimizer that are no arguments of what it calls: what they may be, an example.
RULES: dict[str, tuple[Callable[[Any], bool], str, str]] = {
    "backbone_lr": (lambda v: is_number(v) and 0 < v < math.inf,
        "it is a positive factor of the head's learning rate", "0.1"),
    "layer_decay": (lambda v: is_number(v) and 0 < v <= 1,
        "it is a factor for each block that is further from the head, above 0 and at most 1",
        "0.75"),
    "norm_decay": (lambda v: isinstance(v, bool),
        "it is true, or false for no weight decay of norms and biases", "false"),
}  # fmt: skip


def torch_optimizer(
    params: Iterable, name: str, lr: float, momentum: float, weight_decay: float, **others: Any
) -> Optimizer:
    """Of torch.optim: name=RAdam.

    Args:
        momentum: also the first of the betas of an optimizer that has these; of one that has
            neither, or no weight_decay, only the value of conf/train.yaml is let pass.
        others: further arguments of it.

    Raises:
        InputError: there is none of that name, or it does not take what was typed.
    """
    classes = {
        each: kind
        for each, kind in vars(torch.optim).items()
        if isinstance(kind, type) and issubclass(kind, Optimizer) and kind is not Optimizer
    }
    require_known("optimizer.name", name, list(classes))
    return _made(classes[name], params, name, lr, momentum, weight_decay, others)


def timm_optimizer(
    params: Iterable, name: str, lr: float, momentum: float, weight_decay: float, **others: Any
) -> Optimizer:
    """Of timm.optim, by timm's own names (timm.optim.list_optimizers): name=lamb.

    Args, Raises: as of torch_optimizer.
    """
    from timm.optim import get_optimizer_class, list_optimizers

    require_known("optimizer.name", name, list_optimizers())
    create = get_optimizer_class(name, bind_defaults=True)
    return _made(create, params, name, lr, momentum, weight_decay, others)


def _made(
    create: Callable[..., Optimizer],
    params: Iterable,
    name: str,
    lr: float,
    momentum: float,
    weight_decay: float,
    others: Mapping[str, Any],
) -> Optimizer:
    bound = create.keywords if isinstance(create, partial) else {}
    taken = inspect.signature(create).parameters
    is_open = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in taken.values())
    asked: dict[str, Any] = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
    given = {key: value for key, value in asked.items() if key in taken and key not in bound}
    betas = taken.get("betas")
    usual_betas = bound.get("betas") or (betas.default if betas else None)  # Adafactor's are None
    if "momentum" not in given and isinstance(usual_betas, tuple | list):
        given["betas"] = (momentum, *usual_betas[1:])
    usual = OmegaConf.load(CONF / "train.yaml")
    used = {*given, *(["momentum"] if "betas" in given else [])}
    wrong = {key: value for key, value in asked.items() if key not in used and value != usual[key]}
    wrong |= {key: value for key, value in others.items() if key not in taken and not is_open}
    if wrong:
        names = [each for each in taken if each not in ("params", "foreach", "fused")]
        raise InputError(
            f"The optimizer {name} takes no {' and no '.join(wrong)}: it has {', '.join(names)}. "
            f"Leave {' and '.join(f'{key}={value}' for key, value in wrong.items())} out, or type "
            "another optimizer."
        )
    create = partial(create, **given, **others)
    _require_step(create, name)
    return create(params)


def _require_step(create: Callable[..., Optimizer], name: str) -> None:
    """Raise InputError for one that wants more than a gradient: a closure, a second derivative."""
    weight = torch.ones(2, 2, requires_grad=True)
    weight.grad = torch.ones(2, 2)
    try:
        create([{"params": [weight]}]).step()
    except Exception as error:  # some libraries' own
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"The optimizer {name} cannot be stepped here: {said}. Type another one."
        ) from error


def optimizer_of(
    option: DictConfig,
    trainable: nn.Module,
    depths: Callable[[], Mapping[str, int]],
    device: torch.device,
) -> Optimizer:
    """The optimizer of what is not frozen, in groups of one rate and decay, the head's first.

    A weight's rate is lr, times backbone_lr if it is below the head, times layer_decay once for
    each block from its own to the last one. With norm_decay=false, tensors of one dimension (of
    norms, biases) have no weight decay. All neutral is one group, as torch makes it.

    Source: layer_decay is the rule of BEiT (Bao et al., ICLR 2022) as timm has it, with what
    models/blocks.py finds as its layers.

    Args:
        depths: gives for each parameter the blocks from its own to the last; asked if that matters.

    Raises:
        InputError: a value is not allowed, or the optimizer does not fit its values.
    """
    rules = {name: option.get(name, ADDED[f"optimizer.{name}"][1]) for name in RULES}
    for name, (allows, rule, example) in RULES.items():
        if not allows(rules[name]):
            raise InputError(
                f"optimizer.{name}={rules[name]} is not allowed: {rule}. "
                f"Type optimizer.{name}={example}."
            )
    arguments, groups = arguments_of(option), _grouped(trainable, depths, **rules)
    parameters = [{"params": each} for each in groups.values()]
    optimizer = build(arguments, [dict(each) for each in parameters])  # torch writes into them
    if plugins.adds(str(option.get("_target_"))):
        _require_step(partial(build, arguments), option._target_)
        if _has_groups_of_its_own(optimizer, groups, option._target_):
            return optimizer
    if fused(optimizer, arguments, device):
        optimizer = begun(build(arguments, parameters, fused=True))
    for (is_below, depth, decays), group in zip(groups, optimizer.param_groups, strict=True):
        group["lr"] *= rules["layer_decay"] ** depth * (rules["backbone_lr"] if is_below else 1)
        if not decays:
            group["weight_decay"] = 0.0
        if len(groups) > 1:
            group["name"] = _name(rules, is_below, depth, decays)
    return optimizer


def _has_groups_of_its_own(optimizer: Optimizer, groups: Mapping, target: str) -> bool:
    """Whether a plugin's optimizer has other groups than it was given, which are left as they are.

    Raises:
        InputError: it is none of torch's, it leaves weights out, or our rules ask for their groups.
    """
    if not isinstance(optimizer, Optimizer):
        raise InputError(f"{target} gives a {type(optimizer).__name__}, no torch.optim.Optimizer.")
    own = [[*map(id, group["params"])] for group in optimizer.param_groups]
    given = [[*map(id, weights)] for weights in groups.values()]
    if own == given:
        return False
    trained, all_of_them = ({*chain.from_iterable(each)} for each in (own, given))
    if trained != all_of_them:
        raise InputError(
            f"{target} trains {len(trained & all_of_them)} of the {len(all_of_them)} tensors that "
            "it is given. It is to train all; freeze= is where some are left out."
        )
    if [*groups] != [(False, 0, True)]:
        raise InputError(
            f"{target} makes {len(own)} groups of its own of {len(given)} that it is given, and "
            f"{', '.join(RULES)} are of those. Leave these three out."
        )
    return True


def arguments_of(option: DictConfig) -> DictConfig:
    """Of the group optimizer, what its target is called with."""
    values = OmegaConf.to_container(option, resolve=True)
    own = {name: value for name, value in values.items() if name not in RULES}
    return OmegaConf.create({"optimizer": own}).optimizer  # by its name a plugin's is checked


def depths(model: Classifier, size: int) -> dict[str, int]:
    """For each parameter of a model, the blocks from its own to the last one: 0 for the last layer.

    What is in no block (a transformer's tokens and positions) is as far as the first block.
    """
    blocks = blocks_of(model, size)
    last = len(blocks) - 1
    found = {name: last for name, _ in model.named_parameters()}
    for number, block in enumerate(blocks):
        for module in block.modules:
            for name, _ in model.get_submodule(module).named_parameters():
                found[f"{module}.{name}"] = last - number
    return found


def describe(optimizer: Optimizer) -> list[dict[str, Any]]:
    """Of each group its name, tensors, weights, learning rate at the start and weight decay."""
    return [
        {
            "name": group["name"],
            "tensors": len(group["params"]),
            "weights": sum(parameter.numel() for parameter in group["params"]),
            "lr": group.get("initial_lr", group["lr"]),
            "weight_decay": group.get("weight_decay", 0.0),
        }
        for group in optimizer.param_groups
        if "name" in group
    ]


def log_groups(groups: list[dict[str, Any]]) -> None:
    """A line each."""
    for group in groups:
        log.info(
            "lr %.3g  weight decay %.3g  %s (%d tensors, %s weights)", group["lr"],
            group["weight_decay"], group["name"], group["tensors"], f"{group['weights']:,}",
        )  # fmt: skip


def _grouped(
    trainable: nn.Module,
    depths: Callable[[], Mapping[str, int]],
    backbone_lr: float,
    layer_decay: float,
    norm_decay: bool,
) -> dict[tuple[bool, int, bool], list[nn.Parameter]]:
    """By: is below the head, depth, decays. What the rules do not tell apart is one group."""
    far = depths() if layer_decay != 1 else defaultdict(int)
    groups = defaultdict(list)
    for name, parameter in trainable.named_parameters():
        if parameter.requires_grad:
            is_below = backbone_lr != 1 and name.startswith("backbone.")
            decays = norm_decay or parameter.ndim > 1
            groups[is_below, far[name], decays].append(parameter)
    return dict(sorted(groups.items(), key=lambda item: (*item[0][:2], not item[0][2])))


def _name(rules: Mapping[str, Any], is_below: bool, depth: int, decays: bool) -> str:
    words = [("backbone" if is_below else "head") if rules["backbone_lr"] != 1 else ""]
    words += [f"{depth} blocks before the last" if rules["layer_decay"] != 1 else ""]
    words += ["" if rules["norm_decay"] else "weights" if decays else "norms and biases"]
    return ", ".join(filter(None, words))
