"""A frozen backbone's outputs: a batch a thread, as the product computes them, against all threads
on one batch, as it did before, and against features=folded; and those in bfloat16.

    python -m tests.bench.extraction    2 minutes on 2 cores; --model NAME for another

The error is that of all outputs, relative to float32 as it is. The processor's seconds count where
the machine has other work. bfloat16 is precision=bf16.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from caltech.models.freeze import folded, split_frozen
from caltech.training import features
from caltech.training.device import choose_device, each
from caltech.training.precision import Precision
from tests.bench import plain
from tests.bench.product import model_of

SIDE = 224


class Stand:
    """As much of a data set as is asked for."""

    def __init__(self, images: int) -> None:
        torch.manual_seed(0)
        self.pixels = torch.randint(256, (images, SIDE, SIDE, 3), dtype=torch.uint8)
        self.crop = SIDE


def outputs(
    frozen: nn.Module, data: Stand, way: Callable = each, kind: str = "float32"
) -> tuple[Tensor, float, float]:
    """The outputs, images a second, and images a second of one processor."""
    before, features.each = features.each, way
    precision, device, images = Precision(kind, False), torch.device("cpu"), len(data.pixels)
    start, used = time.perf_counter(), time.process_time()
    try:
        found = features._outputs(frozen, data, "plain", precision, device, range(images), int)
    finally:
        features.each = before
    rates = (images / (time.perf_counter() - start), images / (time.process_time() - used))
    return found.float(), *rates


def compare(name: str, images: int, repeats: int, waits: bool) -> None:
    plain.head(f"extraction: {name}, batches of {features.BATCH['cpu']}, {images} images")
    choose_device("cpu")
    weights = [] if name == "efficientnet_lite0" else ["model.weights=null"]
    model = model_of(plain.configure("unused", f"model={name}", *weights), plain.NUM_CLASSES)
    data, frozen = Stand(images), split_frozen(model)[0].eval()
    fused = folded(frozen, SIDE)
    ways = {
        "all threads on one batch": (frozen, data, map),
        "a batch a thread": (frozen, data, each),
        "features=folded": (fused, data, each),
        "precision=bf16": (frozen, data, each, "bfloat16"),
        "both": (fused, data, each, "bfloat16"),
    }
    expected, errors, processor = outputs(frozen, data)[0], {}, {way: [] for way in ways}

    def rate(way: str) -> float:
        found, images_a_second, own = outputs(*ways[way])
        errors[way] = f"{(found - expected).norm() / expected.norm():.1e}"
        processor[way].append(own)
        return images_a_second

    rates = plain.medians(
        plain.alternate({way: (lambda way=way: rate(way)) for way in ways}, repeats, waits)
    )
    own = plain.medians(processor)
    plain.table(
        ("", "images/s", "images/s of a processor", "relative error", "n"),
        [(way, rates[way], own[way], errors[way], repeats) for way in ways],
    )
    plain.others_line()
    before, now, fused_rate, *_ = rates.values()
    plain.verdict("a batch a thread / all threads", now / before, ">= 1.2", now / before >= 1.2)
    for what, found in (
        ("", fused_rate / now),
        (", by the processor", own["features=folded"] / own["a batch a thread"]),
    ):
        plain.verdict(f"features=folded / auto{what}", found, ">= 1.2", found >= 1.2)  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="efficientnet_lite0")
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--busy", action="store_true", help="do not wait for a quiet machine")
    given = parser.parse_args()
    compare(given.model, given.images, given.repeats, not given.busy)
