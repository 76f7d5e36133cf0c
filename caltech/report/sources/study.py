"""Where a study's runs are from: their directories, what was kept of them, then the store.

A directory is the truth of its run. Kept is what is in git of runs that were computed elsewhere.
The store is asked last, for runs whose directories are on another machine.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from omegaconf import DictConfig

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
    """
    for each in retained:
        if measured(each) == measured(run):
            told = {"params": each.params, "experiment": each.experiment, "started": each.started}
            return replace(run, **told, predictions=run.predictions or each.predictions)
    return run


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
