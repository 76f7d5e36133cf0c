"""Where a run computes, and the process-wide settings that make it fast there."""

import ctypes

import torch

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
    return torch.device("cuda")


def keep_freed_memory() -> None:
    """Have glibc keep large freed blocks instead of giving each back to the kernel.

    Activations are tens of megabytes, which glibc maps and unmaps one by one, and the kernel then
    clears every page of every layer of every step again. Keeping them made EfficientNet-Lite0 2.2
    (training) to 3.4 times (forward) as fast on 2 cores and AlexNet's training 1.1 times
    (tests/bench/memory.py). Other C libraries have no such setting and are left alone.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, 1 << 30)
        mallopt(M_TRIM_THRESHOLD, (1 << 31) - 1)
