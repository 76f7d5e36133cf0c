"""Taking the classifying layers off a library's network, and putting fresh ones on.

Each `take` function gives the network, which from then on gives out features (N, F), and the head
that was taken off it. Head after network is, bit for bit, what the library's network gave; of VOLO
alone it is the class token's answer, without that of its auxiliary head.
"""

import torch
from torch import Tensor, nn

from caltech.errors import InputError


class TwoHeads(nn.Module):
    """The mean answer of two linear layers, each with a half of the features (N, 2 F).

    Distilled transformers have one for the class token and one for the distillation token (Touvron
    et al., ICML 2021), and answer with the mean of both.
    """

    def __init__(self, head: nn.Linear, distilled: nn.Linear) -> None:
        super().__init__()
        self.head = head
        self.distilled = distilled

    def forward(self, features: Tensor) -> Tensor:
        first, second = features.chunk(2, dim=1)
        return (self.head(first) + self.distilled(second)) / 2


class Half(nn.Module):
    """In place of one of two heads: features (N, F) to (N, 2 F), such that the mean has both.

    Doubling and halving are exact.
    """

    def __init__(self, is_first: bool) -> None:
        super().__init__()
        self.is_first = is_first

    def forward(self, features: Tensor) -> Tensor:
        doubled, nothing = features * 2, torch.zeros_like(features)
        return torch.cat((doubled, nothing) if self.is_first else (nothing, doubled), dim=1)


def take_last_child(network: nn.Module) -> tuple[nn.Module, nn.Module]:
    """torchvision's classifiers end with their head; without it, they give out what it was fed."""
    name, head = list(network.named_children())[-1]
    if type(network).__name__ == "SqueezeNet":  # flattens behind its head, which is fed with maps
        return network.features, nn.Sequential(*head, nn.Flatten(1))
    setattr(network, name, nn.Identity())
    return network, head


def take_classifier(network: nn.Module) -> tuple[nn.Module, nn.Module]:
    """timm's classifiers say what their head is, and give out features once it is reset.

    The head is an Identity if the network has none, as its weights were trained without classes.

    Raises:
        InputError: what classifies is neither a linear layer, nor a convolution of one pixel, nor
            two linear layers.
    """
    head = network.get_classifier() if hasattr(network, "get_classifier") else None
    pair = head if isinstance(head, tuple | list) and len(head) == 2 else ()
    if pair and all(isinstance(each, nn.Linear) for each in pair):
        network.head, network.head_dist = Half(True), Half(False)
        return network, TwoHeads(*head)
    if not isinstance(head, nn.Linear | nn.Conv2d | nn.Identity):
        kinds = head if isinstance(head, tuple | list) else [head]
        named = " and ".join("nothing" if k is None else type(k).__name__ for k in kinds)
        raise InputError(
            f"model.name={network.pretrained_cfg['architecture']} cannot be given a new last "
            f"layer: what classifies in it is {named}, where a linear layer, a convolution or two "
            "linear layers are understood. Type another model."
        )
    network.reset_classifier(0)
    if isinstance(head, nn.Conv2d):
        into_maps = nn.Unflatten(1, (head.in_channels, 1, 1))
        return network, nn.Sequential(into_maps, head, nn.Flatten(1))
    return network, head


def with_new_last(head: nn.Module, num_classes: int, width: int) -> nn.Module:
    """The pretrained head with a fresh last layer of `num_classes` outputs.

    Args:
        width: how many features the network gives out, for a head that has no layer of its own.
    """
    layers = list(head) if isinstance(head, nn.Sequential) else [head]
    weighted = [i for i, layer in enumerate(layers) if any(True for _ in layer.parameters())]
    last = weighted[-1] if weighted else 0
    layers[last] = _fresh(layers[last], num_classes, width)
    return nn.Sequential(*layers)


def _fresh(layer: nn.Module, num_classes: int, width: int) -> nn.Module:
    """A layer of the same kind, as torch initialises it, for other classes."""
    if isinstance(layer, nn.Identity):
        return nn.Linear(width, num_classes)
    if isinstance(layer, nn.Linear):
        return nn.Linear(layer.in_features, num_classes, bias=layer.bias is not None)
    if isinstance(layer, TwoHeads):
        halves = [_fresh(half, num_classes, width) for half in layer.children()]
        return TwoHeads(*halves)
    if isinstance(layer, nn.Conv2d):
        has_bias = layer.bias is not None
        return nn.Conv2d(layer.in_channels, num_classes, layer.kernel_size, bias=has_bias)
    raise InputError(
        f"The model's last layer is a {type(layer).__name__}, which cannot be replaced for other "
        "classes. Type another model, or model.weights=null."
    )
