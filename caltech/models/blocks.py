"""A network's blocks, in the order in which they run: where it may be frozen until.

A block is a child of the network, or of one of its lists of layers, with the layers without weights
and the normalisations that follow it. The head's layers with weights come last.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from caltech.models.classifier import Classifier

NETWORK = "backbone.network."
MOST = 0.9  # a child with this share of all parameters is the network, under another name


@dataclass
class Call:
    """When a module ran, counted in calls that begin or end, and what it gave."""

    first_begin: int
    last_end: int = 0
    times: int = 0
    output: object = None


@dataclass(frozen=True)
class Block:
    """Some modules of a classifier that run one after the other.

    `shape` is that of the last one's output for one image, without the batch's dimension; None if
    it gives something else than a tensor with an image a row.
    """

    name: str
    modules: tuple[str, ...] = field(repr=False)
    parameters: int
    shape: tuple[int, ...] | None

    @property
    def numbers(self) -> int | None:
        """How many there are in its output for an image: those that a cache would keep."""
        return None if self.shape is None else math.prod(self.shape)


def find_blocks(model: Classifier, calls: Mapping[str, Call]) -> list[Block]:
    """The blocks of a classifier whose modules ran as `calls` says."""
    modules = dict(model.named_modules())
    items = [name for name in _items(model.backbone.network) if calls[NETWORK + name].times == 1]
    items.sort(key=lambda name: calls[NETWORK + name].first_begin)
    groups: list[list[str]] = []
    for name in items:
        module = modules[NETWORK + name]
        has_weights = _count(module) > 0
        is_norm = "norm" in type(module).__name__.lower()
        if groups and (is_norm or not has_weights):
            groups[-1].append(NETWORK + name)
        elif has_weights:
            groups.append([NETWORK + name])
    groups += [[stage] for stage in ("hidden", "linear") if _count(modules[stage])]
    return [_block(names, modules, calls) for names in groups]


def watch(model: nn.Module, image: Tensor) -> dict[str, Call]:
    """The call of every module while a model computes one image; of those that do not run, 0."""
    calls = {name: Call(0) for name, _ in model.named_modules()}
    clock = iter(range(1, 1 << 62))

    def begin(call: Call) -> Callable:
        def hook(module: nn.Module, given: object) -> None:
            now = next(clock)
            call.first_begin = call.first_begin or now

        return hook

    def end(call: Call) -> Callable:
        def hook(module: nn.Module, given: object, output: object) -> None:
            call.last_end, call.times, call.output = next(clock), call.times + 1, output

        return hook

    with ExitStack() as hooks:
        for name, module in model.named_modules():
            hooks.enter_context(module.register_forward_pre_hook(begin(calls[name])))
            hooks.enter_context(module.register_forward_hook(end(calls[name])))
        model(image)
    return calls


def _items(module: nn.Module, prefix: str = "", depth: int = 0, total: int = 0) -> Iterator[str]:
    """Names of what blocks are made of: children, and those of lists and of what holds most."""
    total = total or _count(module)
    for name, child in module.named_children():
        is_list = isinstance(child, nn.Sequential | nn.ModuleList)
        if is_list and depth == 0:
            yield from _items(child, f"{prefix}{name}.", 1, total)
        elif not is_list and any(True for _ in child.children()) and _count(child) > MOST * total:
            yield from _items(child, f"{prefix}{name}.", depth, total)
        else:
            yield f"{prefix}{name}"


def _block(names: list[str], modules: Mapping[str, nn.Module], calls: Mapping[str, Call]) -> Block:
    output = calls[names[-1]].output
    shape = tuple(output.shape[1:]) if isinstance(output, Tensor) and len(output) == 1 else None
    parameters = sum(_count(modules[name]) for name in names)
    return Block(names[0].removeprefix(NETWORK), tuple(names), parameters, shape)


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@torch.no_grad()
def blocks_of(model: Classifier, size: int) -> list[Block]:
    """The blocks of a classifier on images (3, size, size), on the device where it is."""
    device = model.backbone.normalize.mean.device
    image = torch.zeros(1, 3, size, size, dtype=torch.uint8, device=device)
    return find_blocks(model, watch(model.eval(), image))
