"""Where a run computes, and the process-wide settings that make it fast there."""

import ctypes
import functools
import logging
import math
import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from caltech.errors import InputError

log = logging.getLogger(__name__)

# glibc's mallopt parameters (malloc.h).
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
M_ARENA_MAX = -8


def choose_device(name: str, gpu_share: int | None = 1, workers: int = 1) -> torch.device:
    """CUDA where it is present or demanded, set up to be fast; else the CPU, likewise.

    Apple's MPS is taken only where it is demanded. It has no float64 and no pinned memory, which
    nothing here needs. The states of its random generator are in no checkpoint.

    Args:
        gpu_share: how many processes may be on one of several GPUs; None to ask for none of them
            alone, for what takes moments.
        workers: how many processes a search has; if they are more than its GPUs, they share them.

    Raises:
        InputError: device=cuda or device=mps without a GPU that torch can use.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(name, True):
        raise InputError(f"device={name} is not available here. Type device=auto or device=cpu.")
    if name == "mps":
        log.warning(
            "Nothing was ever measured with device=mps. A run that is interrupted inside an epoch "
            "goes on with other dropout than it would have had."
        )
        return torch.device("mps")
    if name == "cpu" or not available["cuda"]:
        keep_freed_memory()
        return torch.device("cpu")
    # Before cuBLAS is first used: one of two settings with which it gives the same bits each time.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    use_tf32(False)
    if gpu_share is not None and (count := torch.cuda.device_count()) > 1:
        index, _ = claim_gpu(max(gpu_share, math.ceil(workers / count)))
        torch.cuda.set_device(index)
    return torch.device("cuda")


def use_tf32(wanted: bool) -> None:
    """Whether CUDA's float32 products and convolutions round their factors to 10 bits (TF32).

    torch's own default is no for products and yes for convolutions.
    """
    with _no_advice():
        torch.set_float32_matmul_precision("high" if wanted else "highest")
        torch.backends.cudnn.allow_tf32 = wanted


def uses_tf32() -> dict[str, bool]:
    """What of CUDA's float32 is TF32 in this process now."""
    with _no_advice():
        return {
            "products": torch.backends.cuda.matmul.allow_tf32,
            "convolutions": torch.backends.cudnn.allow_tf32,
        }


@contextmanager
def _no_advice() -> Iterator[None]:
    """torch 2.9 advises settings that its own compiler does not know."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Please use the new API settings to control TF32")
        yield


def be_deterministic(wanted: bool, device: torch.device) -> None:
    """On CUDA, the same bits each time, or the fastest algorithms; a CPU gives them anyway.

    An operation that cannot be deterministic is then an error: see explaining_determinism.
    """
    on_gpu = device.type == "cuda"
    demanded = wanted and on_gpu
    if demanded != torch.are_deterministic_algorithms_enabled():  # else 2 s for torch's compiler
        torch.use_deterministic_algorithms(demanded)
    torch.backends.cudnn.deterministic = demanded
    torch.backends.cudnn.benchmark = on_gpu and not wanted  # searches once for each shape


@contextmanager
def explaining_determinism() -> Iterator[None]:
    """Turn torch's error of an operation that has no deterministic form into an InputError."""
    try:
        yield
    except RuntimeError as error:
        if "does not have a deterministic implementation" not in str(error):
            raise
        raise InputError(
            f"deterministic=true is not possible with this model on a GPU: {str(error).split()[0]} "
            "has no deterministic form. Type deterministic=false, or device=cpu."
        ) from error


def fused(optimizer: Optimizer, arguments: Any, device: torch.device) -> bool:
    """Whether an optimizer is to be built again with fused=True: one call for all weights.

    Only on CUDA, since a fused step rounds otherwise and a CPU's old results have their bits; and
    not if the config says how it is to step, or SGD's first step is unlike the others (dampening).
    """
    says_how = {"fused", "foreach", "capturable", "differentiable"} & set(arguments)
    is_alike = not optimizer.defaults.get("dampening")
    of_kind = type(optimizer) in (SGD, Adam, AdamW)
    return device.type == "cuda" and of_kind and is_alike and not says_how


