"""Any optimizer of torch.optim or of timm.optim by its name, with what it takes."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from omegaconf import OmegaConf
from torch.optim import Optimizer

from caltech.errors import InputError
from caltech.models.names import require_known
from caltech.settings import CONF


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
    if "momentum" not in given and betas is not None:
        given["betas"] = (momentum, *(bound.get("betas") or betas.default)[1:])
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
        create([weight]).step()
    except Exception as error:  # some libraries' own
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"The optimizer {name} cannot be stepped here: {said}. Type another optimizer.name."
        ) from error
