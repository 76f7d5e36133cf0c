"""A frozen backbone's outputs: a batch a thread, as the product computes them, against all threads
on one batch, as it did before, and against folded BatchNorm.

    python -m tests.bench.extraction    1 minute on 2 cores; --model NAME for another

Folded has other bits (a relative error of about 1e-6), so that old run keys would not have their
results any more: it is measured here and not used.
"""

import argparse
import copy
import time
from collections.abc import Callable

import torch
from torch import nn

from caltech.models.classifier import Classifier
from caltech.models.freeze import split_frozen
from caltech.training import features
from caltech.training.device import choose_device, each
from caltech.training.precision import Precision
from tests.bench import plain
from tests.bench.product import model_of
from tests.bench.tried import folded

IMAGES, SIDE = 256, 224


class Stand:
    """As much of a data set as is asked for."""

    def __init__(self) -> None:
        self.pixels = torch.randint(256, (IMAGES, SIDE, SIDE, 3), dtype=torch.uint8)
        self.crop = SIDE


def rate(frozen: nn.Module, data: Stand, way: Callable) -> float:
    """Images a second."""
    before, features.each = features.each, way
    precision, device = Precision("float32", False), torch.device("cpu")
    start = time.perf_counter()
    try:
        features._outputs(frozen, data, "plain", precision, device, range(IMAGES), lambda _: None)
    finally:
        features.each = before
    return IMAGES / (time.perf_counter() - start)


def compare(name: str, repeats: int) -> None:
    plain.head(f"extraction: {name}, batches of {features.BATCH['cpu']}, {IMAGES} images")
    choose_device("cpu")
    model: Classifier = model_of(
        plain.configure("unused", f"model={name}", "model.weights=null"), 101
    )
    data, frozen = Stand(), split_frozen(model)[0].eval()
    fused = folded(copy.deepcopy(frozen))
    sides = {
        "all threads on one batch": lambda: rate(frozen, data, map),
        "a batch a thread": lambda: rate(frozen, data, each),
        "a batch a thread, BatchNorm folded": lambda: rate(fused, data, each),
    }
    for measure in sides.values():
        measure()
    rates = plain.medians(plain.alternate(sides, repeats))
    plain.table(("", "images/s", "n"), [(side, value, repeats) for side, value in rates.items()])
    plain.others_line()
    before, now, other = rates.values()
    plain.verdict("a batch a thread / all threads", now / before, ">= 1.2", now / before >= 1.2)
    plain.verdict("folded / not", other / now, "not used", True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    compare(given.model, given.repeats)
