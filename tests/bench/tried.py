"""Ways to make extraction and the head's training faster that the product may not use, measured.

    python -m tests.bench.tried    about 4 minutes on 2 cores; --compile adds torch.compile

EfficientNet-Lite0's backbone, as features.py runs it: 256 random uint8 images, inference mode,
freed memory kept; each line differs from the first in one thing. Then one training step of
AlexNet's head on cached features with torch.optim.SGD's implementations.
"""

import argparse
import copy
import functools
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from caltech.training.device import keep_freed_memory
from tests.bench import plain
from tests.bench.product import model_of

IMAGES = 256


def folded(network: nn.Module) -> nn.Module:
    """A copy with every BatchNorm folded into the convolution before it."""
    network = copy.deepcopy(network)
    for parent in network.modules():
        convolution = None
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.BatchNorm2d) and convolution is not None:
                convolution.weight, convolution.bias = fuse_conv_bn_weights(
                    convolution.weight, convolution.bias, child.running_mean, child.running_var,
                    child.eps, child.weight, child.bias,
                )  # fmt: skip
                setattr(parent, name, getattr(child, "act", nn.Identity()))
            convolution = child if isinstance(child, nn.Conv2d) else None
    return network.to(memory_format=torch.channels_last)


@torch.inference_mode()
def seconds(
    network: Callable, images: Tensor, batch_size: int = 64, threads: int = 0, bf16: bool = False
) -> float:
    """Seconds for all images, after a batch to warm up."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            network(images[:batch_size])
            start = time.perf_counter()
            for batch in images.split(batch_size):
                network(batch)
            return time.perf_counter() - start
    finally:
        torch.set_num_threads(before)


def extraction(repeats: int, compiled: bool) -> None:
    cfg = plain.configure("unused", "model=efficientnet_lite0")
    network = model_of(cfg, plain.NUM_CLASSES).backbone.eval()
    fused = folded(network)
    images = torch.randint(256, (IMAGES, 3, 224, 224), dtype=torch.uint8)
    images = images.contiguous(memory_format=torch.channels_last)
    contiguous = copy.deepcopy(network).to(memory_format=torch.contiguous_format)
    sides: dict[str, Callable[[], float]] = {
        "as it is: batch 64, channels_last": functools.partial(seconds, network, images),
        "batch 16": functools.partial(seconds, network, images, 16),
        "batch 32": functools.partial(seconds, network, images, 32),
        "batch 256": functools.partial(seconds, network, images, 256),
        "1 thread": functools.partial(seconds, network, images, threads=1),
        "contiguous": functools.partial(seconds, contiguous, images.contiguous()),
        "bfloat16 autocast": functools.partial(seconds, network, images, bf16=True),
        "BatchNorm folded": functools.partial(seconds, fused, images),
        "BatchNorm folded, batch 16": functools.partial(seconds, fused, images, 16),
        "BatchNorm folded, bfloat16": functools.partial(seconds, fused, images, bf16=True),
    }
    if compiled:
        start = time.perf_counter()
        faster = torch.compile(network)
        with torch.inference_mode():
            faster(images[:64])
        print(f"torch.compile took {time.perf_counter() - start:.0f} s")
        sides["torch.compile"] = functools.partial(seconds, faster, images)
    found = plain.medians(plain.alternate(sides, repeats))
    base = next(iter(found.values()))
    with torch.inference_mode():
        exact = network(images[:64])
        errors = {
            "bfloat16 autocast": _bf16(network, images[:64]),
            "BatchNorm folded": fused(images[:64]),
            "BatchNorm folded, bfloat16": _bf16(fused, images[:64]),
        }
    plain.table(
        ("EfficientNet-Lite0, forward", "images/s", "times as fast", "relative error"),
        [
            (name, IMAGES / value, base / value, _error(errors.get(name), exact))
            for name, value in found.items()
        ],
    )


def _bf16(network: nn.Module, images: Tensor) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return network(images).float()


def _error(values: Tensor | None, exact: Tensor) -> str:
    return "" if values is None else f"{((values - exact).norm() / exact.norm()).item():.1e}"


def head_step(repeats: int) -> None:
    """Batch 256, momentum and weight decay, as conf/optimizer/sgd.yaml has it."""
    x, y = torch.randn(256, 9216), torch.randint(plain.NUM_CLASSES, (256,))
    sides = {}
    for name, how in {
        "default": {},
        "foreach": {"foreach": True},
        "fused": {"fused": True},
    }.items():
        cfg = plain.configure("unused", "model=alexnet", "model.weights=null")
        head = model_of(cfg, plain.NUM_CLASSES)[1:].train()
        optimizer = torch.optim.SGD(
            head.parameters(), lr=1e-3, momentum=0.9, weight_decay=5e-5, **how
        )

        def step(head: nn.Module = head, optimizer: torch.optim.Optimizer = optimizer) -> None:
            plain.train_step(head, optimizer, x, y)

        def update(optimizer: torch.optim.Optimizer = optimizer) -> None:
            optimizer.step()

        sides[f"{name}: step"] = functools.partial(plain.one_step_seconds, step, 1, 4)
        sides[f"{name}: of it the update"] = functools.partial(plain.one_step_seconds, update, 1, 4)
    found = plain.medians(plain.alternate(sides, repeats))
    plain.table(
        ("AlexNet's head on features, SGD", "milliseconds", "images/s"),
        [(k, v * 1000, 256 / v if k.endswith("step") else "") for k, v in found.items()],
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--compile", action="store_true")
    arguments = parser.parse_args()
    plain.head("tried: other ways to run the same networks")
    keep_freed_memory()
    extraction(arguments.repeats, arguments.compile)
    head_step(arguments.repeats)
    plain.others_line()
