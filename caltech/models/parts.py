"""A network in two parts at a cut: what comes before it, and the rest, with the same weights.

The part before is the network stopped at the cut. The rest is the same network with what ran before
replaced by layers that do nothing, and there are two ways to feed it: through these layers, or,
where forward itself adds something on the way (a transformer its tokens and positions), in the
place of the cut's own layer while an empty image runs before it. Both share their tensors with
the network.
"""

import copy
from collections import OrderedDict
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from caltech.models.classifier import Classifier

WAYS = ("through", "instead", "instead, after what is no block")


@dataclass(frozen=True)
class Cut:
    """Where a classifier is cut, and how. Modules by their names in the network."""

    last: str  # whose output is the value at the cut
    before: frozenset[str]  # ran before the cut alone
    after: frozenset[str]  # began after it
    blocks: frozenset[str]  # of those before, the ones that blocks are made of
    way: str  # one of WAYS
    size: int  # of the images, in pixels
    stored: torch.dtype  # of the value


class Before(nn.Module):
    """Images (N, 3, H, W), normalised, to the value at a cut (N, ...), in the type it is stored."""

    def __init__(self, network: nn.Module, cut: Cut) -> None:
        super().__init__()
        self.network = _sharing(network)
        trained = {id(p) for p in network.parameters() if p.requires_grad}
        for name in sorted(cut.after):
            _replace(self.network, name, nn.Identity())
        for module in self.network.modules():
            own = module._parameters
            for name in [name for name, p in own.items() if id(p) in trained]:
                del own[name]
        _replace(self.network, cut.last, _Stop(self.network.get_submodule(cut.last)))
        self.cut = cut

    def forward(self, images: Tensor) -> Tensor:
        try:
            self.network(images)
        except _Reached as reached:
            return stored(reached.value, self.cut.stored)
        raise RuntimeError(f"{self.cut.last} did not run.")

    def extra_repr(self) -> str:
        return f"until={self.cut.last}, stored={self.cut.stored}"


class After(nn.Module):
    """The value at a cut (N, ...) to the features that the whole network would give out."""

    def __init__(self, network: nn.Module, cut: Cut) -> None:
        super().__init__()
        self.network = _sharing(network)
        self.cut = cut
        self.given = _Given()
        gone = cut.blocks
        if cut.way == WAYS[2]:  # a list's own layers, if the cut is within one
            list_name = cut.last.rpartition(".")[0]
            gone = {name for name in gone if list_name and name.startswith(f"{list_name}.")}
        for name in gone:
            _replace(self.network, name, _Nothing())
        if cut.way != WAYS[0]:
            _replace(self.network, cut.last, self.given)

    def forward(self, value: Tensor) -> Tensor:
        value = restored(value, self.cut.stored)
        if self.cut.way == WAYS[0]:
            return self.network(value)
        self.given.value = value
        size = self.cut.size
        return self.network(torch.zeros(len(value), 3, size, size, device=value.device))

    def train(self, mode: bool = True) -> "After":
        """As torch's, except that what is frozen stays in eval mode."""
        super().train(mode)
        for name, module in self.network.named_modules():
            if name in self.cut.before:
                module.eval()
        return self


def before(model: Classifier, cut: Cut) -> nn.Sequential:
    """uint8 images to the value at the cut."""
    part = Before(model.backbone.network, cut)
    return nn.Sequential(OrderedDict(normalize=model.backbone.normalize, before=part))


def after(model: Classifier, cut: Cut) -> Classifier:
    """The value at the cut to logits; its state has the names that it has in the whole."""
    part = After(model.backbone.network, cut)
    part.frozen = False
    stages = (part, model.hidden, model.linear)
    return Classifier(OrderedDict(zip(Classifier.stage_names, stages, strict=True)))


@torch.inference_mode()
def is_equal(model: Classifier, cut: Cut, images: Tensor) -> bool:
    """Whether both parts together give, bit for bit, the features that the whole gives.

    Features and not logits, which a head that begins with zeros would make equal.
    """
    expected = model.eval().backbone(images)
    try:
        value = before(model, cut).eval()(images)
        return torch.equal(after(model, cut).eval().backbone(value), expected)
    except Exception:  # whatever a forward of which parts are missing raises
        return False


def stored(value: Tensor, dtype: torch.dtype) -> Tensor:
    """The value as it is kept: float32 is the neutral one, which leaves it as it was computed."""
    return value if dtype == torch.float32 else value.to(dtype)


def restored(value: Tensor, dtype: torch.dtype) -> Tensor:
    """What is computed with after it was kept."""
    return value if dtype == torch.float32 else value.float()


class _Reached(Exception):  # noqa: N818 - not an error
    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.value = value


class _Stop(nn.Module):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *given: Any, **named: Any) -> None:
        raise _Reached(self.module(*given, **named))


class _Nothing(nn.Module):
    """torch's Identity, for layers that get more than one value (a transformer's positions)."""

    def forward(self, value: Tensor, *given: Any, **named: Any) -> Tensor:
        return value


class _Given(nn.Module):
    """Gives what it was told to give, whatever it gets."""

    value: Tensor

    def forward(self, *given: Any, **named: Any) -> Tensor:
        return self.value


def _sharing(network: nn.Module) -> nn.Module:
    """A copy of the modules, with the same tensors."""
    tensors = chain(network.parameters(), network.buffers())
    return copy.deepcopy(network, {id(tensor): tensor for tensor in tensors})


def _replace(network: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    try:
        setattr(network.get_submodule(parent), leaf, module)
    except AttributeError:
        return  # within something that was replaced already
