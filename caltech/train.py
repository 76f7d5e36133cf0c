"""Train one classifier: `python -m caltech.train model=resnet50 freeze=none lr=1e-2`."""

import dataclasses
import logging
import os
import signal
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from caltech import checkpoint, features, interruption, run, sweep
from caltech.augment import Views
from caltech.config import (
    CONF,
    HYDRA_TARGETS,
    build,
    refuse_null_groups,
    register,
    validate,
)
from caltech.data import Dataset, Images
from caltech.device import choose_device
from caltech.errors import CaltechError
from caltech.freeze import frozen_digest, split_frozen
from caltech.loop import Setup, Totals, epoch_seed, evaluate, train_epoch
from caltech.model import Classifier, require_batch_of_one, require_fit
from caltech.tracking import describe

log = logging.getLogger(__name__)
begun: list[DictConfig] = []  # configs of this process's jobs


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
    require_fit(model, data.crop, len(data.classes))
    build(cfg.freeze, model)
    if 1 in (cfg.batch_size, len(data.train) % cfg.batch_size):
        require_batch_of_one(model, data.crop, cfg.batch_size)
    model.to(device, memory_format=torch.channels_last)
    frozen, trained = split_frozen(model)
    optimizer = build(cfg.optimizer, [p for p in trained.parameters() if p.requires_grad])
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
            return run.report(result)

        if len(frozen) and isinstance(augment, Views) and cfg.features == "auto":
            cache = Path(cfg.cache).expanduser()
            inputs = features.extract(frozen, data, augment, precision, device, cache)
            network = trained
        else:
            network, inputs = model, Images(data, augment, device)
        labels = data.labels.to(device)
        setup = Setup(network, inputs, labels, cfg.batch_size, optimizer, scaler, precision)

        description = describe(cfg, choices or {}, overrides, provenance)
        with build(cfg.tracking, description) as tracker:
            frozen_before = frozen_digest(model)
            progress = fit(cfg, setup, data, trained, schedule, tracker)
            if frozen_digest(model) != frozen_before:
                raise RuntimeError("A frozen parameter or buffer has changed: this is a bug.")
            result = test(cfg, setup, data, model, trained, progress)
            tracker.log_result(run.final_metrics(result), run.artifacts(directory))
        run.write_json(directory / "timing.json", {"seconds": progress["seconds"]})
        run.record_result(directory, result)
        return run.report(result)


def fit(
    cfg: DictConfig, setup: Setup, data: Dataset, trained: Classifier, schedule: Any, tracker: Any
) -> dict[str, Any]:
    """Train the epochs that are left, with a checkpoint after each; return the run's progress.

    A checkpoint holds what training changes; what is frozen comes from the weights again.
    """
    path = Path(cfg.directory) / run.CHECKPOINT
    parts = {"trained": trained, "schedule": schedule}
    parts |= {"optimizer": setup.optimizer, "scaler": setup.scaler}
    progress = {"history": [], "best_epoch": 0, "best_state": {}, "seconds": 0.0, "inside": None}
    if (kept := checkpoint.load(path, parts)) is not None:
        progress = kept
        log.info("resuming %s after epoch %d", cfg.directory, len(progress["history"]))
    history = progress["history"]
    for epoch in range(len(history) + 1, cfg.num_epochs + 1):
        start = time.perf_counter()
        metrics = {"epoch": epoch, "lr": schedule.get_last_lr()[0]}
        with interruption.deferred() as interrupted:
            keep = keeper(path, parts, progress, 60 * cfg.checkpoint_minutes, interrupted)
            metrics |= fit_epoch(setup, data.train, cfg.seed, epoch, progress["inside"], keep)
        metrics |= evaluate(setup, data.validation, "validation").measures("val")
        schedule.step()

        if metrics["val/accuracy"] > max((e["val/accuracy"] for e in history), default=-1):
            progress |= {"best_epoch": epoch, "best_state": checkpoint.copy_of(trained)}
        history.append(metrics)
        progress |= {"seconds": progress["seconds"] + time.perf_counter() - start, "inside": None}
        checkpoint.save(path, parts, progress)
        tracker.log_epochs(history)
        run.log_epoch(metrics, cfg.num_epochs)
    tracker.log_epochs(history)
    return progress


