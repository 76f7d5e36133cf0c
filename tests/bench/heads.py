"""One warm trial of a head on cached features against the bare loop, in one process.

    python -m tests.bench.heads    1 minute on 2 cores, after the features are in the cache

Bare: 30 epochs of gather, linear 1280 -> 101, cross-entropy, SGD and evaluation, and the test, as
short as torch allows. Product: caltech.train.train of the default command with a learning rate of
its own, without MLflow and with it: config, data, model, digests, checkpoints, weights, results.
"""

import argparse
import functools
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from caltech.config import build
from caltech.data.dataset import Dataset
from caltech.train import train
from tests.bench import plain

NUM_EPOCHS, BATCH, WIDTH = 30, 256, 1280


def bare(data: Dataset, features: torch.Tensor) -> None:
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


@torch.inference_mode()
def evaluated(linear: nn.Module, features: torch.Tensor, data: Dataset, rows: torch.Tensor) -> int:
    hits = 0
    for part in rows.split(BATCH):
        hits += (linear(features[part]).argmax(1) == data.labels[part]).sum().item()
    return hits


def compare(folder: Path, repeats: int, waits: bool) -> None:
    plain.head("heads: a warm trial of 30 epochs, 1280 -> 101, batch 256, against the bare loop")
    rates = (1e-3 * number for number in itertools.count(1))
    store = ("tracking=mlflow", f"tracking.uri=sqlite:///{folder}/mlflow.db",
             f"tracking.artifacts={folder}/artifacts")  # fmt: skip
    data = build(plain.configure(folder).data)
    features = torch.randn(len(data.labels), WIDTH)
    processor: dict[str, list[float]] = {}  # seconds, which other processes disturb less

    def trial(*overrides: str) -> None:
        train(plain.configure(folder, f"lr={next(rates):g}", *overrides))

    def timed(side: str, call: Callable[[], None]) -> float:
        start, used = time.perf_counter(), time.process_time()
        call()
        processor.setdefault(side, []).append(time.process_time() - used)
        return time.perf_counter() - start

    calls = {
        "bare loop": lambda: bare(data, features),
        "product": trial,
        "product, MLflow": lambda: trial(*store),
    }
    for call in calls.values():  # caches, imports, the store
        call()
    sides = {side: functools.partial(timed, side, call) for side, call in calls.items()}
    seconds = plain.alternate(sides, repeats, waits)
    plain.table(
        ("seconds", "median", "least", "of the processor", "n"),
        [(side, statistics.median(values), min(values), statistics.median(processor[side]), repeats)
         for side, values in seconds.items()],
    )  # fmt: skip
    plain.others_line()
    for what, series in (("seconds", seconds), ("processor seconds", processor)):
        median = plain.medians(series)
        for side, goal in (("product", 1.2), ("product, MLflow", 1.5)):
            ratio = median[side] / median["bare loop"]
            plain.verdict(f"{side} / bare loop, {what}", ratio, f"<= {goal}", ratio <= goal)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--busy", action="store_true", help="do not wait for a quiet machine")
    with tempfile.TemporaryDirectory() as temporary:
        given = parser.parse_args()
        compare(Path(temporary), given.repeats, not given.busy)
