"""Freezing until a block: what runs before it must not change, and is computed once."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from caltech.errors import InputError
from caltech.models.blocks import NETWORK, Block, Call, find_blocks, watch
from caltech.models.classifier import Classifier
from caltech.models.freeze import freeze, frozen_names
from caltech.models.parts import WAYS, Cut, is_equal, restored, stored

log = logging.getLogger(__name__)
# freeze.store, and what it means.
STORED = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def freeze_until(
    model: Classifier, at: str | int, reinitialize: bool, store: str, size: int
) -> None:
    """Freeze all that runs before a block: no gradient, and eval mode for good.

    Args:
        at: the first block that is trained: its name or number (python -m caltech.models NAME).
        reinitialize: whether the block and all that runs after it begin from scratch, as the
            library initialises them (Yosinski et al., NeurIPS 2014).
        store: float32 or bfloat16, in which outputs before the block are kept; bfloat16 rounds
            them, whether they are kept or not.
        size: of the images, in pixels.

    Raises:
        InputError: there is no such block, or `store` is no such type.
    """
    if store not in STORED:
        raise InputError(f"freeze.store={store} is not allowed. Type float32 or bfloat16.")
    image = torch.zeros(1, 3, size, size, dtype=torch.uint8)
    with torch.no_grad():
        calls = watch(model.eval(), image)
    blocks = find_blocks(model, calls)
    number = _number(at, blocks)
    if blocks[number].name in model.stage_names:
        is_last = number == len(blocks) - 1
        has_hidden = any(block.name == "hidden" for block in blocks)
        freeze(model, ["backbone", "hidden"] if is_last and has_hidden else ["backbone"])
    elif number > 0:
        _freeze_before(model, blocks, number, calls, image, STORED[store])
    if store != "float32" and len(model.frozen_names) == 0:
        log.warning(
            "freeze.store=%s has no effect at %s: it is for what is kept inside of the network.",
            store,
            blocks[number].name,
        )
    if reinitialize:
        _begin_anew(model)


def round_as_trained(model: Classifier, option: Mapping[str, Any], size: int) -> None:
    """Round a finished run's values at its cut as its training did, and freeze nothing.

    Args:
        option: of the group freeze, in the run's config.
    """
    dtype = STORED[option.get("store", "float32")]
    if dtype == torch.float32:
        return
    with torch.no_grad():
        image = torch.zeros(1, 3, size, size, dtype=torch.uint8)
        blocks = find_blocks(model, watch(model.eval(), image))
    number = _number(option["at"], blocks)
    if number > 0 and blocks[number].name not in model.stage_names:
        _round(model.get_submodule(blocks[number - 1].modules[-1]), dtype)


def _number(at: str | int, blocks: list[Block]) -> int:
    names = [block.name for block in blocks]
    if at in names:
        return names.index(at)
    if str(at).isdecimal() and int(at) < len(blocks):
        return int(at)
    listed = ", ".join(f"{number} {name}" for number, name in enumerate(names))
    wrong = "freeze=until needs freeze.at, a block" if at is None else f"freeze.at={at} is no block"
    raise InputError(
        f"{wrong} of this network. Type the number or the name of the first "
        f"block that is to be trained: {listed}."
    )


def _freeze_before(
    model: Classifier,
    blocks: list[Block],
    number: int,
    calls: dict[str, Call],
    image: Tensor,
    dtype: torch.dtype,
) -> None:
    last = blocks[number - 1].modules[-1]
    trained, is_constant = _depending(model, model.get_submodule(last), image)
    items = {name for block in blocks[:number] for name in block.modules}
    trained -= {
        f"{item}.{n}" for item in items for n, _ in model.get_submodule(item).named_parameters()
    }
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)
    end = calls[last].last_end
    earlier = {name for name, call in calls.items() if 0 < call.last_end <= end}
    model.frozen_within = [model.get_submodule(name) for name in sorted(earlier)]
    model.frozen_names = _frozen_names(model, trained, earlier)
    _round(model.get_submodule(last), dtype)
    model.train(model.training)
    inside = {name for name in calls if name.startswith(NETWORK)}
    cut = Cut(
        last=last.removeprefix(NETWORK),
        before=_within(inside & earlier),
        after=_within({name for name in inside if calls[name].first_begin > end}),
        blocks=_within(items & earlier),
        way=WAYS[0],
        size=image.shape[-1],
        stored=dtype,
    )
    shape, seeded = (2, *image.shape[1:]), torch.Generator().manual_seed(0)
    images = torch.randint(256, shape, dtype=torch.uint8, generator=seeded)
    ways = [replace(cut, way=way) for way in WAYS] if is_constant else []
    model.cut = next((each for each in ways if is_equal(model, each, images)), None)
    if model.cut is None:
        log.warning(
            "Until %s, this network cannot be cut without a change of its answers: what runs "
            "before is frozen, and is computed in every epoch instead of once.",
            blocks[number].name,
        )


def _depending(model: Classifier, module: nn.Module, image: Tensor) -> tuple[set[str], bool]:
    """Names of the parameters that logits depend on when a module's output is given, and whether
    that output depends on none of them."""
    kept: list[Tensor] = []

    def detach(module: nn.Module, given: object, output: object) -> object:
        if not isinstance(output, Tensor):
            return tree_map(lambda each: each.detach() if torch.is_tensor(each) else each, output)
        kept.append(output)
        return output.detach().clone()

    names, parameters = zip(*model.requires_grad_().named_parameters(), strict=True)
    with module.register_forward_hook(detach), torch.enable_grad():
        logits = model.eval()(image)
        found = torch.autograd.grad(logits.sum(), parameters, retain_graph=True, allow_unused=True)
        trained = {name for name, grad in zip(names, found, strict=True) if grad is not None}
        own = [model.get_parameter(name) for name in sorted(trained)]
        if not kept:
            return trained, False
        shared = torch.autograd.grad(kept[0].sum(), own, allow_unused=True)
    return trained, all(grad is None for grad in shared)


def _frozen_names(model: Classifier, trained: set[str], earlier: set[str]) -> frozenset[str]:
    """Of the model's state: parameters that are not trained, buffers of what ran before alone."""
    parameters = {name for name, _ in model.named_parameters()}
    buffers = {name for name, _ in model.named_buffers() if name.rpartition(".")[0] in earlier}
    return frozenset(((parameters - trained) | buffers) & model.state_dict().keys())


def _begin_anew(model: Classifier) -> None:
    """All that is not frozen as the library initialises it, from torch's generator."""
    if model.from_scratch is None:
        raise InputError("freeze.reinitialize is for models of a library. Type false.")
    fresh = model.from_scratch().state_dict()
    frozen = frozen_names(model)
    for name, tensor in model.state_dict().items():
        if name not in frozen and not name.startswith("backbone.normalize."):
            tensor.copy_(fresh[name])


def _round(module: nn.Module, dtype: torch.dtype) -> None:
    """Have a module's output rounded to a type; float32 leaves it as it was computed."""
    if dtype != torch.float32:
        module.register_forward_hook(
            lambda module, given, output: restored(stored(output, dtype), dtype)
        )


def _within(names: set[str]) -> frozenset[str]:
    return frozenset(name.removeprefix(NETWORK) for name in names)
