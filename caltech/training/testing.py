"""The test of a run that is over: its answers, its logits, and both models on the disk."""

import logging
from collections.abc import Callable

from caltech.calibration import Scores
from caltech.data.dataset import Dataset
from caltech.models.classifier import Classifier, load_state
from caltech.models.freeze import frozen_names
from caltech.runs import checkpoint, logits, manifest
from caltech.runs.directory import WEIGHTS, RunDirectory
from caltech.runs.progress import Progress
from caltech.training.epoch import Batches, Evaluation, Learner, evaluate
from caltech.training.features import Features

log = logging.getLogger(__name__)


def test_once(
    learner: Learner,
    batches: Batches,
    data: Dataset,
    model: Classifier,
    progress: Progress,
    directory: RunDirectory,
    keeps_logits: Callable[[int], bool],
    keeps_last: bool,
) -> dict[str, dict[str, float]]:
    """Test once with the last and once with the best epoch's weights, and keep the models.

    The study does not say which of the two it used; its tables are compared with the last.

    Args:
        keeps_logits: whether a run keeps them, by the bytes of the weights that it trained.
        keeps_last: whether it keeps the last epoch's weights. Their answers are kept in any case.
    """
    learner.average.end()
    with learner.average.applied():
        states = {"last": checkpoint.copy_of(learner.trainable), "best": progress.best_state}
    epochs = {"last": len(progress.history), "best": progress.best_epoch}
    measured, told, tested, frozen = {}, {}, None, frozen_names(model)
    trained_bytes = sum(tensor.nbytes for tensor in states["last"].values())
    is_kept = keeps_logits(trained_bytes)
    for name, state in states.items():
        if epochs[name] != tested:  # the best epoch may be the last
            load_state(learner.trainable, state)
            evaluation, parts = scored(learner, batches, data, name)
            tested, calibration = epochs[name], logits.calibrated(parts, data)
        directory.require_held()
        if name == "best" or keeps_last or epochs["last"] == epochs["best"]:
            checkpoint.save_weights(directory.weights(name), model, frozen)
        evaluation.save(directory.predictions(name), data.test)
        if is_kept:
            logits.write(directory, name, parts)
        measured[name], told[name] = evaluation.measures("test"), calibration
    logits.write_calibration(directory, told)
    logits.write_images(directory, data)
    return measured


def are_last_wanted(option: str, model: Classifier, batches: Batches, is_sweep: bool) -> bool:
    """Whether a run keeps the last epoch's weights besides the best, by last_weights=auto, ...

    A sweep has many linear heads on features that are computed once. To train one again is cheap.
    """
    before = [*model.backbone.parameters(), *model.hidden.parameters()]
    is_linear = not any(parameter.requires_grad for parameter in before)
    is_cheap = is_linear and isinstance(batches.inputs, Features)
    return option == "keep" or (option == "auto" and not (is_sweep and is_cheap))


def scored(
    learner: Learner, batches: Batches, data: Dataset, name: str
) -> tuple[Evaluation, dict[str, Scores]]:
    """The test, and the logits of validation and test, by the weights that the learner has."""
    tested = evaluate(learner, batches, data.test, f"test ({name})", with_logits=True)
    part = f"validation ({name})"
    validated = evaluate(learner, batches, data.validation, part, with_logits=True)
    scores = {"test": tested.scores(data.test), "validation": validated.scores(data.validation)}
    return tested, scores


def add_logits(
    learner: Learner, batches: Batches, data: Dataset, model: Classifier, directory: RunDirectory
) -> None:
    """Compute what a finished run has not kept, by its weights; nothing is trained.

    Where the last epoch's weights were removed, what is known of it stays as it is.

    Raises:
        InputError: the weights do not give the answers of the run's test here.
    """
    told, names = {}, logits.answering(directory)
    manifest.verify(directory, [directory.result, *map(directory.weights, names)])
    for removed in (directory.weights(name) for name in WEIGHTS if name not in names):
        log.warning(
            "%s has no %s: only the best epoch's logits are added. %s logits=keep computes both.",
            directory, manifest.lacking(removed), manifest.again(removed),
        )  # fmt: skip
    for name in names:
        checkpoint.load_weights(directory.weights(name), model)
        evaluation, parts = scored(learner, batches, data, name)
        logits.require_same(directory, name, evaluation.predictions.numpy())
        logits.write(directory, name, parts)
        told[name] = logits.calibrated(parts, data)
    logits.write_calibration(directory, told)
    logits.write_images(directory, data)
    manifest.renew(directory)
