"""The next trial of a search: what Optuna's sampler proposes after the trials that there are.

A proposal follows from the trials, the sampler's seed and the number of the job alone. So whoever
asks, and however often it was interrupted, gets the same one.
"""

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
import optuna
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from optuna.trial import FrozenTrial, TrialState, create_trial

from caltech.sweeps.study.space import Space

ATTEMPTS = 100  # proposals of known points in a row, after which a space is taken to have no others
SAMPLERS = ("hydra_plugins.hydra_optuna_sweeper.*", "optuna.samplers.*")
SEQUENCE = "QMCSampler"  # its points are one sequence, of one seed; a job takes that of its number
ONE_SEED = (SEQUENCE, "GridSampler")  # as is the order of a grid


def proposals(
    study: optuna.Study, space: Space, sampler: DictConfig, number: int
) -> Iterator[dict[str, Any]]:
    """What optuna.trial.create_trial takes for a job: its point and what the sampler notes of it.

    The first is the sampler's. The others are for where its point is known: another one of the
    sampler's or, in a space that can be counted, one that was not tried. Nothing is written.
    """
    trials, points = study.get_trials(deepcopy=False), space.points()
    for attempt in range(ATTEMPTS if points is None else 1):
        proposed = _ask(study, trials, space, sampler, (number, attempt))
        yield {"params": proposed.params, "system_attrs": proposed.system_attrs}
    tried = [trial.params for trial in trials]
    untried = [point for point in points or () if point not in tried]
    order = np.random.default_rng([sampler.get("seed") or 0, number]).permutation(len(untried))
    for place in order[:ATTEMPTS]:
        yield {"params": untried[place], "system_attrs": {}}


def begin(study: optuna.Study, space: Space, proposed: dict[str, Any], key: str) -> None:
    """Put a trial into the study, whole and running: there is none that is half proposed.

    Called again after a storage's answer was lost, it adds none.
    """
    if any(t.user_attrs.get("key") == key for t in study.get_trials(deepcopy=False)):
        return
    own = {"distributions": dict(space.searched), "user_attrs": {"key": key}}
    study.add_trial(create_trial(state=TrialState.RUNNING, **proposed, **own))


def _ask(
    study: optuna.Study,
    trials: list[FrozenTrial],
    space: Space,
    config: DictConfig,
    which: tuple[int, int],
) -> FrozenTrial:
    """Of a copy of the study in memory, where a sampler may note what it likes."""
    is_sequence = config._target_.endswith(SEQUENCE)
    sampler = _sampler(config, space, which)
    copied = optuna.create_study(study_name=study.study_name, direction="maximize", sampler=sampler)
    for trial in trials:
        copied.add_trial(trial)
    for _ in range(sum(which) if is_sequence else 0):  # to its place in the sequence
        copied.ask(dict(space.searched))
    number = copied.ask(dict(space.searched)).number
    return copied.get_trials(deepcopy=False)[number]


def _sampler(config: DictConfig, space: Space, which: tuple[int, int]) -> Any:
    own: dict[str, Any] = {}
    if "constant_liar" in config:
        own["constant_liar"] = True  # TPE: trials that run count as bad ones, so workers spread
    if config.get("seed") is not None and not config._target_.endswith(ONE_SEED):
        seed = np.random.SeedSequence([config.seed, *which]).generate_state(1)[0]
        own["seed"] = int(seed)
    built = instantiate(OmegaConf.merge(config, own), _execution_whitelist_=SAMPLERS)
    # The grid's has to be told what it is of.
    return built(space.choices()) if isinstance(built, functools.partial) else built
