"""Numeric precision of training: one path for float32, TF32, bfloat16, and float16 with scaling."""

import contextlib
import logging
import math
import time

import torch

from caltech.errors import InputError
from caltech.training.device import use_tf32

log = logging.getLogger(__name__)

SLOW = 1.5  # times as long as in float32 is called emulated
DTYPES = {
    "float32": torch.float32,  # IEEE, on CUDA, too
    "tf32": torch.float32,  # whose factors CUDA rounds to 10 bits
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


class Precision:
    """Autocast and gradient scaler for a device. In float32 both are torch's own no-ops."""

    def __init__(self, dtype: str, loss_scaling: bool) -> None:
        if dtype not in DTYPES:
            raise InputError(
                f"precision.dtype={dtype} is not allowed: it is one of {', '.join(DTYPES)}. "
                "Type precision=fp32, precision=tf32, precision=bf16 or precision=amp."
            )
        self.name = dtype
        self.dtype = DTYPES[dtype]
        self.loss_scaling = loss_scaling

    def autocast(self, device: torch.device) -> contextlib.AbstractContextManager:
        """Context for forward passes; weights and gradients stay in float32."""
        return torch.autocast(
            device.type, dtype=self.dtype, enabled=self.dtype is not torch.float32
        )

    def scaler(self, device: torch.device) -> torch.amp.GradScaler:
        """Scales the loss so that float16 gradients do not underflow (Micikevicius et al. 2018)."""
        return torch.amp.GradScaler(device.type, enabled=self.loss_scaling)

    def prepare(self, device: torch.device) -> None:
        """Set TF32 on or off for this process, and say if the device emulates the type."""
        use_tf32(self.name == "tf32" and device.type == "cuda")
        if self.name == "tf32" and device.type != "cuda":
            log.warning("precision=tf32 is precision=fp32 here: only CUDA has TF32.")
        self.warn_if_slow(device)

    def on(self, device: torch.device) -> str:
        """Its name among the values computed on a device, CUDA's float32 told from TF32."""
        return "ieee float32" if (self.name, device.type) == ("float32", "cuda") else self.name

    def warn_if_slow(self, device: torch.device) -> None:
        """On a CPU that emulates the type, say by how much it is slower, measured here and now."""
        if device.type == "cuda" and self.dtype is torch.bfloat16:
            if not torch.cuda.is_bf16_supported(including_emulation=False):
                log.warning("bfloat16 is emulated on this GPU. precision=amp is the better choice.")
            return
        if device.type != "cpu" or self.dtype is torch.float32:
            return
        slowdown = _slowdown(self.dtype)
        if slowdown > SLOW:
            log.warning(
                "%s is emulated on this CPU: a matrix product takes %.0f times as long as in "
                "float32. precision=fp32 is the better choice here.", self.name, slowdown,
            )  # fmt: skip


def _slowdown(dtype: torch.dtype) -> float:
    """How much longer a product takes than in float32; measured thrice if it seems to be slow.

    Beside another process a product may wait for a core as long as if it were emulated.
    """
    found = math.inf
    for _ in range(3):
        found = min(found, _matmul_seconds(dtype) / _matmul_seconds(torch.float32))
        if found <= SLOW:
            break
    return found


def _matmul_seconds(dtype: torch.dtype) -> float:
    """Best of three products of 256 x 256 matrices, after one to warm up."""
    matrix = torch.ones(256, 256, dtype=dtype)
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        matrix @ matrix
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])
