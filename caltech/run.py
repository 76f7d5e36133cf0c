"""A run's directory: one process at a time, and a result that is never lost."""

import json
import logging
import os
import shutil
import socket
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from torch import Tensor

from caltech.checkpoint import previous_of
from caltech.errors import DamagedError, HeldError
from caltech.files import explaining_full_disk, read_sealed_json, replacing, write_sealed_json
from caltech.loop import Evaluation
from caltech.provenance import PROVENANCE

log = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.pt"
RESULT = "result.json"
DATA = "data.json"
TIMING = "timing.json"
# What the tracker keeps; a report needs nothing else.
ARTIFACTS = (
    "config.yaml",
    PROVENANCE,
    DATA,
    TIMING,
    "predictions_last.npz",
    "predictions_best.npz",
    "best.safetensors",
)


@contextmanager
def claimed(directory: Path, waits: bool) -> Iterator[None]:
    """Hold `directory` for this process; the operating system lets go of it if the process dies.

    Args:
        waits: while another process computes the same run, as another job of a sweep does whose
            values come to the same key.

    Raises:
        HeldError: another process holds it, and this one does not wait; names its pid and host.
        DiskError: what a run writes has no room.
    """
    directory.mkdir(parents=True, exist_ok=True)
    holder = directory / "holder.json"
    lock = FileLock(directory / "run.lock")
    try:
        lock.acquire(timeout=2)  # closing a dead run in MLflow takes the lock for a moment
    except Timeout:
        who = " ".join(holder.read_text().split()) if holder.is_file() else "starting just now"
        held = f"{directory} is being computed by another process ({who})."
        if not waits:
            raise HeldError(
                f"{held} Wait for it, or type study=NAME to compute the same run in another place."
            ) from None
        log.info("%s This job waits for its result.", held)
        lock.acquire()
    try:
        with explaining_full_disk(directory):  # MLflow's, for one, which may be elsewhere
            write_json(holder, {"pid": os.getpid(), "host": socket.gethostname()})
            yield
    finally:
        holder.unlink(missing_ok=True)
        lock.release()


def recorded_result(directory: Path, pruned_too: bool) -> dict[str, Any] | None:
    """The result of a finished run, or of a pruned one if nothing but a pruner would go on.

    A damaged one is told and computed again.
    """
    path = directory / RESULT
    try:
        result = read_sealed_json(path) if path.is_file() else None
    except DamagedError as error:
        log.warning("%s It is computed again from the last checkpoint.", error)
        return None
    return None if result and result["status"] == "pruned" and not pruned_too else result


def record_result(directory: Path, result: Mapping[str, Any]) -> None:
    """The run has ended: with a result, the checkpoint before the last is needed no more."""
    write_sealed_json(directory / RESULT, result)
    previous_of(directory / CHECKPOINT).unlink(missing_ok=True)


def state(directories: Sequence[Path]) -> str:
    """What typing a run's command would find: it is finished, pruned, resumable or new."""
    states = []
    for directory in directories:
        if result := recorded_result(directory, pruned_too=True):
            states.append(result["status"])
        else:
            states.append("resumable" if (directory / CHECKPOINT).is_file() else "new")
    counted = Counter(states)
    return states[0] if len(counted) == 1 else ", ".join(f"{n} {s}" for s, n in counted.items())


def pruned_result(key: str, progress: Mapping[str, Any]) -> dict[str, Any]:
    """Of a run that a pruner stopped after an epoch: it has no test accuracy."""
    result = {"key": key, "status": "pruned"}
    epochs = {"last": len(progress["history"]), "best": progress["best_epoch"]}
    for name, epoch in epochs.items():
        result[name] = dict(progress["history"][epoch - 1])
        result[name].pop("images_per_second")
    return result


def objective(result: Mapping[str, Any]) -> float:
    """What sweeps maximise: the best validation accuracy (top-1) of any epoch."""
    return result["best"]["val/accuracy"]


def set_aside(directory: Path) -> None:
    """Move what an earlier run left into a folder beside it; nothing is deleted."""
    earlier = [path for path in directory.iterdir() if path.suffix != ".lock"]
    earlier = [path for path in earlier if path.name not in ("holder.json", "train.log")]
    earlier = [path for path in earlier if not path.name.startswith("earlier-")]
    if earlier:
        aside = directory / f"earlier-{datetime.now(UTC):%Y%m%dT%H%M%S%fZ}"
        aside.mkdir()
        for path in earlier:
            shutil.move(path, aside)


def log_epoch(metrics: Mapping[str, float], num_epochs: int) -> None:
    """One line an epoch."""
    log.info(
        "epoch %d/%d  lr %.2g  train loss %.4f accuracy %.4f  val loss %.4f accuracy %.4f  "
        "%.0f images/s", metrics["epoch"], num_epochs, metrics["lr"], metrics["train/loss"],
        metrics["train/accuracy"], metrics["val/loss"], metrics["val/accuracy"],
        metrics["images_per_second"],
    )  # fmt: skip


def report(result: Mapping[str, Any]) -> None:
    """Log a run's accuracies."""
    if result["status"] == "pruned":
        last, best = result["last"]["epoch"], objective(result)
        log.info("pruned after epoch %d: best validation accuracy %.4f", last, best)
        return
    for name in ("last", "best"):
        log.info(
            "%s (epoch %d): validation accuracy %.4f, test accuracy %.4f", name,
            result[name]["epoch"], result[name]["val/accuracy"], result[name]["test/accuracy"],
        )  # fmt: skip
    log.info("always the most frequent class: test accuracy %.4f", result["majority/accuracy"])


def final_metrics(result: Mapping[str, Any]) -> dict[str, float]:
    """The last weights' test metrics as in the tables; the best weights' as test/best_accuracy.

    MLflow groups its charts by what stands before the slash and sorts the groups by name.
    """
    last = {name: value for name, value in result["last"].items() if name.startswith("test/")}
    best = {name: result["best"][name] for name in (*last, "val/loss", "val/accuracy")}
    renamed = {name.replace("/", "/best_"): value for name, value in best.items()}
    return last | renamed | {"val/best_epoch": result["best"]["epoch"]}


def artifacts(directory: Path) -> list[Path]:
    """Files of a run that its tracker keeps; a pruned run has neither weights nor predictions."""
    files = [directory / name for name in ARTIFACTS]
    return [path for path in files if path.is_file()]


def save_predictions(path: Path, indices: Tensor, test: Evaluation) -> None:
    """Answers for paired tests and calibration: index of the image, label, class, probability."""
    with replacing(path) as partial, partial.open("wb") as file:
        np.savez(
            file,
            indices=indices.numpy(),
            labels=test.labels.numpy(),
            predictions=test.predictions.numpy(),
            confidences=test.confidences.numpy(),
        )


def write_json(path: Path, value: Any) -> None:
    """Write atomically, keys in the given order."""
    with replacing(path) as partial:
        partial.write_text(json.dumps(value, indent=2) + "\n")
