"""Freed memory kept by glibc (caltech.training.device.keep_freed_memory) against glibc's own habit.

    python -m tests.bench.memory    3.5 minutes with --repeats 1 on 2 quiet cores

mallopt cannot be undone, so that every measurement is a process of its own; the two sides
alternate. Networks are the product's, channels_last, fed with random uint8 images.
"""

import argparse
import json

import torch

from caltech.training.device import keep_freed_memory
from tests.bench import plain
from tests.bench.product import model_of

# What is measured: network, batch size, training or forward, steps timed after two.
CASES = {
    "lite0-forward": ("efficientnet_lite0", 64, False, 7),
    "lite0-train": ("efficientnet_lite0", 32, True, 5),
    "lite0-train-128": ("efficientnet_lite0", 128, True, 2),  # 14 GB
    "alexnet-train": ("alexnet", 128, True, 5),
}


def step_seconds(case: str, keep: bool) -> float:
    """Median seconds of one step in this process."""
    name, batch_size, training, steps = CASES[case]
    if keep:
        keep_freed_memory()
    cfg = plain.configure("unused", f"model={name}", "model.weights=null", "freeze=none")
    model = model_of(cfg, plain.NUM_CLASSES).train(training)
    images = torch.randint(256, (batch_size, 3, 224, 224), dtype=torch.uint8)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(plain.NUM_CLASSES, (batch_size,))
    if training:
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
        return plain.one_step_seconds(
            lambda: plain.train_step(model, optimizer, images, labels), 2, steps
        )
    with torch.inference_mode():
        return plain.one_step_seconds(lambda: model(images), 2, steps)


def compare(repeats: int) -> None:
    plain.head("memory: keep_freed_memory against glibc's default")
    rows, ratios = [], {}
    for case, (_, batch_size, _, steps) in CASES.items():
        sides = {
            side: lambda side=side, case=case: plain.in_process("memory", "--side", side, case)
            for side in ("default", "keep")
        }
        seconds = plain.medians(plain.alternate(sides, repeats))
        ratios[case] = seconds["default"] / seconds["keep"]
        n = f"{repeats} x {steps} steps"
        rows.append((case, n, *(batch_size / seconds[side] for side in sides)))
    plain.table(("", "n", "default images/s", "kept images/s"), rows)
    plain.others_line()
    for case, ratio in ratios.items():
        plain.verdict(f"{case} kept / default", ratio, "> 1", ratio > 1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--side", nargs=2, metavar=("SIDE", "CASE"))
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(step_seconds(arguments.side[1], arguments.side[0] == "keep")))
    else:
        compare(arguments.repeats)
