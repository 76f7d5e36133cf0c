"""Building the decoded-pixel cache against one pass of the plain DataLoader.

    python -m tests.bench.pixels    2 minutes on 2 cores

caltech.data.pixels into a temporary folder, with one thread and with as many as cores
(torch.set_num_threads governs), on a sample of the images whose files are in the system's cache.
Then how fast the finished cache is read again, against a copy within memory.
"""

import argparse
import itertools
import os
import tempfile
import time
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import ImageFolder

from caltech.data import pixels
from caltech.data.folders import list_images
from tests.bench import plain

SAMPLE = 2000
BATCH = 64


def build_rate(images: Path, files: list[str], threads: int) -> float:
    """Images a second of the product's build."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            pixels.cached(pixels.of_files(images, files, 256), "bench", Path(folder)).read()
            return len(files) / (time.perf_counter() - start)
    finally:
        torch.set_num_threads(before)


def plain_rate(images: Path, count: int) -> float:
    """Images a second of a DataLoader with two workers, after its start."""
    folder = ImageFolder(str(images), plain.transforms())
    chosen = torch.randperm(len(folder))[:count].tolist()
    batches = iter(DataLoader(Subset(folder, chosen), BATCH, num_workers=2))
    next(batches)
    start = time.perf_counter()
    seen = sum(len(labels) for _, labels in batches)
    return seen / (time.perf_counter() - start)


def read_rates(images: Path, files: list[str]) -> dict[str, float]:
    """GB a second of copying all pixels into memory that is in use already."""
    with tempfile.TemporaryDirectory() as folder:
        pixels.cached(pixels.of_files(images, files, 256), "bench", Path(folder)).read()
        mapped = pixels.cached(pixels.of_files(images, files, 256), "bench", Path(folder)).read()
        target = torch.zeros_like(mapped)
        gigabytes = mapped.numel() / 1e9

        def copy(source: torch.Tensor) -> float:
            start = time.perf_counter()
            target.copy_(source)
            return gigabytes / (time.perf_counter() - start)

        first = copy(mapped)  # the kernel maps page after page
        memory = mapped.clone()
        copies = {"map": lambda: copy(mapped), "memory": lambda: copy(memory)}
        return {"first": first} | plain.medians(plain.alternate(copies, 5))


def main(repeats: int) -> None:
    plain.head(f"pixels: decode, Resize(256), CenterCrop, sample of {SAMPLE} images")
    images = plain.images_root() / "caltech101" / "101_ObjectCategories"
    every = list_images(images)
    files = list(itertools.islice(every, 0, None, max(1, len(every) // SAMPLE)))[:SAMPLE]
    for file in every:
        (images / file).read_bytes()
    cores = os.cpu_count() or 1
    sides = {
        "plain DataLoader, 2 workers": lambda: plain_rate(images, len(files)),
        "product, 1 thread": lambda: build_rate(images, files, 1),
        f"product, {cores} threads": lambda: build_rate(images, files, cores),
    }
    loader, one, many = plain.medians(plain.alternate(sides, repeats)).values()
    plain.table(
        ("", "images/s", "images/s a core", "n"),
        [
            (name, rate, rate / used, repeats)
            for name, rate, used in zip(
                sides, (loader, one, many), (min(2, cores), 1, cores), strict=True
            )
        ],
    )
    rates = read_rates(images, files)
    print(
        f"reading the cache again: {rates['map']:.1f} GB/s ({rates['first']:.1f} in the first pass "
        f"of a process), memory to memory {rates['memory']:.1f} GB/s"
    )
    plain.others_line()
    a_core = many / cores
    plain.verdict("build / plain pass", many / loader, ">= 1", many >= loader)
    plain.verdict("images/s a core", a_core, ">= 230", a_core >= 230)
    plain.verdict(f"{cores} threads / 1 thread", many / one, ">= 1.8", many / one >= 1.8)
    ratio = rates["map"] / rates["memory"]
    plain.verdict("second read / memory copy", ratio, ">= 0.8", ratio >= 0.8)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    main(parser.parse_args().repeats)
