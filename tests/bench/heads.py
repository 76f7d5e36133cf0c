"""One warm trial of a head on cached features against the bare loop, in one process.

    python -m tests.bench.heads    1 minute on 2 cores, after the features are in the cache

Bare: 30 epochs of gather, linear 1280 -> 101, cross-entropy, SGD and evaluation, and the test, as
short as torch allows. Product: caltech.train.train of the default command with a learning rate of
its own, without MLflow and with it: config, data, model, digests, checkpoints, weights, results.
"""

import argparse
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from caltech.config import build
from caltech.data.dataset import Dataset
from caltech.train import train
from tests.bench import plain

NUM_EPOCHS, BATCH, WIDTH = 30, 256, 1280


def bare_seconds(data: Dataset, features: torch.Tensor) -> float:
    start = time.perf_counter()
    linear = nn.Linear(WIDTH, len(data.classes))
    optimizer = torch.optim.SGD(linear.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-5)
    for _ in range(NUM_EPOCHS):
        for part in data.train[torch.randperm(len(data.train))].split(BATCH):
            loss = F.cross_entropy(linear(features[part]), data.labels[part])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        evaluated(linear, features, data, data.validation)
    evaluated(linear, features, data, data.test)
    return time.perf_counter() - start


@torch.inference_mode()
def evaluated(linear: nn.Module, features: torch.Tensor, data: Dataset, rows: torch.Tensor) -> int:
    hits = 0
    for part in rows.split(BATCH):
        hits += (linear(features[part]).argmax(1) == data.labels[part]).sum().item()
    return hits


def trial_seconds(folder: Path, rates: Iterator[float], told: dict, *overrides: str) -> float:
    start = time.perf_counter()
    cfg = plain.configure(folder, f"lr={next(rates):g}", *overrides)
    train(cfg)
    seconds = time.perf_counter() - start
    timing = json.loads((Path(cfg.directory) / "timing.json").read_text())
    told.setdefault(overrides, []).append(timing["seconds"])
    return seconds


def compare(folder: Path, repeats: int) -> None:
    plain.head("heads: a warm trial of 30 epochs, 1280 -> 101, batch 256, against the bare loop")
    rates, told = (1e-3 * number for number in itertools.count(1)), {}
    store = ("tracking=mlflow", f"tracking.uri=sqlite:///{folder}/mlflow.db",
             f"tracking.artifacts={folder}/artifacts")  # fmt: skip
    data = build(plain.configure(folder).data)
    features = torch.randn(len(data.labels), WIDTH)
    sides: dict[str, Callable[[], float]] = {
        "bare loop": lambda: bare_seconds(data, features),
        "product": lambda: trial_seconds(folder, rates, told),
        "product, MLflow": lambda: trial_seconds(folder, rates, told, *store),
    }
    for measure in sides.values():  # caches, imports, the store
        measure()
    told.clear()
    seconds = plain.alternate(sides, repeats)
    inside = dict(zip(list(sides)[1:], (told[()], told[store]), strict=True))
    plain.table(
        ("seconds", "median", "least", "of it training and validation", "n"),
        [(name, statistics.median(values), min(values),
          statistics.median(inside.get(name, values)), repeats)
         for name, values in seconds.items()],
    )  # fmt: skip
    plain.others_line()
    median = plain.medians(seconds)
    for name, goal in (("product", 1.2), ("product, MLflow", 1.5)):
        ratio = median[name] / median["bare loop"]
        plain.verdict(f"{name} / bare loop", ratio, f"<= {goal}", ratio <= goal)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    with tempfile.TemporaryDirectory() as temporary:
        compare(Path(temporary), parser.parse_args().repeats)