def fit_epoch(
    setup: Setup,
    indices: Tensor,
    seed: int,
    epoch: int,
    inside: Mapping[str, Any] | None,
    keep: Callable[[Totals], None],
) -> dict[str, float]:
    """Train one epoch in its own random order, or what is left of it after a checkpoint inside."""
    torch.manual_seed(epoch_seed(seed, epoch))
    order = indices[torch.randperm(len(indices))]
    totals = Totals()
    if inside is not None:
        totals = Totals(**inside["totals"])
        checkpoint.set_generator_states(inside["generators"])
    return train_epoch(setup, order, epoch, totals, keep)


def keeper(
    path: Path,
    parts: Mapping[str, checkpoint.Stateful],
    progress: Mapping[str, Any],
    interval_seconds: float,
    interrupted: Callable[[], BaseException | None],
) -> Callable[[Totals], None]:
    """What to do after a step: save when it is time to or when interrupted, then raise that."""
    start = saved = time.perf_counter()

    def keep(totals: Totals) -> None:
        nonlocal saved
        now, error = time.perf_counter(), interrupted()
        if error is not None or now - saved > interval_seconds:
            inside = {
                "totals": dataclasses.asdict(totals),
                "generators": checkpoint.generator_states(),
            }
            seconds = progress["seconds"] + now - start
            checkpoint.save(path, parts, {**progress, "inside": inside, "seconds": seconds})
            saved = now
        if error is not None:
            raise error

    return keep


def test(
    cfg: DictConfig,
    setup: Setup,
    data: Dataset,
    model: Classifier,
    trained: Classifier,
    progress: Mapping[str, Any],
) -> dict[str, Any]:
    """Test once with the last and once with the best epoch's weights, and keep both models.

    The study does not say which of the two it used; its tables are compared with the last.
    """
    directory = Path(cfg.directory)
    result = {"key": cfg.key, "status": "finished"}
    states = {"last": checkpoint.copy_of(trained), "best": progress["best_state"]}
    epochs = {"last": len(progress["history"]), "best": progress["best_epoch"]}
    for name, state in states.items():
        trained.load_state_dict(state)
        evaluation = evaluate(setup, data.test, f"test ({name})")
        checkpoint.save_weights(directory / f"{name}.safetensors", model)
        run.save_predictions(directory / f"predictions_{name}.npz", data.test, evaluation)
        result[name] = progress["history"][epochs[name] - 1] | evaluation.measures("test")
        result[name].pop("images_per_second")  # all else is equal when a run is repeated
    result["majority/accuracy"] = data.majority_accuracy
    return result


@hydra.main(config_path=str(CONF), config_name="train", execution_whitelist=list(HYDRA_TARGETS))
def compose_and_train(cfg: DictConfig) -> float:
    """What Hydra calls for a run, or for each job of a sweep; the mean over seeds=N."""
    begun.append(cfg)
    hydra_cfg = HydraConfig.get()
    choices, overrides = hydra_cfg.runtime.choices, hydra_cfg.overrides.task
    seeds = [cfg.seed] if cfg.seeds is None else range(cfg.seeds)
    with sweep.recorded(cfg, overrides) as record:
        validate(cfg)
        record.value = statistics.fmean(train(seeded(cfg, s), choices, overrides) for s in seeds)
    return record.value


def seeded(cfg: DictConfig, seed: int) -> DictConfig:
    """The same config with another seed, and so with its own key and directory."""
    return OmegaConf.merge(cfg, {"seed": seed})


def main() -> None:
    """Entry point; errors that a user can act on are one message without a traceback."""

    wants_traceback = bool(os.environ.get("HYDRA_FULL_ERROR"))
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints a traceback of its own

    def show(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        # Before the job begins, it can only be what was typed that Hydra did not understand.
        is_input = isinstance(error, CaltechError) or (not begun and isinstance(error, Exception))
        if is_input and not wants_traceback:
            print(f"error: {error}", file=sys.stderr)
        else:
            traceback.print_exception(kind, error, trace)

    sys.excepthook = show
    logging.raiseExceptions = False  # a log on a full disk: the run says it, not each line
    signal.signal(signal.SIGTERM, interruption.raise_at_once)
    register()
    begun.clear()
    refuse_null_groups(sys.argv[1:])
    try:
        with sweep.summarised():
            compose_and_train()
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
