"""Grad-CAM (Selvaraju et al., ICCV 2017): where in an image a class is seen, by captum.

Of a transformer, the map is its patches' tokens in their places, at the last normalisation whose
tokens the answer depends on, as is usual.
"""

import math
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from caltech.data.folders import OVERLAY
from caltech.errors import InputError
from caltech.files import replacing
from caltech.inference.predictor import Predictor
from caltech.models.classifier import Classifier

OPACITY = 0.5  # of the colours over the image
COLOURS = "cividis"  # blue to yellow: read the same with every kind of colour vision
INCHES, DOTS_PER_INCH = (8.4, 4.2), 100


def names(images: Sequence[Path], folder: Path | None) -> dict[Path, Path]:
    """For each image the overlay's file: beside it, or below `folder` in the images' own folders.

    Raises:
        InputError: a file of such a name exists; nothing is ever overwritten.
    """
    targets = {image: image.with_name(image.name + OVERLAY) for image in images}
    if folder is not None and images:
        # Without `..`, and without following links, which could make two names one.
        whole = {image: Path(os.path.abspath(t)) for image, t in targets.items()}  # noqa: PTH100
        common = os.path.commonpath([target.parent for target in whole.values()])
        targets = {image: folder / target.relative_to(common) for image, target in whole.items()}
    if existing := [path for path in targets.values() if path.exists()]:
        others = f", and so do {len(existing) - 1} more" if len(existing) > 1 else ""
        raise InputError(
            f"{existing[0]} exists already{others}; overlays are not overwritten. Remove what is "
            "there, or type to=FOLDER for another place."
        )
    return targets


@dataclass(frozen=True)
class FeatureMap:
    """A module whose output, of one image, has a place for each part of the image."""

    module: nn.Module
    to_maps: Callable[[Tensor], Tensor]  # its output to maps (n, C, h, w)
    back: Callable[[Tensor, Tensor], Tensor]  # maps, and the output they are of, to an output


def write(predictor: Predictor, image: Path, class_name: str, target: Path) -> None:
    """Write the model's view of an image, and beside it the same coloured where it sees a class.

    Yellow is where features raise the class's logit most, blue where not at all.
    """
    cropped = predictor.crop(predictor.read(image)[None])
    index = torch.tensor([predictor.classes.index(class_name)], device=predictor.device)
    heat = grad_cam(predictor.network.model, cropped.to(predictor.device), index)[0].cpu()
    with replacing(target) as partial:
        _draw(cropped[0].permute(1, 2, 0).numpy(), heat.numpy(), class_name, partial)


def grad_cam(model: Classifier, images: Tensor, classes: Tensor) -> Tensor:
    """Heat (n, H, W) from 0 to 1: where images (n, 3, H, W) uint8 show their classes (n,).

    Raises:
        InputError: nothing of the backbone has a place for each part of an image.
    """
    from captum.attr import LayerGradCam

    found, as_maps = last_feature_map(model, images[:1]), nn.Identity()

    def through(module: nn.Module, given: object, output: Tensor) -> Tensor:
        return found.back(as_maps(found.to_maps(output)), output)

    with found.module.register_forward_hook(through):
        maps = LayerGradCam(model, as_maps).attribute(images, classes, relu_attributions=True)
    heat = F.interpolate(maps.detach(), images.shape[2:], mode="bilinear").squeeze(1)
    return heat / heat.amax((1, 2), keepdim=True).clamp_min(torch.finfo(heat.dtype).tiny)


