"""Train one classifier: `python -m caltech.train model=resnet50 freeze=none lr=1e-2`."""

import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import hydra
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from torch import nn

from caltech import errors, fetching, plugins, probes
from caltech.config import build, code_of, hydra_targets, register, targets_of
from caltech.data.dataset import Dataset
from caltech.files import write_json, write_sealed_json
from caltech.flags import readable, require_flags
from caltech.inference import comparison
from caltech.models.classifier import Classifier, require_fit, require_no_single
from caltech.models.freeze import frozen_digest, frozen_names, split_frozen
from caltech.runs import checkpoint, ending, extension, logits, provenance
from caltech.runs.directory import RunDirectory
from caltech.runs.find import begin_from
from caltech.runs.result import PRUNED, Result, state_of
from caltech.settings import CONF, require_whole, validate
from caltech.sweeps import jobs, lists, search, seeds, sweepers
from caltech.sweeps.place import sweep
from caltech.sweeps.processes import one_process
from caltech.sweeps.study import trials
from caltech.tracking import description
from caltech.tracking.tracker import refusal_recorded
from caltech.training import features, loss, optimizers, signals
from caltech.training.device import be_deterministic, choose_device
from caltech.training.epoch import Batches, Learner
from caltech.training.fit import NOBODY, Observer, fit, learner_of, rates_differ
from caltech.training.testing import add_logits, are_last_wanted, test_once

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
        InputError: before anything is written of the run, if the config, the tracking store, the
            data or the weights are wrong.
        DivergedError: the loss is not finite.
    """
    validate(cfg)
    plugins.load(cfg.plugins)
    cfg = provenance.settled(cfg)
    device = choose_device(cfg.device, cfg.gpu_share, cfg.workers)
    directory, folder, tracker = RunDirectory(cfg.directory), sweep(), build(cfg.tracking)
    is_needed = folder is None  # a sweep has seen to the store, and outlasts its outages
    if cfg.rerun or not directory.result.is_file():
        tracker.open(Path(cfg.output), is_needed)

    data, augment, model, frozen, learner = prepared(cfg, device)
    data.complete()

    with directory.claimed(waits=folder is not None):
        made_from = provenance.collect(data, model, device, plugins.digests(targets_of(cfg)))
        if frozen_names(model):
            made_from["environment"]["features"] = features.way(frozen, augment, cfg.features)
        result = Result.read(directory, pruned_too=True)
        if cfg.rerun and (result or not provenance.is_begun(directory, made_from)):
            directory.set_aside()
            result = None
        goes_on = result is None or (result.status == PRUNED and not observer.prunes)
        if goes_on:
            checkpoint.require_own(directory.checkpoint, cfg.key, provenance.origin(made_from))
            extension.begin(cfg, directory, made_from, partial(rates_differ, cfg, learner))
        provenance.record(directory, cfg, made_from, goes_on)
        told = description.describe(cfg, choices or {}, overrides, folder, made_from)
        description.record(told, goes_on)
        if goes_on:
            if described := optimizers.describe(learner.optimizer):
                optimizers.log_groups(described)
                write_json(directory.groups, described)
            with tracker.watch(directory, is_needed) as watch:
                batches = fed(cfg, learner, data, augment, frozen, device)
                result = compute(cfg, learner, batches, data, model, directory, [watch, observer])
                result.write(directory, cfg.keep_checkpoint)
            comparison.warn_if_other(directory, cfg, data)
        else:
            log.info("%s is %s already; rerun=true computes it again.", directory, result.status)
            ending.warn_if_harmed(directory)
            if result.status != PRUNED:
                if cfg.logits == "keep" and not logits.are_there(directory):
                    batches = fed(cfg, learner, data, augment, frozen, device)
                    add_logits(learner, batches, data, model, directory)
                ending.warn_if_not_kept(directory, cfg)
    tracker.tell(directory, is_last=is_needed)  # of a run that was finished before, too
    result.log()
    ending.warn_if_collapsed(directory, data.classes)
    return result


def prepared(
    cfg: DictConfig, device: torch.device
) -> tuple[Dataset, Any, Classifier, nn.Module | None, Learner]:
    """What a run is computed with, once all that it may be refused for has been looked at.

    Returns:
        Data, augmentation, model, what of that is frozen and computed apart, what learns.
    """
    be_deterministic(cfg.deterministic, device)
    torch.manual_seed(cfg.seed)
    data = build(cfg.data)
    if not cfg.rerun:
        provenance.require_data(RunDirectory(cfg.directory), data)
    augment = build(cfg.augment)
    probes.require_data(data, cfg.data._target_)
    probes.require_augment(augment, cfg.augment._target_, data.side, data.crop)
    model = build(cfg.model, num_classes=len(data.classes), size=data.crop)
    require_fit(model, data.crop, len(data.classes))
    again = partial(build, cfg.model, num_classes=len(data.classes), load=False, size=data.crop)
    probes.require_rebuilt(model, again, cfg.model._target_, cfg.model, data.crop)
    if cfg.start is not None:
        begin_from(cfg.start, Path(cfg.output), model, data)
    build(cfg.freeze, model, size=data.crop)
    require_no_single(model, data.crop, len(data.train), cfg.batch_size, cfg.micro_batch)
    model.to(device, memory_format=torch.channels_last)
    frozen, trainable = split_frozen(model)
    probes.require_features(frozen, cfg.model._target_, data.crop, device)
    mix = build(cfg.mix, num_classes=len(data.classes))
    apart = features.computed_apart(frozen, augment, mix, cfg.features, data.crop)
    network = model if apart is None else trainable
    depths = partial(optimizers.depths, model, data.crop)
    learner = learner_of(cfg, network, trainable, depths, device, mix)
    probes.require_loss(learner.loss, cfg.loss._target_, len(data.classes))
    if cfg.micro_batch is not None:
        loss.require_parts(learner.loss, cfg.loss._target_, len(data.classes))
    counts = data.labels[data.train].bincount(minlength=len(data.classes)).to(device)
    loss.prepare(learner.loss, counts, mix, cfg.loss._target_)
    return data, augment, model, apart, learner


def unseen(cfg: DictConfig) -> str | None:
    """Look at all that training is refused for, fetching nothing; what would have to be fetched."""
    build(cfg.tracking)
    root = logging.getLogger()  # its file would stay where nothing is computed
    root.handlers = [each for each in root.handlers if not isinstance(each, logging.FileHandler)]
    try:
        with fetching.forbidden():
            plugins.load(cfg.plugins)
            device = choose_device(cfg.device, gpu_share=None)
            data, _, model, _, learner = prepared(cfg, device)
            made_from = provenance.collect(data, model, device)
            extension.found(cfg, made_from, partial(rates_differ, cfg, learner))
    except fetching.NotHereError as error:
        return str(error)
    return None


def fed(
    cfg: DictConfig,
    learner: Learner,
    data: Dataset,
    augment: Any,
    frozen: nn.Module | None,
    device: torch.device,
) -> Batches:
    """What the learner is fed with: images, or what the frozen part makes of them, once."""
    cache = Path(cfg.cache).expanduser()
    parts = data, augment, learner.precision, device
    inputs = features.inputs_of(frozen, *parts, cfg.features, cache, code_of(cfg))
    labels = data.labels.to(device)
    return Batches(inputs=inputs, labels=labels, size=cfg.batch_size, part=cfg.micro_batch)


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
    if progress.is_over(cfg.num_epochs, cfg.patience):
        is_sweep = sweep() is not None
        asked = partial(logits.are_wanted, cfg.logits, data, is_sweep=is_sweep)
        keeps_last = are_last_wanted(cfg.last_weights, model, batches, is_sweep)
        tested = test_once(learner, batches, data, model, progress, directory, asked, keeps_last)
    write_json(directory.data, data.describe())
    write_json(directory.timing, {"seconds": progress.seconds})
    write_sealed_json(directory.history, progress.told | {"ended": int(1000 * time.time())})
    stopped = progress.stopped(cfg.num_epochs, cfg.patience) if tested else None
    return Result.of(cfg.key, progress, tested, data.majority_accuracy, stopped)


@hydra.main(config_path=str(CONF), config_name="train", execution_whitelist=hydra_targets())
def compose_and_train(cfg: DictConfig) -> float | None:
    """What Hydra calls for a run, or for each job of a sweep; the mean over seeds=N."""
    with errors.told_once(sweep() is None):
        require_whole(cfg)
    errors.composed()
    hydra_cfg = HydraConfig.get()
    choices = hydra_cfg.runtime.choices
    # As typed: ${seed} is another number in each run of seeds=N.
    overrides = OmegaConf.to_container(hydra_cfg.overrides.task, resolve=False)
    recorded = jobs.recorded(cfg, overrides, hydra_cfg.job)
    with errors.told_once(sweep() is None), recorded as record, errors.without_exit():
        if cfg.dry_run:
            validate(cfg)
            runs = [provenance.settled(each) for each in seeds.repeated(cfg)]
            missing = unseen(runs[0])
            record.status = state_of(RunDirectory(run.directory) for run in runs)
            if sweep() is None:
                print(seeds.states(runs))
            if missing is not None:
                log.warning("%s. What depends on it was not looked at.", missing)
            return None
        with refusal_recorded(cfg, choices, overrides, sweep()):
            validate(cfg)
            with trials.trial(cfg, record, overrides, sweep()) as trial:
                results = repeat(cfg, choices, overrides, trial)
                if sweep() is None:
                    ending.tell(next(iter(seeds.repeated(cfg))), results[0], overrides)
                record.status = results[-1].status
                values = [result.objective for result in results]
                record.value, record.deviation = seeds.mean_and_deviation(values)
                record.test = seeds.tested(results)
    return record.value


def repeat(
    cfg: DictConfig, choices: Mapping[str, str], overrides: Sequence[str], trial: Observer
) -> list[Result]:
    """Train with each seed. The first stands for the point: if it is pruned, so are the others."""
    if cfg.seeds is None:
        return [train(cfg, choices, overrides, trial)]
    runs, results = seeds.repeated(cfg), []
    for run in runs:
        log.info("seed %d of 0 to %d: %s", run.seed, cfg.seeds - 1, run.directory)
        results.append(train(run, choices, overrides, NOBODY if results else trial))
        if results[0].status == PRUNED:
            return results
    log.info(seeds.table(runs, results))
    return results


def main() -> None:
    """Entry point; errors that a user can act on are one message without a traceback."""
    logging.raiseExceptions = False  # a log on a full disk: the run says it, not each line
    signals.end_by_exceptions()
    if "--cfg" in sys.argv and "--resolve" not in sys.argv:
        sys.argv.append("--resolve")  # the key, and the values that groups take from the root
    with errors.shown_as_messages("interrupted; the same command goes on from here"):
        register()
        search.register()
        sys.argv[1:] = readable(lists.taken(sys.argv[1:]))
        require_flags(sys.argv[1:])
        sweepers.refuse_half_typed(sys.argv[1:])
        with one_process(os.environ), jobs.summarised():
            compose_and_train()


if __name__ == "__main__":
    # By the module's own name, so that jobs in other processes can import what they are to call.
    from caltech.train import main as imported

    imported()
