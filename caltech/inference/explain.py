"""Grad-CAM (Selvaraju et al., ICCV 2017): where in an image a class is seen, by captum."""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from caltech.errors import InputError
from caltech.files import replacing
from caltech.inference.predictor import Predictor
from caltech.models.classifier import Classifier

SUFFIX = ".gradcam.png"
OPACITY = 0.5  # of the colours over the image


def names(images: Sequence[Path], folder: Path | None) -> dict[Path, Path]:
    """For each image the overlay's file: beside it, or below `folder` in the images' own folders.

    Raises:
        InputError: a file of such a name exists; nothing is ever overwritten.
    """
    targets = {image: image.with_name(image.name + SUFFIX) for image in images}
    if folder is not None and images:
        # Without `..`, and without following links, which could make two names one.
        whole = {image: Path(os.path.abspath(t)) for image, t in targets.items()}  # noqa: PTH100
        common = os.path.commonpath([target.parent for target in whole.values()])
        targets = {image: folder / target.relative_to(common) for image, target in whole.items()}
    if existing := [path for path in targets.values() if path.exists()]:
        raise InputError(
            f"{existing[0]} exists already, as one of {len(existing)}; overlays are not "
            "overwritten. Remove them, or type to=FOLDER for another place."
        )
    return targets


def write(predictor: Predictor, image: Path, class_name: str, target: Path) -> None:
    """Write the model's view (crop x crop) of an image, coloured where it sees a class.

    Red is where features raise the class's logit most, blue where not at all.
    """
    from matplotlib import colormaps

    cropped = predictor.crop(predictor.read(image)[None])
    index = torch.tensor([predictor.classes.index(class_name)], device=predictor.device)
    heat = grad_cam(predictor.network.model, cropped.to(predictor.device), index)[0].cpu()
    colours = torch.from_numpy(colormaps["turbo"](heat.numpy())[..., :3] * 255)
    mixed = (1 - OPACITY) * cropped[0].permute(1, 2, 0) + OPACITY * colours
    with replacing(target) as partial:
        Image.fromarray(mixed.round().numpy().astype(np.uint8)).save(partial, format="PNG")


def grad_cam(model: Classifier, images: Tensor, classes: Tensor) -> Tensor:
    """Heat (n, H, W) from 0 to 1: where images (n, 3, H, W) uint8 show their classes (n,).

    Raises:
        InputError: the backbone ends in no feature map, as a vision transformer's.
    """
    from captum.attr import LayerGradCam

    layer = last_feature_map(model, images[:1])
    maps = LayerGradCam(model, layer).attribute(images, classes, relu_attributions=True)
    heat = F.interpolate(maps.detach(), images.shape[2:], mode="bilinear").squeeze(1)
    return heat / heat.amax((1, 2), keepdim=True).clamp_min(torch.finfo(heat.dtype).tiny)


def last_feature_map(model: Classifier, image: Tensor) -> nn.Module:
    """The last module of the backbone that gives feature maps (1, C, h, h) of more than a pixel.

    Tokens (1, T, C) after that mean that the map is a transformer's patches, and Grad-CAM of them
    says nothing.
    """
    ran: list[tuple[nn.Module, tuple[int, ...]]] = []

    def note(module: nn.Module, given: object, output: object) -> None:
        if isinstance(output, Tensor):
            ran.append((module, tuple(output.shape)))

    with ExitStack() as hooks, torch.inference_mode():
        for module in model.backbone.network.modules():
            hooks.enter_context(module.register_forward_hook(note))
        model(image)
    for module, shape in reversed(ran):
        if len(shape) == 3:
            break
        if len(shape) == 4 and shape[2] == shape[3] > 1:
            return module
    raise InputError(
        "--explain needs a convolutional network: this model's backbone does not end in feature "
        "maps. Leave out --explain, or choose another run."
    )
