"""Weights that torchvision and timm have downloaded: verified again each time they are loaded."""

import hashlib
import os
from pathlib import Path

import torch

from caltech.errors import InputError

# torchvision has torch.hub load its files with Python's pickle, which executes what it reads.
os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"


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
