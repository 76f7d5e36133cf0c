"""What a step asks of a device: calls, and waits for it, by an earlier commit and by this one.

    python -m tests.bench.steps    1 minute

Calls are operators as a dispatch mode sees them: on a GPU, about a launch each. Waits are numbers
read from the device (item), masks (nonzero) and answers copied back. Batches of 256 images of which
32 by 32 pixels are cropped, four to a pass of evaluation. This side computes on `meta`, a device
from which nothing can be read, and takes the path of a GPU; the earlier one could not, so it
computes on the CPU. The average is of EfficientNet-Lite2.
"""

import argparse
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

EARLIER = "8447d3f"
SIZE, IMAGES = 256, 1024


class Counting(TorchDispatchMode):
    """Operators, and among them those for which the host waits."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None):
        name = str(function.overloadpacket)
        self.seen["calls"] += name not in ("aten.detach", "aten.view", "aten.alias")
        masks = name in ("aten.index", "aten.index_put_") and any(
            index is not None and index.dtype is torch.bool for index in args[1]
        )
        self.seen["waits"] += masks or name in ("aten._local_scalar_dense", "aten.nonzero")
        return function(*args, **kwargs or {})


def counted(call: Any, *given: Any) -> Counter[str]:
    with Counting() as counting:
        call(*given)
    return counting.seen


def measure() -> dict[str, int]:
    """Of the code that is imported."""
    import timm

    from caltech.data import augment
    from caltech.training.average import MovingAverage
    from caltech.training.epoch import Batches, evaluate, train_epoch
    from tests.training.conftest import Rows, learner

    is_new = hasattr(augment, "sent")
    device = torch.device("meta" if is_new else "cpu")
    pixels = torch.zeros(SIZE, 40, 40, 3, dtype=torch.uint8, device=device)
    found = {}
    for name, option in (("a crop", augment.FlipCrop(["plain"])),
                         ("a view", augment.Views(["plain", "mirrored"], ["plain"]))):  # fmt: skip
        seen = counted(option, pixels, torch.arange(SIZE, device=device), 32)
        found |= {f"{name} of 256 images: calls": seen["calls"],
                  f"{name} of 256 images: waits": seen["waits"]}  # fmt: skip
    average = MovingAverage(timm.create_model("tf_efficientnet_lite2"), 0.99)
    found["the moving average: calls"] = counted(average.update)["calls"]

    network, table = torch.nn.Linear(6, 4), torch.randn(IMAGES, 6)
    labels = torch.zeros(IMAGES, dtype=torch.long)
    batches = Batches(inputs=Rows(table), labels=labels, size=SIZE)
    reads = {"training": 0, "evaluation": 0}
    if is_new:
        reads = reads_of_this_code(network, batches, learner, train_epoch, evaluate)
    else:
        case = learner(network)
        reads["training"] = counted(train_epoch, case, batches, torch.arange(IMAGES), 1)["waits"]
        seen = counted(evaluate, case, batches, torch.arange(IMAGES), "validation")
        reads["evaluation"] = seen["waits"] + 2 * (IMAGES // SIZE) + 1  # .cpu(), and of the labels
    found["an epoch of 4 steps: reads"] = reads["training"]
    found["a pass of 4 batches of evaluation: reads"] = reads["evaluation"]
    return found


def reads_of_this_code(network: Any, batches: Any, learner: Any, train_epoch: Any, evaluate: Any):
    """By the two functions that read, which the tests on `meta` show to be the only ones."""
    from caltech.runs import progress
    from caltech.training import epoch

    reads = dict.fromkeys(("training", "evaluation"), 0)
    totals, received = epoch.Tally.totals, epoch.received

    def counted_totals(self: Any) -> Any:
        reads["training"] += 1
        return totals(self)

    def counted_received(*values: Any) -> Any:
        reads["evaluation"] += 1
        return received(*values)

    progress.UNREAD, epoch.Tally.totals, epoch.received = {}, counted_totals, counted_received
    case = learner(network)
    train_epoch(case, batches, torch.arange(IMAGES), 1)
    evaluate(case, batches, torch.arange(IMAGES), "validation")
    return reads


def compare(earlier: str) -> None:
    from tests.bench import plain

    plain.head("steps: calls and waits")
    command = ["git", "-C", str(plain.REPOSITORY), "archive", earlier, "caltech", "conf", "tests"]
    archived = subprocess.run(command, capture_output=True, check=True).stdout
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=io.BytesIO(archived)) as archive:
            archive.extractall(folder, filter="data")
        found = []
        for source in (folder, str(plain.REPOSITORY)):
            side = [sys.executable, str(Path(__file__).resolve()), "--side"]
            done = subprocess.run(side, env=os.environ | {"PYTHONPATH": source}, cwd=folder,
                                  stdout=subprocess.PIPE, text=True, check=True)  # fmt: skip
            found.append(json.loads(done.stdout.splitlines()[-1]))
    plain.table(("", earlier, "now"), [(name, found[0][name], found[1][name]) for name in found[0]])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--earlier", default=EARLIER, metavar="COMMIT")
    parser.add_argument("--side", action="store_true")
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(measure()))
    else:
        compare(arguments.earlier)
