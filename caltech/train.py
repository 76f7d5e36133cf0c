"""Train one classifier: `python -m caltech.train model=resnet50 freeze=none lr=1e-2`."""

import logging
import signal
import statistics
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from caltech import (
    checkpoint,
    epochs,
    errors,
    features,
    interruption,
    provenance,
    run,
    search,
    sweep,
)
from caltech.augment import Views
from caltech.config import CONF, HYDRA_TARGETS, build, register
from caltech.data import Dataset, Images
from caltech.device import choose_device
from caltech.freeze import frozen_digest, split_frozen
from caltech.loop import Setup, evaluate
from caltech.model import Classifier, require_batch_of_one, require_fit
from caltech.schedule import require_steps
from caltech.search import NO_TRIAL, NoTrial, Trial
from caltech.tracking import describe, refusal_recorded
from caltech.trained import begin_from
from caltech.validation import refuse_null_groups, require_resolved, validate

log = logging.getLogger(__name__)
begun: list[DictConfig] = []  # configs of this process's jobs


def train(
    cfg: DictConfig,
    choices: Mapping[str, str] | None = None,
    overrides: Sequence[str] = (),
    trial: Trial | NoTrial = NO_TRIAL,
) -> dict[str, Any]:
    """Compute the run that `cfg` describes, or go on with it, or answer what it gave before.

    Args:
        cfg: composed from conf/train.yaml.
        choices: option of each config group, for the tracker.
        overrides: as typed, for the tracker.
        trial: of a sweep's study, which may stop the run after an epoch.

    Returns:
        What result.json holds: status and, of the last and the best epoch, losses and accuracies.

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
    if cfg.start is not None:
        begin_from(cfg.start, Path(cfg.output), model, data)
    build(cfg.freeze, model)
    if 1 in (cfg.batch_size, len(data.train) % cfg.batch_size):
        require_batch_of_one(model, data.crop, cfg.batch_size)
    model.to(device, memory_format=torch.channels_last)
    frozen, trained = split_frozen(model)
    loss = build(cfg.loss)
    optimizer = build(cfg.optimizer, [p for p in trained.parameters() if p.requires_grad])
    schedule = build(cfg.schedule, optimizer)
    require_steps(partial(build, cfg.schedule), cfg.num_epochs)
    average = build(cfg.average, trained)
    precision = build(cfg.precision)
    precision.warn_if_slow(device)
    scaler = precision.scaler(device)

    directory = Path(cfg.directory)
    with run.claimed(directory, waits=sweep.name() is not None):
        made_from = provenance.collect(data, model, device)
        ended = run.recorded_result(directory, pruned_too=True)
        if cfg.rerun and (ended or not provenance.is_begun(directory, made_from)):
            run.set_aside(directory)
            ended = None
        goes_on = ended is None or (ended["status"] == "pruned" and not trial.prunes)
        provenance.record(directory, cfg, made_from, goes_on)
        description = describe(cfg, choices or {}, overrides, sweep.name(), made_from)
        if not goes_on:
            log.info("%s is %s already; rerun=true computes it again.", directory, ended["status"])
            if sweep.name() is not None:
                build(cfg.tracking, description).join_sweep()
            run.report(ended)
            return ended

        if len(frozen) and isinstance(augment, Views) and cfg.features == "auto":
            cache = Path(cfg.cache).expanduser()
            inputs = features.extract(frozen, data, augment, precision, device, cache)
            network = trained
        else:
            network, inputs = model, Images(data, augment, device)
        labels = data.labels.to(device)
        learning = (loss, optimizer, average, scaler, precision)
        setup = Setup(network, inputs, labels, cfg.batch_size, *learning)

        with build(cfg.tracking, description) as tracker:
            frozen_before = frozen_digest(model)
            progress = epochs.fit(cfg, setup, data, trained, schedule, tracker, trial)
            if frozen_digest(model) != frozen_before:
                raise RuntimeError("A frozen parameter or buffer has changed: this is a bug.")
            if len(progress["history"]) < cfg.num_epochs:
                result = run.pruned_result(cfg.key, progress)
            else:
                result = test(cfg, setup, data, model, trained, progress)
            run.write_json(directory / run.DATA, data.describe())
            run.write_json(directory / run.TIMING, {"seconds": progress["seconds"]})
            metrics = run.final_metrics(result)
            tracker.log_result(result["status"], metrics, run.artifacts(directory))
        run.record_result(directory, result)
    run.report(result)
    return result


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
    with setup.average.applied():
        states = {"last": checkpoint.copy_of(trained), "best": progress["best_state"]}
    ends = {"last": len(progress["history"]), "best": progress["best_epoch"]}
    tested = None
    for name, state in states.items():
        if ends[name] != tested:  # the best epoch may be the last
            trained.load_state_dict(state)
            evaluation = evaluate(setup, data.test, f"test ({name})")
            tested = ends[name]
        checkpoint.save_weights(directory / f"{name}.safetensors", model)
        run.save_predictions(directory / f"predictions_{name}.npz", data.test, evaluation)
        result[name] = progress["history"][ends[name] - 1] | evaluation.measures("test")
        result[name].pop("images_per_second")  # all else is equal when a run is repeated
    result["majority/accuracy"] = data.majority_accuracy
    return result


@hydra.main(config_path=str(CONF), config_name="train", execution_whitelist=list(HYDRA_TARGETS))
def compose_and_train(cfg: DictConfig) -> float | None:
    """What Hydra calls for a run, or for each job of a sweep; the mean over seeds=N."""
    require_resolved(cfg)
    begun.append(cfg)
    hydra_cfg = HydraConfig.get()
    choices, overrides = hydra_cfg.runtime.choices, hydra_cfg.overrides.task
    with sweep.recorded(cfg, overrides, hydra_cfg.job) as record:
        if cfg.dry_run:
            validate(cfg)
            record.status = run.state([Path(each.directory) for each in repeated(cfg)])
            return None
        with refusal_recorded(cfg, choices, overrides, sweep.name()):
            validate(cfg)
            with search.trial(cfg, record, overrides, sweep.folder()) as trial:
                results = repeat(cfg, choices, overrides, trial)
                record.status = results[-1]["status"]
                record.value = statistics.fmean(map(run.objective, results))
    return record.value


def repeat(
    cfg: DictConfig, choices: Mapping[str, str], overrides: Sequence[str], trial: Trial | NoTrial
) -> list[dict[str, Any]]:
    """Train with each seed. The first stands for the point: if it is pruned, so are the others."""
    first, *others = repeated(cfg)
    results = [train(first, choices, overrides, trial)]
    if results[0]["status"] != "pruned":
        results += [train(each, choices, overrides) for each in others]
    return results


def repeated(cfg: DictConfig) -> list[DictConfig]:
    """The config once for each of its seeds, each with its own key and directory."""
    if cfg.seeds is None:
        return [cfg]
    return [OmegaConf.merge(cfg, {"seed": seed, "seeds": None}) for seed in range(cfg.seeds)]


def main() -> None:
    """Entry point; errors that a user can act on are one message without a traceback."""
    errors.show_as_messages(begun)
    logging.raiseExceptions = False  # a log on a full disk: the run says it, not each line
    signal.signal(signal.SIGTERM, interruption.raise_at_once)
    register()
    begun.clear()
    refuse_null_groups(sys.argv[1:])
    if "--cfg" in sys.argv and "--resolve" not in sys.argv:
        sys.argv.append("--resolve")  # the key, and the values that groups take from the root
    try:
        with sweep.summarised():
            compose_and_train()
    except KeyboardInterrupt:
        print("interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    # By the module's own name, so that jobs in other processes can import what they are to call.
    from caltech.train import main as imported

    imported()