def begun(optimizer: Optimizer) -> Optimizer:
    """A fused one whose SGD has its momentum, 0, before the first step.

    torch makes it there without a value, and leaves it so if a loss scaler skips that step, as it
    does at its usual start: the second step would go by what was in memory.
    """
    for group in optimizer.param_groups if type(optimizer) is SGD else ():
        for weight in group["params"] if group["momentum"] else ():
            optimizer.state[weight]["momentum_buffer"] = torch.zeros_like(weight)
    return optimizer


def step_as_built(optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """A hook before a state is loaded: how to step is this device's, not the checkpoint's.

    Each saved group gets `fused` and `foreach` as the optimizer has them, None without.
    """
    own = [{name: group.get(name) for name in ("fused", "foreach")} for group in
           optimizer.param_groups]  # fmt: skip
    groups = [saved | how for saved, how in zip(state["param_groups"], own, strict=True)]
    return state | {"param_groups": groups}


def received(*values: Tensor) -> list[Tensor]:
    """All of them on the CPU, after waiting once for a GPU."""
    on_gpu = values[0].device.type == "cuda"
    arriving = [value.to("cpu", non_blocking=on_gpu) for value in values]
    if on_gpu:
        torch.cuda.current_stream().synchronize()
    return arriving


def each(call: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """As map does, as many at a time as torch has threads, each by a thread of its own.

    Two batches at a time by one thread each are faster than one batch by two threads, which wait
    for each other in every layer (tests/bench/extraction.py measures it).
    """
    threads = torch.get_num_threads()
    if threads == 1:
        yield from map(call, items)
        return
    try:
        # The setting is the calling thread's and that of threads which are yet to come.
        with ThreadPoolExecutor(threads, "batch", torch.set_num_threads, (1,)) as pool:
            yield from pool.map(call, items)
    finally:
        torch.set_num_threads(threads)


def compiled(network: nn.Module, device: torch.device) -> nn.Module:
    """By torch.compile, with the random numbers that it would draw uncompiled.

    Raises:
        InputError: torch has no compiler here.
    """
    try:
        torch.compile(nn.ReLU())(torch.zeros(1, device=device))
    except Exception as error:  # compilers and what they call raise many types
        raise InputError(
            f"compile=true does not work here: {str(error).strip().splitlines()[0]}. "
            "Install a C++ compiler (and Triton for a GPU), or type compile=false."
        ) from error
    # Anew for an epoch's last batch and for an evaluation's: with a size as a symbol, which torch
    # tries second, EfficientNet-Lite0 was not compiled after 40 minutes on two cores; so in two.
    return torch.compile(network, dynamic=False, options={"fallback_random": True})


@functools.cache
def claim_gpu(share: int = 1) -> tuple[int, FileLock]:
    """The first visible GPU that the fewest processes of this user hold, and what holds it.

    The cache keeps it for as long as the process lives, so later jobs stay on the same GPU. Jobs
    that a scheduler gave one GPU each see only that one and never come here.

    Raises:
        InputError: all are held by as many as may share them.
    """
    for place in range(share):
        for index in range(torch.cuda.device_count()):
            uuid = torch.cuda.get_device_properties(index).uuid
            name = f"caltech-{os.getuid()}-{uuid}{f'-{place}' if place else ''}.lock"
            lock = FileLock(Path(tempfile.gettempdir()) / name)
            with suppress(Timeout):
                lock.acquire(timeout=0)
                return index, lock
    raise InputError(
        f"All {torch.cuda.device_count()} GPUs are held by other jobs. Wait for one, or share "
        f"them: gpu_share={share + 1}."
    )


def keep_freed_memory() -> None:
    """Have glibc keep large freed blocks instead of giving each back to the kernel.

    Activations are tens of megabytes, which glibc maps and unmaps one by one, and the kernel then
    clears every page of every layer of every step again. Keeping them made EfficientNet-Lite0 2.2
    to 3.7 times as fast on 2 cores and AlexNet's training 1.1 times (tests/bench/memory.py). All
    threads share one pool: those of their own are of 64 MB at most, so what is larger would be
    mapped each time. A batch a thread was 1.5 times as fast with it (tests/bench/extraction.py).
    Other C libraries have no such setting and are left alone.
    """
    if os.name != "posix":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_ARENA_MAX, 1)
        mallopt(M_MMAP_THRESHOLD, 1 << 30)
        mallopt(M_TRIM_THRESHOLD, -1)  # never: a step of 256 images at 224 pixels frees over 10 GB
