"""A classifier in three stages, the cut that makes one, and whether it fits its images."""

import copy
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from caltech.errors import InputError
from caltech.models.rehearsal import REFUSALS, refusal


class Normalize(nn.Module):
    """uint8 images (N, 3, H, W) to float32, (x / 255 - mean) / std as torchvision does it.

    A part of the model, so that a saved checkpoint takes plain images and cannot be fed
    with another normalisation than it was trained with.
    """

    def __init__(self, mean: Iterable[float], std: Iterable[float]) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(tuple(mean)).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(tuple(std)).view(1, 3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        copied = images.to(torch.float32, copy=True)  # the caller's stay as they are
        return copied.div_(255).sub_(self.mean).div_(self.std)


class Classifier(nn.Sequential):
    """uint8 images (N, 3, H, W) to logits (N, classes) through three stages.

    `backbone` includes the normalisation. `hidden` and `linear` are together the head: `linear`
    is its last layer with weights, `hidden` what the library has before that (AlexNet: dropout,
    fc6, dropout, fc7; ResNet: nothing). A slice, `model[1:]`, takes what the stage before gives.
    """

    stage_names = ("backbone", "hidden", "linear")
    weights: str  # exactly which weights it started from
    from_scratch: Callable[[], "Classifier"] | None = None  # the same without weights
    # Where it is frozen inside of a stage (until.py): modules, and names in its state.
    frozen_within: Sequence[nn.Module] = ()
    frozen_names: frozenset[str] = frozenset()
    cut: Any = None  # parts.Cut, if what is frozen there can be computed once

    def train(self, mode: bool = True) -> "Classifier":
        """As torch's, except that what is frozen (freeze.py, until.py) stays in eval mode."""
        super().train(mode)
        for part in (*(stage for stage in self if stage.frozen), *self.frozen_within):
            part.eval()
        return self


def cut(
    network: nn.Module, head: nn.Module, mean: Iterable[float], std: Iterable[float], weights: str
) -> Classifier:
    """A classifier from a network that gives out features and the head that was taken off it."""
    layers = list(head) if isinstance(head, nn.Sequential) else [head]
    last = max(i for i, layer in enumerate(layers) if any(True for _ in layer.parameters()))
    backbone = nn.Sequential(OrderedDict(normalize=Normalize(mean, std), network=network))
    stages = (backbone, nn.Sequential(*layers[:last]), nn.Sequential(*layers[last:]))
    for stage in stages:
        stage.frozen = False
    model = Classifier(OrderedDict(zip(Classifier.stage_names, stages, strict=True)))
    model.weights = weights
    return model


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """Its parameters and buffers as a file keeps them: on the CPU, and each for itself, also where
    layers share one (safetensors takes no tensor twice)."""
    tensors, places = {}, set()
    for name, tensor in module.state_dict().items():
        plain = tensor.cpu().contiguous()
        place = plain.untyped_storage().data_ptr()
        tensors[name] = plain.clone() if place in places else plain
        places.add(place)
    return tensors


def load_state(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """load_state_dict of a state that is this code's: torchvision's MNASNet asks for its version.

    A copy in plain dictionaries and files of weights have lost it.
    """
    told = OrderedDict(state)
    if (about := getattr(module.state_dict(), "_metadata", None)) is not None:
        told._metadata = about
    module.load_state_dict(told)


def load_into(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """load_state_dict, whose refusal is one line: of another network's tensors, the first.

    Raises:
        ValueError: they are another network's.
    """
    try:
        load_state(model, state)
    except RuntimeError as error:
        own = model.state_dict()
        kinds = {
            "are not in it": [name for name in own if name not in state],
            "are no tensors of the model": [name for name in state if name not in own],
            "have another shape": [
                name for name in own if name in state and own[name].shape != state[name].shape
            ],
        }
        told = [f"{len(names)} {what} ({names[0]})" for what, names in kinds.items() if names]
        raise ValueError(f"of its tensors, {', '.join(told)}") from error


@torch.no_grad()  # not inference_mode: what a lazy layer makes here is to be trained
def require_fit(model: Classifier, size: int, num_classes: int) -> None:
    """Raise InputError unless one image (1, 3, size, size) gives logits (1, num_classes), and the
    model's state can be kept."""
    try:
        logits = model.eval()(torch.zeros(1, 3, size, size, dtype=torch.uint8))
    except REFUSALS as error:
        raise refusal(size, error) from error
    given = tuple(logits.shape) if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
    if given != (1, num_classes):
        raise InputError(
            f"The model gives {given} for one image instead of one logit for each of "
            f"{num_classes} classes: it cannot be cut into backbone and head. Type another model."
        )
    for name, value in model.state_dict().items():
        if not isinstance(value, Tensor):
            raise InputError(
                f"{name} in the model's state is of type {type(value).__name__}, and weights are "
                "kept as tensors alone. Make it a buffer (register_buffer), or leave it out."
            )


def require_no_single(
    model: Classifier, size: int, images: int, batch_size: int, micro_batch: int | None
) -> None:
    """Raise InputError if one image is computed alone and the model cannot be trained on one.

    BatchNorm may not. `images` is how many there are in training.
    """
    if 1 not in _at_a_time(images, batch_size, micro_batch):
        return
    one = torch.zeros(1, 3, size, size, dtype=torch.uint8)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            copy.deepcopy(model).cpu().train()(one)
    except ValueError as error:
        typed = {"batch_size": batch_size, "micro_batch": micro_batch}
        name = "batch_size" if 1 in _at_a_time(images, batch_size, None) else "micro_batch"
        larger = (typed | {name: typed[name] + more} for more in range(1, images + 1))
        right = (each[name] for each in larger if 1 not in _at_a_time(images, **each))
        raise InputError(
            f"{name}={typed[name]} gives the model a batch of one image, and it cannot be "
            f"trained on one: {error}. Type {name}={next(right, typed[name] + 1)}."
        ) from error


def _at_a_time(images: int, batch_size: int, micro_batch: int | None) -> set[int]:
    """How many images an epoch computes at a time: whole batches or their parts, and rests."""
    part = micro_batch or batch_size
    batches = {min(batch_size, images), images % batch_size}
    return {n for batch in batches for n in (min(part, batch), batch % part)} - {0}
