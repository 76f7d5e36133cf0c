"""Training against the bare step, and full fine-tuning against the plain recipe.

    python -m tests.bench.epoch --part a    one whole epoch of AlexNet: 2 minutes on 2 cores
    python -m tests.bench.epoch --part b    three networks, each side in its own process: 7 minutes

a: images a second of train_epoch over all training images (batch assembly, normalisation, counts,
progress) against the training step alone on one resident float batch that is already normalised.
The epoch is taken two batches at a time with two bare steps between, since a shared machine's
speed drifts by more than the difference that is looked for. b: train_epoch against the recipe in
plain.py.
"""

import argparse
import json
import math
import statistics
import tempfile
from pathlib import Path

import torch

from caltech.config import build
from caltech.training.epoch import train_epoch
from tests.bench import plain
from tests.bench.product import parts_of

BATCHES = {"alexnet": (128, 4), "efficientnet_lite0": (32, 5), "resnet18": (64, 4)}
GOALS = {"alexnet": 1.25, "efficientnet_lite0": 5.0, "resnet18": 2.0}


def against_the_bare_step(output: Path) -> None:
    plain.head("epoch a: train_epoch against the bare training step, AlexNet, batch 256")
    cfg = plain.configure(output, "experiment=scratch/model1", "num_epochs=1")
    data = build(cfg.data)
    model, learner, batches = parts_of(cfg, data)
    order = data.train[torch.randperm(len(data.train))]

    network = torch.nn.Sequential(model.backbone.network, model.hidden, model.linear).train()
    size = min(cfg.batch_size, len(order))
    images = torch.randn(size, 3, data.crop, data.crop)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(len(data.classes), (size,))

    def bare_rate() -> float:
        def step() -> None:
            plain.train_step(network, learner.optimizer, images, labels)

        return size / plain.one_step_seconds(step, 0, 2)

    plain.wait_until_quiet()
    bare_rate()
    bare, epoch, ratios = [bare_rate()], [], []
    with plain.Others() as others:
        for part in order.split(2 * cfg.batch_size):
            epoch.append((len(part), train_epoch(learner, batches, part, 1)["images_per_second"]))
            bare.append(bare_rate())
            ratios.append(epoch[-1][1] / statistics.mean(bare[-2:]))
    plain.Others.seen.append(others.share)
    whole_epoch = len(order) / sum(images / rate for images, rate in epoch)
    rates = sorted(rate for _, rate in epoch)
    plain.table(
        ("images/s", "median", "least", "most", "n"),
        [
            ("bare step", statistics.median(bare), min(bare), max(bare), f"{2 * len(bare)} steps"),
            ("product", statistics.median(rates), rates[0], rates[-1], f"{len(order)} images"),
            ("product / bare beside it", statistics.median(ratios), min(ratios), max(ratios),
             f"{len(ratios)} pairs"),
        ],
    )  # fmt: skip
    print(f"the whole epoch: {whole_epoch:.1f} images/s")
    plain.others_line()
    ratio = statistics.median(ratios)
    plain.verdict("epoch / bare step", ratio, ">= 0.95", ratio >= 0.95)


def against_the_plain_recipe(names: list[str], repeats: int) -> None:
    plain.head("epoch b: train_epoch against the plain recipe, full fine-tuning, random weights")
    rows, ratios = [], {}
    for name in names:
        batch_size, batches = BATCHES[name]
        sides = {
            side: lambda side=side, name=name: plain.in_process("epoch", "--side", side, name)
            for side in ("plain", "product")
        }
        rate = plain.medians(plain.alternate(sides, repeats))
        ratios[name] = rate["product"] / rate["plain"]
        images = batches * batch_size
        rows.append((name, batch_size, images, repeats, rate["plain"], rate["product"]))
    plain.table(("", "batch", "images", "n", "plain images/s", "product images/s"), rows)
    plain.others_line()
    for name, ratio in ratios.items():
        plain.verdict(f"{name} product / plain", ratio, f">= {GOALS[name]}", ratio >= GOALS[name])


def rate_of(side: str, name: str) -> float:
    batch_size, batches = BATCHES[name]
    if side == "plain":
        return plain.train_rate(plain.images_root(), name, batch_size, batches)
    return product_rate(name, batch_size, batches)


def product_rate(name: str, batch_size: int, batches: int, device: str = "cpu") -> float:
    """Images a second of train_epoch over `batches`, after two to warm up."""
    with tempfile.TemporaryDirectory() as output:
        overrides = (f"model={name}", "model.weights=null", "freeze=none", "lr=1e-3")
        own = [f"batch_size={batch_size}", f"device={device}"]
        cfg = plain.configure(Path(output), *overrides, *own)
        data = build(cfg.data)
        _, learner, fed = parts_of(cfg, data)
        order = data.train.repeat(math.ceil((batches + 2) * batch_size / len(data.train)))
        order = order[torch.randperm(len(order))]
        warmup, timed = order.split([2 * batch_size, len(order) - 2 * batch_size])
        train_epoch(learner, fed, warmup, 1)
        return train_epoch(learner, fed, timed[: batches * batch_size], 1)["images_per_second"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=("a", "b"))
    parser.add_argument("--models", nargs="+", default=list(BATCHES))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--side", nargs=2, metavar=("SIDE", "MODEL"))
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(rate_of(*arguments.side)))
    if not arguments.side and arguments.part != "b":
        with tempfile.TemporaryDirectory() as folder:
            against_the_bare_step(Path(folder))
    if not arguments.side and arguments.part != "a":
        against_the_plain_recipe(arguments.models, arguments.repeats)
