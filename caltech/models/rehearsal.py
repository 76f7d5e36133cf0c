"""What a network would be like, found out on torch's meta device: no memory, no weights, no time.

So that what cannot work is refused before anything is downloaded, and a network that is made for
images of another size is told theirs only if it would refuse them.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from caltech.errors import InputError

# What networks raise for images that they are not made for.
REFUSALS = (RuntimeError, AssertionError, TypeError, ValueError, IndexError)


@dataclass(frozen=True)
class Rehearsal:
    """What was found out."""

    width: int  # features (1, width) that the network without its head gives for an image
    options: Mapping[str, Any] = field(default_factory=dict)  # that tell it the images' size


def rehearse(
    create: Callable[..., nn.Module],
    take: Callable[[nn.Module], tuple[nn.Module, nn.Module]],
    size: int | None,
    sized: Mapping[str, Any],
    own_size: int | None = None,
) -> Rehearsal:
    """Build a network, take its head off and give it one image.

    Args:
        create: builds it, with the options that are given to it.
        take: takes its head off, or refuses it.
        size: pixels of the images' sides; those of its own if None.
        sized: the options that tell it that size, if it has such options.
        own_size: pixels of the images that it is made for; None asks timm's description of it.

    Raises:
        InputError: it cannot be cut, or does not take images of that size.
    """
    try:
        with _pretending("meta"):
            return _rehearse(create, take, size, sized, own_size)
    except (*REFUSALS, InputError):  # some look at values, as torchvision's RegNet when it is built
        with _pretending("cpu"):
            return _rehearse(create, take, size, sized, own_size)


def require_resizable(create: Callable[..., nn.Module], found: Rehearsal) -> None:
    """Raise InputError if timm cannot fit a network's weights to images of the size found."""
    if not found.options:
        return
    with _pretending("meta"):
        network = create()
        given = {"source": "", "state_dict": network.state_dict()}
        try:
            create(pretrained=True, pretrained_cfg_overlay=given, **found.options)
        except RuntimeError as error:
            if "size mismatch" not in str(error):
                return  # for want of values, which only the weights themselves have
            own_size = network.pretrained_cfg["input_size"][-1]
            raise InputError(
                f"The weights of {network.pretrained_cfg['architecture']} are for images of "
                f"{own_size} x {own_size} and cannot be fitted to others. Type "
                f"data.resize={own_size * 8 // 7} data.crop={own_size}, model.weights=null, or "
                "another model."
            ) from error


def refusal(size: int, reason: Exception) -> InputError:
    """What is said of a network that does not take images of a size."""
    said = (str(reason).splitlines() or [type(reason).__name__])[0].rstrip(".!")
    return InputError(
        f"The model cannot take images of {size} x {size}: {said}. Type another model, or "
        "other data.resize and data.crop."
    )


def _rehearse(
    create: Callable[..., nn.Module],
    take: Callable[[nn.Module], tuple[nn.Module, nn.Module]],
    size: int | None,
    sized: Mapping[str, Any],
    own_size: int | None,
) -> Rehearsal:
    network = create().eval()
    own_size = own_size or network.pretrained_cfg["input_size"][-1]
    network, _ = take(network)
    try:
        return Rehearsal(_width(network, size or own_size))
    except REFUSALS as error:
        reason = error
    if sized and size != own_size:
        try:
            network, _ = take(create(**sized).eval())
            return Rehearsal(_width(network, size), sized)
        except REFUSALS as error:
            if "unexpected keyword" not in str(error):
                reason = error
    raise refusal(size or own_size, reason) from reason


def _width(network: nn.Module, size: int) -> int:
    return network(torch.zeros(1, 3, size, size)).flatten(1).shape[1]


@contextmanager
def _pretending(device: str) -> Iterator[None]:
    """Meta tensors have shapes and no values; on no device is a random number used up."""
    with torch.device(device), torch.inference_mode(), torch.random.fork_rng(devices=[]):
        yield
