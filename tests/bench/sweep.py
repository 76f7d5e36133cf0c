"""Nine learning rates on a frozen EfficientNet-Lite0, 30 epochs each, against the plain recipe.

    python -m tests.bench.sweep    about 5 minutes on 2 cores; --part lite0|mlflow|alexnet for one

The product computes all nine runs in full by caltech.train.train, in one process: cold (an empty
cache: images decoded, features computed) and warm. The plain recipe would need days: its training
and its validation are timed over a few batches and EXTRAPOLATED to 9 x 30 epochs. Then what one
warm trial costs, without and with MLflow, and one epoch of AlexNet's fully connected layers.
"""

import argparse
import dataclasses
import json
import statistics
import tempfile
import time
from pathlib import Path

import torch

from caltech.config import build
from caltech.data.dataset import Dataset
from caltech.models.freeze import split_frozen
from caltech.train import train
from caltech.training import features
from caltech.training.epoch import train_epoch
from tests.bench import plain
from tests.bench.product import parts_of

LEARNING_RATES = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.001)
NUM_EPOCHS = 30


def sweep_seconds(output: Path, cache: Path, *overrides: str) -> tuple[list[float], list[float]]:
    """Of each of the nine trials: seconds all in, and seconds of training and validation."""
    whole, training = [], []
    for lr in LEARNING_RATES:
        start = time.perf_counter()
        cfg = plain.configure(output, f"cache={cache}", f"lr={lr}", *overrides)
        train(cfg)
        whole.append(time.perf_counter() - start)
        timing = json.loads((Path(cfg.directory) / "timing.json").read_text())
        training.append(timing["seconds"])
    return whole, training


def against_the_plain_recipe(folder: Path) -> None:
    def plain_rates() -> tuple[float, float]:
        return plain.in_process("sweep", "--plain", "efficientnet_lite0")

    before = plain.undisturbed(plain_rates, attempts=2)
    plain.wait_until_quiet()
    with plain.Others() as others:
        cold, _ = sweep_seconds(folder / "cold", folder / "cache")
    plain.Others.seen.append(others.share)
    plain.wait_until_quiet()
    with plain.Others() as others:
        warm, training = sweep_seconds(folder / "warm", folder / "cache")
    plain.Others.seen.append(others.share)
    after = plain.undisturbed(plain_rates, attempts=2)

    cfg = plain.configure(folder, f"cache={folder / 'cache'}")
    data = build(cfg.data)
    train_rate, evaluation_rate = (
        statistics.mean(pair) for pair in zip(before, after, strict=True)
    )
    epoch = len(data.train) / train_rate + len(data.validation) / evaluation_rate
    recipe = len(LEARNING_RATES) * NUM_EPOCHS * epoch
    print(
        f"plain recipe: training {before[0]:.1f} and {after[0]:.1f} images/s (before and after), "
        f"validation {before[1]:.1f} and {after[1]:.1f}; an epoch {epoch:.0f} s, "
        f"EXTRAPOLATED to {len(LEARNING_RATES) * NUM_EPOCHS} epochs"
    )
    plain.table(
        ("9 trials x 30 epochs", "seconds", "first trial", "median trial", "of it training"),
        [
            ("plain recipe, extrapolated", recipe, "", "", ""),
            ("product, cold", sum(cold), cold[0], statistics.median(cold[1:]), ""),
            ("product, warm", sum(warm), warm[0], statistics.median(warm),
             statistics.median(training)),
        ],
    )  # fmt: skip
    plain.others_line()
    plain.verdict("cold", recipe / sum(cold), ">= 400", recipe / sum(cold) >= 400)
    plain.verdict("warm", recipe / sum(warm), ">= 3000", recipe / sum(warm) >= 3000)
    one_trial("one warm trial", whole=warm, training=training)