def last_feature_map(model: Classifier, image: Tensor) -> FeatureMap:
    """The last module of the backbone that gives maps of more than a pixel, or tokens of patches.

    What is inside an attention has other things in its places. A class token alone is what most
    transformers answer from, so tokens count only if the answer depends on those of the patches.

    Raises:
        InputError: there is none.
    """
    prefix = getattr(model.backbone.network, "num_prefix_tokens", None)
    seen_tokens = False
    for name, module, output, gradient in reversed(_outputs(model, image)):
        if output.dim() == 4:
            found = None if seen_tokens else _of_maps(module, output)
        elif "pool" in name:
            continue
        else:
            found = _of_tokens(module, output, prefix)
            seen_tokens = True
            if found and (gradient is None or not found.to_maps(gradient).any()):
                found = None
        if found:
            return found
    raise InputError(
        "--explain needs feature maps or the tokens of an image's patches, and this model's "
        "backbone does not end in any. Leave out --explain, or choose another run."
    )


def _outputs(model: Classifier, image: Tensor) -> list[tuple]:
    """Name, module, output and the output's gradient, in the order in which the modules ran."""
    ran: list[tuple[str, nn.Module, Tensor]] = []

    def noting(name: str) -> Callable:
        def note(module: nn.Module, given: object, output: object) -> None:
            if isinstance(output, Tensor) and output.dim() in (3, 4) and len(output) == 1:
                ran.append((name, module, output))

        return note

    with ExitStack() as hooks, torch.enable_grad():
        for name, module in model.backbone.network.named_modules():
            if "attn" not in name and "attention" not in name:
                hooks.enter_context(module.register_forward_hook(noting(name)))
        logits = model(image)
    tokens = [output for _, _, output in ran if output.dim() == 3 and output.requires_grad]
    gradients = torch.autograd.grad(logits.max(), tokens, allow_unused=True) if tokens else ()
    of = {id(output): gradient for output, gradient in zip(tokens, gradients, strict=True)}
    return [(name, module, output, of.get(id(output))) for name, module, output in ran]


def _of_maps(module: nn.Module, output: Tensor) -> FeatureMap | None:
    """Maps (1, C, h, h), or (1, h, h, C) as timm's Swin has them."""
    _, first, second, third = output.shape
    if second == third > 1:
        return FeatureMap(module, lambda maps: maps, lambda maps, _: maps)
    if first == second > 1:
        return FeatureMap(
            module, lambda out: out.permute(0, 3, 1, 2), lambda maps, _: maps.permute(0, 2, 3, 1)
        )
    return None


def _of_tokens(module: nn.Module, output: Tensor, prefix: int | None) -> FeatureMap | None:
    """Normalised tokens (1, T, C): some of the class, then a square of patches."""
    side = math.isqrt(output.shape[1] - (prefix or 0))
    first = output.shape[1] - side**2 if prefix is None else prefix
    if "norm" not in type(module).__name__.lower() or side < 2:
        return None
    if output.shape[1] != first + side**2:
        return None
    return FeatureMap(
        module,
        lambda out: out[:, first:].transpose(1, 2).unflatten(2, (side, side)),
        lambda maps, out: torch.cat([out[:, :first], maps.flatten(2).transpose(1, 2)], 1),
    )


def _draw(image: np.ndarray, heat: np.ndarray, class_name: str, target: Path) -> None:
    """Both panels as a PNG: image (H, W, 3) uint8, heat (H, W) from 0 to 1."""
    from matplotlib import colormaps
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

    colours = colormaps[COLOURS](heat)[..., :3]
    mixed = (1 - OPACITY) * image / 255 + OPACITY * colours
    figure = Figure(figsize=INCHES, dpi=DOTS_PER_INCH, layout="constrained")
    left, right = figure.subplots(1, 2)
    for axes, panel, title in ((left, image, "what the model was shown"),
                               (right, mixed, f"where it sees {class_name}")):  # fmt: skip
        axes.imshow(panel)
        axes.set_title(title, parse_math=False)
        axes.set_axis_off()
    scale = figure.colorbar(ScalarMappable(cmap=COLOURS), ax=right, ticks=[0, 1], shrink=0.8)
    scale.ax.set_yticklabels(["not at all", "most"])
    figure.savefig(target, format="png")
