"""Train one classifier: `python -m caltech.train model=resnet50 freeze=none lr=1e-2`."""

import contextlib
import logging
import os
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from caltech import checkpoint, features, run
from caltech.augment import Views
from caltech.config import CONF, build, register, validate
from caltech.data import Dataset, Images
from caltech.device import choose_device
from caltech.errors import CaltechError, InputError
from caltech.freeze import digest, split_frozen
from caltech.loop import Evaluation, evaluate, train_epoch
from caltech.model import Classifier
from caltech.tracking import Description, log10

log = logging.getLogger(__name__)


def train(
    cfg: DictConfig, choices: Mapping[str, str] | None = None, overrides: Sequence[str] = ()
) -> float:
    """Compute the run that `cfg` describes, or go on with it, or answer what it gave before.

    Args:
        cfg: composed from conf/train.yaml.
        choices: option of each config group, for the tracker.
        overrides: as typed, for the tracker.

    Returns:
        The best validation accuracy (top-1) of any epoch: the objective of sweeps.

    Raises:
        InputError: before anything is written, if the config, the data or the weights are wrong.
        DivergedError: the loss is not finite.
    """
    validate(cfg)
    device = choose_device(cfg.device)
    torch.manual_seed(cfg.seed)

    data = build(cfg.data)
    augment = build(cfg.augment)
    model = build(cfg.model, num_classes=len(data.classes))
    require_fit(model, data)
    build(cfg.freeze, model)
    model.to(device, memory_format=torch.channels_last)
    frozen, trained = split_frozen(model)
    parameters = [p for p in trained.parameters() if p.requires_grad]
    optimizer = build(cfg.optimizer, parameters)
    schedule = build(cfg.schedule, optimizer)
    precision = build(cfg.precision)
    precision.warn_if_slow(device)
    scaler = precision.scaler(device)

    directory = Path(cfg.directory)
    with run.claimed(directory):
        if cfg.rerun:
            run.set_aside(directory)
        provenance = run.provenance(data, model, device)
        run.open_directory(directory, cfg, provenance)
        if result := run.recorded_result(directory):
            log.info("%s is finished already; rerun=true computes it again.", directory)
            return report(result)

        if len(frozen) and isinstance(augment, Views) and cfg.features == "auto":
            cache = Path(cfg.cache).expanduser()
            network = trained
            inputs = features.extract(frozen, data, augment, precision, device, cache)
        else:
            network, inputs = model, Images(data, augment, device)
        labels = data.labels.to(device)
        frozen_before = frozen_digest(model)

        # A checkpoint holds what training changes; what is frozen comes from the weights again.
        path = directory / "checkpoint.pt"
        parts = dict(trained=trained, optimizer=optimizer, schedule=schedule, scaler=scaler)
        progress = {"history": [], "best_epoch": 0, "best_state": {}, "seconds": 0.0}
        if path.is_file():
            progress = checkpoint.load(path, parts)
            log.info("resuming %s after epoch %d", directory, len(progress["history"]))
        history = progress["history"]

        description = describe(cfg, choices or {}, overrides, data, provenance)
        with build(cfg.tracking, description) as tracker:
            for epoch in range(len(history) + 1, cfg.num_epochs + 1):
                start = time.perf_counter()
                torch.manual_seed(epoch_seed(cfg.seed, epoch))
                order = data.train[torch.randperm(len(data.train))]
                lr = schedule.get_last_lr()[0]
                metrics = train_epoch(
                    network, inputs, labels, order, cfg.batch_size, optimizer, scaler, precision, epoch
                )  # fmt: skip
                validation = evaluate(
                    network,
                    inputs,
                    labels,
                    data.validation,
                    cfg.batch_size,
                    precision,
                    "validation",
                )
                schedule.step()

                history.append({"epoch": epoch, "lr": lr, **metrics, **measures("val", validation)})
                if is_best(history):
                    progress |= {"best_epoch": epoch, "best_state": checkpoint.copy_of(trained)}
                progress["seconds"] += time.perf_counter() - start
                checkpoint.save(path, parts, progress)
                tracker.log_epochs(history)
                log_epoch(history[-1], cfg.num_epochs)

            if frozen_digest(model) != frozen_before:
                raise RuntimeError("A frozen parameter or buffer has changed: this is a bug.")
            result = {"key": cfg.key, "status": "finished"}
            weights = {"last": checkpoint.copy_of(trained), "best": progress["best_state"]}
            for name, epoch in (("last", len(history)), ("best", progress["best_epoch"])):
                trained.load_state_dict(weights[name])
                test = evaluate(
                    network, inputs, labels, data.test, cfg.batch_size, precision, f"test ({name})"
                )
                checkpoint.save_weights(directory / f"{name}.safetensors", model)
                save_predictions(directory / f"predictions_{name}.npz", data, test)
                result[name] = history[epoch - 1] | measures("test", test)
                result[name].pop("images_per_second")  # not the same in a second run
            result["majority/accuracy"] = data.majority_accuracy
            tracker.log_epochs(history)
            tracker.log_result(final_metrics(result), artifacts(directory))
        run.write_json(directory / "timing.json", {"seconds": progress["seconds"]})
        run.write_json(directory / run.RESULT, result)
        return report(result)


@torch.inference_mode()
def require_fit(model: Classifier, data: Dataset) -> None:
    """Raise InputError if the model cannot take one image of the data's size."""
    image = torch.zeros(1, 3, data.crop, data.crop, dtype=torch.uint8)
    try:
        shape = tuple(model.eval()(image).shape)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise InputError(
            f"The model cannot take images of {data.crop} x {data.crop}: {error}. Type another "
            "data.resize and data.crop, or another model."
        ) from error
    if shape != (1, len(data.classes)):
        raise InputError(
            f"The model gives {shape} for one image instead of one logit for each of "
            f"{len(data.classes)} classes: it cannot be cut into backbone and head."
        )


