"""Training from scratch beside peers: timm's own train.py, the plain recipe, and the product.

    python -m tests.bench.peers --timm FOLDER/train.py    20 minutes on 2 cores

timm's script comes with its repository (github.com/huggingface/pytorch-image-models, the tag of the
timm that is installed; its package has none); without --timm the others are compared. All decode or
crop the same images, 224 pixels, SGD. timm's rate is the one that its log tells of each step, with
its usual augmentation and two workers. Every measurement is a process of its own.
"""

import argparse
import functools
import itertools
import json
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from tests.bench import plain
from tests.bench.epoch import product_rate

NETWORKS = {"resnet18": "resnet18", "efficientnet_lite0": "tf_efficientnet_lite0",
            "resnet50": "resnet50"}  # fmt: skip
WARMUP = 2
BACKGROUND = "BACKGROUND_Google"


def timm_rate(
    script: str, name: str, batch_size: int, batches: int, device: str, channels_last: bool
) -> float:
    """Median images a second of the steps that timm's script logs, after two to warm up."""
    images = plain.images_root() / "caltech101" / "101_ObjectCategories"
    with tempfile.TemporaryDirectory() as folder:
        count = batch_size * (batches + WARMUP)
        link_tree(images, Path(folder) / "train", count)
        link_tree(images, Path(folder) / "validation", 2 * batch_size)
        command = [sys.executable, Path(script).name, "--data-dir", folder, "--output", folder]
        command += ["--model", NETWORKS[name], "--num-classes", str(plain.NUM_CLASSES)]
        command += ["--batch-size", str(batch_size), "--device", device, "--lr", "0.001"]
        command += ["--epochs", "1", "--warmup-epochs", "0", "--cooldown-epochs", "0"]
        command += ["--workers", "2", "--log-interval", "1", "--input-size", "3", "224", "224"]
        command += ["--channels-last"] if channels_last else []
        done = subprocess.run(
            command, cwd=Path(script).parent, capture_output=True, text=True, check=False
        )
    rates = [float(rate) for rate in re.findall(r"Time: [\d.]+s, +([\d.]+)/s", done.stderr)]
    if done.returncode or len(rates) <= WARMUP:
        raise SystemExit(f"timm's script failed:\n{done.stderr[-2000:]}")
    return statistics.median(rates[WARMUP:])


def link_tree(images: Path, folder: Path, count: int) -> None:
    """Links to `count` images of all categories, some more than once, as timm's reader wants."""
    files = sorted(path for path in images.glob("*/*.jpg") if path.parent.name != BACKGROUND)
    chosen = itertools.islice(itertools.cycle(files[:: max(1, len(files) // count)]), count)
    for number, file in enumerate(chosen):
        (folder / file.parent.name).mkdir(parents=True, exist_ok=True)
        (folder / file.parent.name / f"{number}_{file.name}").symlink_to(file)


def compare(script: str | None, names: list[str], batch_size: int, batches: int, repeats: int,
            device: str, waits: bool) -> None:  # fmt: skip
    plain.head(f"peers: training from scratch, batch {batch_size}, {batches} batches, {device}")
    rows, ratios = [], {}
    for name in names:
        given = (name, "--batch", batch_size, "--batches", batches, "--device", device)
        sides: dict[str, Callable[[], float]] = {}
        for side in ("timm", "timm, channels_last") if script else ():
            sides[side] = functools.partial(
                plain.in_process, "peers", "--side", side, *given, "--timm", script
            )
        if device == "cpu":
            sides["plain recipe"] = functools.partial(
                plain.in_process, "peers", "--side", "plain", *given
            )
        sides["product"] = functools.partial(plain.in_process, "peers", "--side", "product", *given)
        rate = plain.medians(plain.alternate(sides, repeats, waits))
        rows += [(name, side, value, repeats) for side, value in rate.items()]
        best = max((value for side, value in rate.items() if side != "product"), default=0)
        ratios[name] = rate["product"] / best if best else float("nan")
    plain.table(("network", "side", "images/s", "n"), rows)
    plain.others_line()
    for name, ratio in ratios.items():
        plain.verdict(f"{name} product / best peer", ratio, ">= 1.3", ratio >= 1.3)


def rate_of(side: str, name: str, given: argparse.Namespace) -> float:
    if side == "plain":
        return plain.train_rate(plain.images_root(), name, given.batch, given.batches)
    if side == "product":
        return product_rate(name, given.batch, given.batches, given.device)
    is_last = side.endswith("channels_last")
    return timm_rate(given.timm, name, given.batch, given.batches, given.device, is_last)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--timm", metavar="PATH", help="timm's train.py")
    parser.add_argument("--models", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--batches", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--busy", action="store_true", help="do not wait for a quiet machine")
    parser.add_argument("--side")
    parser.add_argument("name", nargs="?")
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(rate_of(arguments.side, arguments.name, arguments)))
    else:
        compare(arguments.timm, arguments.models, arguments.batch, arguments.batches,
                arguments.repeats, arguments.device, not arguments.busy)  # fmt: skip