def with_mlflow(folder: Path) -> None:
    cache = plain.cache() if not (folder / "cache").is_dir() else folder / "cache"
    store = ("tracking=mlflow", f"tracking.uri=sqlite:///{folder}/mlflow.db")
    store += (f"tracking.artifacts={folder}/artifacts",)
    plain.wait_until_quiet()
    with plain.Others() as others:
        tracked, training = sweep_seconds(folder / "mlflow", cache, *store)
    plain.Others.seen.append(others.share)
    print(
        f"with MLflow: the first trial, which imports it and creates the store, {tracked[0]:.1f} s"
    )
    one_trial("one warm trial with MLflow", whole=tracked[1:], training=training[1:])


def one_trial(what: str, whole: list[float], training: list[float]) -> None:
    seconds = statistics.median(whole)
    share = statistics.median(t / w for t, w in zip(training, whole, strict=True))
    met = seconds <= 2.5 and share >= 0.5
    print(
        f"RATIO {what}: {seconds:.2f} s, training {share:.0%} of it, n = {len(whole)} "
        f"(goal <= 2.5 s, >= 50 %: {'met' if met else 'MISSED'})",
        flush=True,
    )


def fully_connected(folder: Path) -> None:
    """AlexNet's head on cached features against the plain recipe with a frozen backbone."""

    def product_rate() -> float:
        cfg = plain.configure(folder, "model=alexnet", "model.weights=null", "freeze=backbone")
        data = first(build(cfg.data), 1024)
        model, learner, batches = parts_of(cfg, data)
        frozen, trained = split_frozen(model)
        inputs = features.extract(
            frozen, data, build(cfg.augment), learner.precision, torch.device("cpu"), folder / "fc"
        )
        learner = dataclasses.replace(learner, network=trained)
        batches = dataclasses.replace(batches, inputs=inputs)
        train_epoch(learner, batches, data.train[: cfg.batch_size], 1)
        return train_epoch(learner, batches, data.train, 2)["images_per_second"]

    sides = {
        "plain": lambda: plain.in_process("sweep", "--plain", "alexnet")[0],
        "product": product_rate,
    }
    rate = plain.medians(plain.alternate(sides, 3))
    plain.table(
        ("AlexNet, head only, batch 256", "images/s", "n"),
        [
            ("plain recipe", rate["plain"], "3 x 2 batches"),
            ("product, cached features", rate["product"], "3 x 1024 images"),
        ],
    )
    plain.others_line()
    ratio = rate["product"] / rate["plain"]
    plain.verdict("AlexNet head only, product / plain", ratio, ">= 8", ratio >= 8)


def first(data: Dataset, count: int) -> Dataset:
    """The data set cut to `count` images of all classes, all of them for training."""
    chosen = torch.arange(len(data.labels))[:: max(1, len(data.labels) // count)][:count]
    return dataclasses.replace(
        data,
        read_pixels=lambda: data.pixels[chosen],
        labels=data.labels[chosen],
        train=torch.arange(len(chosen)),
        content=f"{data.content} cut to {count}",
    )


def plain_rates(name: str) -> tuple[float, float]:
    """Images a second of the plain recipe's training, with a frozen backbone, and validation."""
    root = plain.images_root()
    train_rate = plain.train_rate(root, name, 256 if name == "alexnet" else 128, 2, frozen=True)
    if name == "alexnet":
        return train_rate, 0.0
    return train_rate, plain.evaluation_rate(root, name, 128, 2)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", choices=("lite0", "mlflow", "alexnet"))
    parser.add_argument("--plain", metavar="NETWORK")
    arguments = parser.parse_args()
    if arguments.plain:
        print(json.dumps(plain_rates(arguments.plain)))
    else:
        plain.head("sweep: 9 learning rates x 30 epochs, EfficientNet-Lite0, freeze=backbone")
        with tempfile.TemporaryDirectory() as temporary:
            if arguments.part in (None, "lite0"):
                against_the_plain_recipe(Path(temporary))
            if arguments.part in (None, "mlflow"):
                with_mlflow(Path(temporary))
            if arguments.part in (None, "alexnet"):
                fully_connected(Path(temporary))
