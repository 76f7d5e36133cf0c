"""Where a study's runs are from: their directories, what was kept of them, then the store.

A directory is the truth of its run. Kept is what is in git of runs that were computed elsewhere.
The store is asked last, for runs whose directories are on another machine.
"""

import logging
import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from omegaconf import DictConfig

from caltech.amounts import counted
from caltech.errors import InputError
from caltech.report.rows import Published
from caltech.report.sources import ensembles
from caltech.report.sources.directories import found
from caltech.report.sources.ensembles import Ensemble
from caltech.report.sources.images import Names, named
from caltech.report.sources.kept import kept, renewable
from caltech.report.sources.tracked import tracked
from caltech.report.sources.unused import Unused
from caltech.report.trained import FINISHED, Run

TYPED = ("params", "experiment", "started")  # of a run
MADE = ("seconds", "environment", "code")
# Relative, of losses and of all else: on another processor sums are taken in another order.
ROUNDING = {True: 1e-4, False: 1e-9}
MOST_NAMED = 5  # runs in a warning

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """Of a study: one run a key, what was kept of it before, and what does not count."""

    runs: list[Run]
    kept: list[Run]
    unused: list[Unused]
    names: dict[str, Names] = field(default_factory=dict)  # of files, by the data's SHA-256
    ensembles: list[Ensemble] = field(default_factory=list)


def gather(
    tracking: DictConfig, folder: Path, study: str, experiments: Sequence[Published]
) -> Found:
    """All that there is of a study, which is in `folder`; what is not used is told.

    Raises:
        InputError: the store does not answer, and nothing else is there to be reported.
    """
    here, wrong = found(folder, experiments)
    retained, cut = kept(folder / "kept")
    _tell_renewed(folder, here, retained)
    here = [completed(run, retained) for run in here]
    newest = {run.key: run.started for run in retained if run.status == FINISHED}
    newest |= {run.key: math.inf for run in here if run.status == FINISHED}
    try:
        stored, lost = tracked(tracking, study, newest)
    except InputError as error:
        if not here and not retained:
            raise
        log.warning("%s This report is of what is in %s.", error, folder)
        stored, lost = [], []
    runs = combine(here, retained, stored)
    names, unnamed = named(folder, runs)
    joined, parted = ensembles.kept(folder / "kept" / "ensembles")
    renewed = renewable(runs)
    for each in (each for each in cut if each.name in renewed):  # this report's files are whole
        log.warning("%s is made again: %s.", each.name, each.why)
    cut = [each for each in cut if each.name not in renewed]
    unused = [*wrong, *cut, *lost, *unnamed, *parted]
    for each in unused:
        log.warning("%s", each)
    return Found(runs, retained, unused, names, joined)


def completed(run: Run, retained: Sequence[Run]) -> Run:
    """A run of a directory, with what only a tracker was told and what was kept of it knows:
    the options' names as they were typed, when a run of earlier code began, and lost answers.

    Of a run that another machine computed to the same numbers but for rounding, what was kept:
    else two people's files in git would take turns.
    """
    each = next((each for each in retained if each.key == run.key), None)
    is_very = each is not None and measured(each) == measured(run)
    is_near = each is not None and is_like(each, run)
    if each is None or not (is_very or is_near):
        return run
    told = {name: getattr(each, name) for name in (*TYPED, *(MADE if is_near else ()))}
    if is_very:
        told["metrics"] = each.metrics | run.metrics
        return replace(run, **told, predictions=run.predictions or each.predictions)
    told |= {"metrics": run.metrics | each.metrics, "history": each.history, "source": each.source}
    return replace(run, **told, predictions=each.predictions or run.predictions)


def is_same(one: Run, other: Run) -> bool:
    """Whether two runs of a key say the same, as far as both say it: earlier code said less."""
    (_, metrics, curves), (_, others, theirs) = measured(one), measured(other)
    return curves == theirs and all(metrics[n] == others[n] for n in metrics.keys() & others.keys())


def is_like(one: Run, other: Run) -> bool:
    """Whether two runs of a key are of the same code and data, and differ by rounding at most, as
    by another processor or number of threads does."""
    made = [(r.status, r.code["sha256"], r.data["sha256"]) for r in (one, other)]
    known = [
        {k: [v] for k, v in m.items()} | curves for _, m, curves in map(measured, (one, other))
    ]
    if made[0] != made[1] or known[0].keys() != known[1].keys():
        return False
    return all(
        len(values) == len(known[1][name])
        and np.allclose(values, known[1][name], rtol=ROUNDING["loss" in name], atol=1e-9)
        for name, values in known[0].items()
    )


def _tell_renewed(folder: Path, here: Sequence[Run], retained: Sequence[Run]) -> None:
    """Say of which finished runs something else was kept, which this report replaces."""
    before = {run.key: run for run in retained if run.status == FINISHED}
    pairs = [(before[r.key], r) for r in here if r.status == FINISHED and r.key in before]
    others = [
        (each, run)
        for each, run in pairs
        if not is_like(each, run) and (each.code != run.code or not is_same(each, run))
    ]
    if not others:
        return
    told = [
        f"{run.key} (kept: {_accuracies(each)}; here: {_accuracies(run)}"
        f"{'; by other code' * (each.code['sha256'] != run.code['sha256'])})"
        for each, run in others[:MOST_NAMED]
    ]
    rest = len(others) - MOST_NAMED
    paths = [path for _, run in others for path in sorted(folder.glob(f"kept/{run.key}.*"))]
    log.warning(
        "What was kept is not what the directory here has, and is written anew, of %s%s. If it "
        "is a colleague's and is to stay, type `git checkout -- %s` after this report, and move "
        "that run's directory out of %s. Else there is nothing to type.",
        ", ".join(told),
        f" and {counted(rest, 'more run')}" if rest > 0 else "",
        shlex.join(map(str, [folder / "kept"] if rest > 0 else paths)),
        folder,
    )


def _accuracies(run: Run) -> str:
    names = ("val/best_accuracy", "test/best_accuracy")
    values = (run.number(name) for name in names)  # earlier code did not tell all
    return "validation {}, test {}".format(*("?" if v is None else f"{v:.4f}" for v in values))


def measured(run: Run) -> tuple[str, dict[str, float], dict[str, list[float]]]:
    """Key, metrics and curves, which are never others of the very run.

    What calibration.json says was added since.
    """
    added = ("temperature", "calibration_error", "calibrated_error")
    known = {name: value for name, value in run.metrics.items() if not name.endswith(added)}
    return run.key, known, run.history


def combine(here: Sequence[Run], retained: Sequence[Run], stored: Sequence[Run]) -> list[Run]:
    """One run a key: a finished one of a directory, else the newest finished one, else what a
    directory has, else the store's newest, else a pruned one that was kept.

    Where the store no longer has a run's files, what was kept of the very run is more.
    """
    ranked = [((run.status == FINISHED, True, 0, run.started), run) for run in here]
    for order, runs in (((1, 0), retained), ((0, 1), stored)):
        for run in runs:
            is_finished = run.status == FINISHED
            time = (run.started, order[0]) if is_finished else (order[1], run.started)
            ranked.append(((is_finished, False, *time), run))
    ranked.sort(key=lambda pair: pair[0])
    best_last = {run.key: run for _, run in ranked}
    return sorted(best_last.values(), key=lambda run: (run.started, run.key))
