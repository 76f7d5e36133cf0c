"""What a network would be like, found out on torch's meta device: no memory, no weights, no time.

So that what cannot work is refused before anything is downloaded, and a network that is made for
images of another size is told theirs only if it would refuse them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from caltech.errors import InputError

# What networks raise for images that they are not made for.
REFUSALS = (AssertionError, AttributeError, IndexError, RuntimeError, TypeError, ValueError)


class _SizeError(Exception):
    """Images of this size are not taken; its cause says why."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


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
    # Some look at values, as torchvision's RegNet when it is built.
    except (*REFUSALS, InputError, _SizeError):
        with _pretending("cpu"):
            try:
                return _rehearse(create, take, size, sized, own_size)
            except _SizeError as error:
                reason = error
    fitting = _sizes_near(create, take, size, sized, own_size) if size else []
    raise refusal(reason.size, reason.__cause__, fitting) from reason.__cause__


def _sizes_near(
    create: Callable[..., nn.Module],
    take: Callable[[nn.Module], tuple[nn.Module, nn.Module]],
    size: int,
    sized: Mapping[str, Any],
    own_size: int | None,
) -> list[int]:
    """The nearest size below and above that the network takes, of multiples of usual patches."""
    found = []
    for direction in (0, 1):
        near = {(size // patch + direction) * patch for patch in (8, 12, 14, 16, 32)} - {0, size}
        for other in sorted(near, key=lambda each: abs(each - size)):
            try:
                with _pretending("meta"):
                    _rehearse(create, take, other, dict.fromkeys(sized, other), own_size)
            except (*REFUSALS, InputError, _SizeError):
                continue
            found.append(other)
            break
    return found


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


def refusal(size: int, reason: BaseException | None, fitting: Sequence[int] = ()) -> InputError:
    """What is said of a network that does not take images of a size; `fitting` are taken."""
    said = (str(reason).splitlines() or [type(reason).__name__])[0].rstrip(".!")
    sizes = " or ".join(f"data.resize={each} data.crop={each}" for each in fitting)
    return InputError(
        f"The model cannot take images of {size} x {size}: {said}. Type "
        f"{sizes or 'other data.resize and data.crop'}, or another model."
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
    raise _SizeError(size or own_size) from reason


def _width(network: nn.Module, size: int) -> int:
    return network(torch.zeros(1, 3, size, size)).flatten(1).shape[1]


@contextmanager
def _pretending(device: str) -> Iterator[None]:
    """Meta tensors have shapes and no values; on no device is a random number used up."""
    with torch.device(device), torch.inference_mode(), torch.random.fork_rng(devices=[]):
        yield
