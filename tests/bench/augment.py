"""What each part costs a step: augmentations, mixes, losses, averages, beside a step itself.

    python -m tests.bench.augment    3 minutes, or one round if that takes longer

A batch of 64 images of 224 pixels, out of 256, on the CPU. Every round measures all sides, forwards
or backwards, so that a slow drift and other processes fall on all of them. Time is the processor's,
of one thread, which others disturb less than a clock's; of each side the median and the least are
shown. Only what differs is timed: the augmentation alone, the mix alone, a loss with its gradient
alone, an average's update alone. The last row is a training step of EfficientNet-Lite0 on a batch
that is there, and the last column is the share of its median.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from tests.bench import plain

IMAGES, SIDE, BATCH, CROP, CLASSES = 256, 256, 64, 224, 101
AUGMENT = ["none", "flip_crop", "trivial", "resized_crop", "rand", "jitter", "erasing", "recipe"]
MIX = ["none", "mixup", "cutmix", "mixup_or_cutmix"]
LOSS = ["cross_entropy", "balanced", "focal"]
AVERAGE = ["none", "ema", "swa"]


def sides(folder: Path) -> dict[str, Callable[[], Any]]:
    """What is called for each row."""
    from caltech.config import build
    from caltech.data.augmentation.mix import Unmixed
    from caltech.training.device import choose_device
    from caltech.training.loss import prepare

    choose_device("cpu")
    torch.set_num_threads(1)
    pixels = torch.randint(256, (IMAGES, SIDE, SIDE, 3), dtype=torch.uint8)
    indices, labels = torch.randperm(IMAGES)[:BATCH], torch.randint(CLASSES, (BATCH,))
    images = pixels[indices, :CROP, :CROP].permute(0, 3, 1, 2)
    logits = torch.randn(BATCH, CLASSES, requires_grad=True)
    model = plain.network("efficientnet_lite0").to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)

    def option(group: str, name: str, *args: Any, **given: Any) -> Any:
        return build(plain.configure(folder, f"{group}={name}")[group], *args, **given)

    def with_gradient(loss: Callable, targets: Tensor) -> Callable[[], Any]:
        prepare(loss, torch.ones(CLASSES), Unmixed(CLASSES), "")
        return lambda: loss(logits, targets).backward()

    def of_average(average: Any) -> Callable[[], Any]:
        return lambda: (average.update(), average.end_epoch())

    def step() -> None:
        plain.train_step(model, optimizer, images.float().div_(255), labels)

    found: dict[str, Callable[[], Any]] = {}
    for name in AUGMENT:
        augment = option("augment", name)
        found[f"augment={name}"] = lambda augment=augment: augment(pixels, indices, CROP)
    for name in MIX:
        mix = option("mix", name, num_classes=CLASSES)
        found[f"mix={name}"] = lambda mix=mix: mix(images, labels)
    for name in LOSS:
        found[f"loss={name}"] = with_gradient(option("loss", name), labels)
    for name in AVERAGE:
        given = {"start": 0.0} if name == "swa" else {}  # from the first epoch
        found[f"average={name}"] = of_average(option("average", name, model, **given))
    return found | {"a step of EfficientNet-Lite0": step}


def main(minutes: float) -> None:
    plain.head("augment: what each part costs a step of 64 images of 224 pixels")
    with TemporaryDirectory() as folder, plain.Others() as others:
        called = sides(Path(folder))
        seconds: dict[str, list[float]] = {name: [] for name in called}
        rounds, end = 0, time.monotonic() + 60 * minutes
        while rounds == 0 or time.monotonic() < end:
            for name in list(called)[:: -1 if rounds % 2 else 1]:
                start = time.process_time()
                called[name]()
                seconds[name].append(time.process_time() - start)
            rounds += 1
    medians = plain.medians(seconds)
    step = medians["a step of EfficientNet-Lite0"]
    rows = [
        (name, 1e3 * median, 1e3 * min(seconds[name]), f"{median / step:.1%}")
        for name, median in medians.items()
    ]
    plain.table(("milliseconds a batch", "median", "least", "of a step"), rows)
    print(f"{rounds} rounds; other processes took {others.share:.0%} of the machine meanwhile")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=3)
    main(parser.parse_args().minutes)
