"""Train one classifier: `python -m caltech.train model=resnet50 freeze=none lr=1e-2`."""

import logging
import signal
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from caltech import errors
from caltech.config import build, hydra_targets, register
from caltech.data.augment import Views
from caltech.data.dataset import Dataset
from caltech.files import write_json
from caltech.models.classifier import Classifier, require_batch_of_one, require_fit
from caltech.models.freeze import frozen_digest, split_frozen
from caltech.runs import checkpoint, provenance
from caltech.runs.directory import RunDirectory
from caltech.runs.find import begin_from
from caltech.runs.progress import Progress
from caltech.runs.result import PRUNED, Result, state_of
from caltech.settings import CONF, refuse_null_groups, require_whole, validate
from caltech.sweeps import jobs, trials
from caltech.tracking.description import describe
from caltech.tracking.tracker import refusal_recorded
from caltech.training import features, signals
from caltech.training.device import choose_device
from caltech.training.epoch import Batches, Learner, evaluate, learner_of
from caltech.training.fit import NOBODY, Observer, fit
from caltech.training.inputs import Images

log = logging.getLogger(__name__)


def train(
    cfg: DictConfig,
    choices: Mapping[str, str] | None = None,
    overrides: Sequence[str] = (),
    observer: Observer = NOBODY,
) -> Result:
    """Compute the run that `cfg` describes, or go on with it, or answer what it gave before.

    Args:
        cfg: composed from conf/train.yaml.
        choices: option of each config group, for the tracker.
        overrides: as typed, for the tracker.
        observer: is told of every step and epoch, and may end the training after an epoch.

    Returns:
        What result.json holds: status and, of the last and the best epoch, losses and accuracies.

    Raises:
        InputError: before anything is written, if the config, the data or the weights are wrong.
        DivergedError: the loss is not finite.
    """
    validate(cfg)
    cfg = OmegaConf.merge(cfg, {"key": cfg.key})  # settled, whatever comes to lie on the disk
    device = choose_device(cfg.device)
    torch.manual_seed(cfg.seed)

    data = build(cfg.data)
    augment = build(cfg.augment)
    model = build(cfg.model, num_classes=len(data.classes), size=data.crop)
    require_fit(model, data.crop, len(data.classes))
    if cfg.start is not None:
        begin_from(cfg.start, Path(cfg.output), model, data)
    build(cfg.freeze, model, size=data.crop)
    if 1 in (cfg.batch_size, len(data.train) % cfg.batch_size):
        require_batch_of_one(model, data.crop, cfg.batch_size)
    model.to(device, memory_format=torch.channels_last)
    frozen, trainable = split_frozen(model)
    is_cached = len(frozen) > 0 and isinstance(augment, Views) and cfg.features == "auto"
    learner = learner_of(cfg, trainable if is_cached else model, trainable, device)

    directory, sweep = RunDirectory(cfg.directory), jobs.sweep()
    with directory.claimed(waits=sweep is not None):
        made_from = provenance.collect(data, model, device)
        ended = Result.read(directory, pruned_too=True)
        if cfg.rerun and (ended or not provenance.is_begun(directory, made_from)):
            directory.set_aside()
            ended = None
        goes_on = ended is None or (ended.status == PRUNED and not observer.prunes)
        provenance.record(directory, cfg, made_from, goes_on)
        description = describe(cfg, choices or {}, overrides, sweep, made_from)
        if not goes_on:
            log.info("%s is %s already; rerun=true computes it again.", directory, ended.status)
            if sweep is not None:
                build(cfg.tracking, description).join_sweep()
            ended.log()
            return ended

        if is_cached:
            cache = Path(cfg.cache).expanduser()
            inputs = features.extract(frozen, data, augment, learner.precision, device, cache)
        else:
            inputs = Images(data, augment, device)
        batches = Batches(inputs=inputs, labels=data.labels.to(device), size=cfg.batch_size)
        with build(cfg.tracking, description) as tracker:
            result = compute(cfg, learner, batches, data, model, directory, [tracker, observer])
            tracker.log_result(result)
        result.write(directory)
    result.log()
    return result


