"""Versions of what decides bits beside our own code: libraries, their libraries, a GPU's modes."""

import hashlib
from functools import cache
from importlib import metadata

import numpy as np
import PIL
import torch
from PIL import features


@cache
def decoding() -> dict[str, str]:
    """What decides the pixels of an image file."""
    codecs = {"libjpeg": features.version("jpg"), "libwebp": features.version("webp")}
    return {"pillow": PIL.__version__} | {name: str(found) for name, found in codecs.items()}


def computing(device: torch.device) -> dict[str, str]:
    """What decides the last bits of a network's outputs on a device of this machine."""
    libraries = {name: metadata.version(name) for name in ("torchvision", "timm")}
    own = {"torch": torch.__version__, **libraries, "numpy": np.__version__}
    if device.type != "cuda":
        return own | {"instructions": torch.backends.cpu.get_cpu_capability()}
    modes = torch.backends.cuda.matmul.fp32_precision, torch.backends.cudnn.conv.fp32_precision
    return own | {
        "gpu": torch.cuda.get_device_name(device),
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),
        "fp32": f"products {modes[0]}, convolutions {modes[1]}",  # ieee, tf32, or none: by default
    }


def name(versions: dict[str, str]) -> str:
    """Eight hexadecimal digits for a file of what they decide."""
    return hashlib.sha256(repr(sorted(versions.items())).encode()).hexdigest()[:8]