def frozen_digest(model: Classifier) -> str:
    """Hash of the frozen stages' parameters and buffers."""
    return digest(stage for stage in model if stage.frozen)


def epoch_seed(seed: int, epoch: int) -> int:
    """All randomness of an epoch is a function of the run's seed and the epoch's number.

    So a resumed run needs no generator's state to go on exactly as it would have.
    """
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0])


def measures(split: str, evaluation: Evaluation) -> dict[str, float]:
    """Metrics under their names in tables and MLflow; the macro average is for the test alone."""
    named = {f"{split}/loss": evaluation.loss, f"{split}/accuracy": evaluation.accuracy}
    if split == "test":
        named["test/accuracy_per_class"] = evaluation.accuracy_per_class
    return named


def is_best(history: Sequence[Mapping[str, float]]) -> bool:
    """Whether the last epoch has a better validation accuracy than every one before it."""
    earlier = (epoch["val/accuracy"] for epoch in history[:-1])
    return history[-1]["val/accuracy"] > max(earlier, default=-1.0)


def save_predictions(path: Path, data: Dataset, test: Evaluation) -> None:
    """Answers for paired tests and calibration: index in the data set, label, class, probability."""
    with run.replacing(path) as partial, partial.open("wb") as file:
        np.savez(
            file,
            indices=data.test.numpy(),
            labels=test.labels.numpy(),
            predictions=test.predictions.numpy(),
            confidences=test.confidences.float().numpy(),
        )


def final_metrics(result: Mapping[str, Any]) -> dict[str, float]:
    """The last weights' under plain names, as in the tables; the best weights' under best/."""
    last = {k: v for k, v in result["last"].items() if k.startswith("test/")}
    best = {f"best/{k}": v for k, v in result["best"].items() if k.startswith(("test/", "val/"))}
    return last | best | {"best/epoch": result["best"]["epoch"]}


def artifacts(directory: Path) -> list[Path]:
    """Files of a run that its tracker keeps."""
    return [directory / name for name in ("config.yaml", run.PROVENANCE, "best.safetensors")]


def describe(
    cfg: DictConfig,
    choices: Mapping[str, str],
    overrides: Sequence[str],
    data: Dataset,
    provenance: Mapping[str, Any],
) -> Description:
    """What the tracker is told before the first epoch."""
    scalars = ("lr", "momentum", "weight_decay", "num_epochs", "step_size", "gamma", "batch_size")
    params = {name: cfg[name] for name in (*scalars, "seed")} | {"log10_lr": log10(cfg.lr)}
    groups = {name: option for name, option in choices.items() if not name.startswith("hydra")}
    identity = (groups.get("model", "model"), groups.get("freeze", ""), f"lr={cfg.lr:g}")
    shown = [o for o in overrides if o.split("=")[0] not in ("model", "freeze", "lr", "study")]
    return Description(
        directory=Path(cfg.directory),
        name=" ".join(part for part in (*identity, *shown) if part),
        params=params | {name: option for name, option in groups.items() if option is not None},
        tags={
            "study": cfg.study,
            "key": cfg.key,
            "directory": cfg.directory,
            "weights": provenance["weights"]["name"],
            "code": provenance["code"]["sha256"],
            "mlflow.source.git.commit": provenance["code"]["git"],
            "mlflow.source.name": "caltech.train",
        },
        data=provenance["data"] | {"source": data.name},
    )


def log_epoch(metrics: Mapping[str, float], num_epochs: int) -> None:
    log.info(
        "epoch %*d/%d  lr %.2g  train loss %.4f accuracy %.4f  val loss %.4f accuracy %.4f  %.0f images/s",
        len(str(num_epochs)), metrics["epoch"], num_epochs, metrics["lr"],
        metrics["train/loss"], metrics["train/accuracy"], metrics["val/loss"],
        metrics["val/accuracy"], metrics["images_per_second"],
    )  # fmt: skip


def report(result: Mapping[str, Any]) -> float:
    """Log a finished run's test accuracies and return its objective."""
    for name in ("last", "best"):
        log.info(
            "%s (epoch %d): validation accuracy %.4f, test accuracy %.4f (always the most frequent "
            "class: %.4f)", name, result[name]["epoch"], result[name]["val/accuracy"],
            result[name]["test/accuracy"], result["majority/accuracy"],
        )  # fmt: skip
    return result["best"]["val/accuracy"]


@hydra.main(config_path=str(CONF), config_name="train")
def compose_and_train(cfg: DictConfig) -> float:
    hydra_cfg = HydraConfig.get()
    try:
        return train(cfg, hydra_cfg.runtime.choices, hydra_cfg.overrides.task)
    except CaltechError:
        # Hydra has made the directory; a run refused before any work leaves none behind.
        with contextlib.suppress(OSError):
            Path(cfg.directory).rmdir()
            Path(cfg.directory).parent.rmdir()
        raise


def main() -> None:
    """Entry point; errors that a user can act on are one message without a traceback."""

    def show(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if isinstance(error, CaltechError) and not os.environ.get("HYDRA_FULL_ERROR"):
            print(f"error: {error}", file=sys.stderr)
        else:
            traceback.print_exception(kind, error, trace)

    sys.excepthook = show
    register()
    compose_and_train()


if __name__ == "__main__":
    main()