def compute(
    cfg: DictConfig,
    learner: Learner,
    batches: Batches,
    data: Dataset,
    model: Classifier,
    directory: RunDirectory,
    observers: Sequence[Observer],
) -> Result:
    """Train the epochs that are left and, unless the run is pruned, test once."""
    frozen_before = frozen_digest(model)
    progress = fit(cfg, learner, batches, data, directory, observers)
    if frozen_digest(model) != frozen_before:
        raise RuntimeError("A frozen parameter or buffer has changed: this is a bug.")
    tested = None
    if len(progress.history) == cfg.num_epochs:
        tested = test_once(learner, batches, data, model, progress, directory)
    write_json(directory.data, data.describe())
    write_json(directory.timing, {"seconds": progress.seconds})
    return Result.of(cfg.key, progress, tested, data.majority_accuracy)


def test_once(
    learner: Learner,
    batches: Batches,
    data: Dataset,
    model: Classifier,
    progress: Progress,
    directory: RunDirectory,
) -> dict[str, dict[str, float]]:
    """Test once with the last and once with the best epoch's weights, and keep both models.

    The study does not say which of the two it used; its tables are compared with the last.
    """
    with learner.average.applied():
        states = {"last": checkpoint.copy_of(learner.trainable), "best": progress.best_state}
    epochs = {"last": len(progress.history), "best": progress.best_epoch}
    measured, tested = {}, None
    for name, state in states.items():
        if epochs[name] != tested:  # the best epoch may be the last
            learner.trainable.load_state_dict(state)
            evaluation = evaluate(learner, batches, data.test, f"test ({name})")
            tested = epochs[name]
        checkpoint.save_weights(directory.weights(name), model)
        evaluation.save(directory.predictions(name), data.test)
        measured[name] = evaluation.measures("test")
    return measured


@hydra.main(config_path=str(CONF), config_name="train", execution_whitelist=hydra_targets())
def compose_and_train(cfg: DictConfig) -> float | None:
    """What Hydra calls for a run, or for each job of a sweep; the mean over seeds=N."""
    require_whole(cfg)
    errors.composed()
    hydra_cfg = HydraConfig.get()
    choices, overrides = hydra_cfg.runtime.choices, hydra_cfg.overrides.task
    with jobs.recorded(cfg, overrides, hydra_cfg.job) as record:
        if cfg.dry_run:
            validate(cfg)
            record.status = state_of(RunDirectory(each.directory) for each in repeated(cfg))
            return None
        with refusal_recorded(cfg, choices, overrides, jobs.sweep()):
            validate(cfg)
            with trials.trial(cfg, record, overrides, jobs.sweep()) as trial:
                results = repeat(cfg, choices, overrides, trial)
                record.status = results[-1].status
                record.value = statistics.fmean(result.objective for result in results)
    return record.value


def repeat(
    cfg: DictConfig, choices: Mapping[str, str], overrides: Sequence[str], trial: Observer
) -> list[Result]:
    """Train with each seed. The first stands for the point: if it is pruned, so are the others."""
    first, *others = repeated(cfg)
    results = [train(first, choices, overrides, trial)]
    if results[0].status != PRUNED:
        results += [train(each, choices, overrides) for each in others]
    return results


def repeated(cfg: DictConfig) -> list[DictConfig]:
    """The config once for each of its seeds, each with its own key and directory."""
    if cfg.seeds is None:
        return [cfg]
    return [OmegaConf.merge(cfg, {"seed": seed, "seeds": None}) for seed in range(cfg.seeds)]


def main() -> None:
    """Entry point; errors that a user can act on are one message without a traceback."""
    logging.raiseExceptions = False  # a log on a full disk: the run says it, not each line
    signal.signal(signal.SIGTERM, signals.raise_at_once)
    if "--cfg" in sys.argv and "--resolve" not in sys.argv:
        sys.argv.append("--resolve")  # the key, and the values that groups take from the root
    with errors.shown_as_messages("interrupted; the same command goes on from here"):
        register()
        refuse_null_groups(sys.argv[1:])
        with jobs.summarised():
            compose_and_train()


if __name__ == "__main__":
    # By the module's own name, so that jobs in other processes can import what they are to call.
    from caltech.train import main as imported

    imported()
