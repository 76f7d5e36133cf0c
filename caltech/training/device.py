"""Where a run computes, and the process-wide settings that make it fast there."""

import ctypes
import functools
import getpass
import tempfile
from contextlib import suppress
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from caltech.errors import InputError

# glibc's mallopt parameters (malloc.h).
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3


def choose_device(name: str) -> torch.device:
    """CUDA where it is present or demanded, set up to be fast; else the CPU, likewise.

    Raises:
        InputError: device=cuda without a GPU that torch can use.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("device=cuda is not available here. Type device=auto or device=cpu.")
    if name == "cpu" or not torch.cuda.is_available():
        keep_freed_memory()
        return torch.device("cpu")
    torch.set_float32_matmul_precision("high")  # TF32 in products,
    torch.backends.cudnn.allow_tf32 = True  # and in convolutions
    torch.backends.cudnn.benchmark = True  # every batch but the last has the same shape
    if torch.cuda.device_count() > 1:
        index, _ = claim_gpu()
        torch.cuda.set_device(index)
    return torch.device("cuda")


@functools.cache
def claim_gpu() -> tuple[int, FileLock]:
    """The first visible GPU that no other process of this user holds, and what holds it.

    The cache keeps it for as long as the process lives, so later jobs stay on the same GPU. Jobs
    that a scheduler gave one GPU each see only that one and never come here.

    Raises:
        InputError: all are held.
    """
    for index in range(torch.cuda.device_count()):
        uuid = torch.cuda.get_device_properties(index).uuid
        lock = FileLock(Path(tempfile.gettempdir()) / f"caltech-{getpass.getuser()}-{uuid}.lock")
        with suppress(Timeout):
            lock.acquire(timeout=0)
            return index, lock
    raise InputError(
        f"All {torch.cuda.device_count()} GPUs are held by other jobs. Wait for one, or choose "
        "one to share: CUDA_VISIBLE_DEVICES=0 python -m caltech.train ..."
    )


def keep_freed_memory() -> None:
    """Have glibc keep large freed blocks instead of giving each back to the kernel.

    Activations are tens of megabytes, which glibc maps and unmaps one by one, and the kernel then
    clears every page of every layer of every step again. Keeping them made EfficientNet-Lite0 2.2
    to 3.7 times as fast on 2 cores and AlexNet's training 1.1 times (tests/bench/memory.py). Other
    C libraries have no such setting and are left alone.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 1 << 30)
        mallopt(M_TRIM_THRESHOLD, -1)  # never: a step of 256 images at 224 pixels frees over 10 GB
