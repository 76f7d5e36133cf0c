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

from caltech.errors import InputError
from caltech.sweeps.study import storage
from caltech.sweeps.study.space import Space

ATTEMPTS = 100  # proposals of known points in a row, after which a space is taken to have no others
PROBES = 3  # trials after which a sampler has shown what it needs (CMA-ES begins with the third)
SAMPLERS = ("hydra_plugins.hydra_optuna_sweeper.*", "optuna.samplers.*")
SEQUENCE = "QMCSampler"  # its points are one sequence, of one seed; a job takes that of its number
DOUBLE = "double of"  # attribute of a trial that was begun for a key that another has
ONE_SEED = (SEQUENCE, "GridSampler")  # as is the order of a grid


def proposals(
    study: optuna.Study, space: Space, sampler: DictConfig, number: int
) -> Iterator[dict[str, Any]]:
    """What optuna.trial.create_trial takes for a job: its point and what the sampler notes of it.

    The first is the sampler's. The others are for where its point is known: another one of the
    sampler's or, in a space that can be counted, one that was not tried. Nothing is written.
    """
    trials, points = storage.patiently(study.get_trials, deepcopy=False), space.points()
    for attempt in range(ATTEMPTS if points is None else 1):
        proposed = _ask(study, trials, space, sampler, (number, attempt))
        yield {"params": proposed.params, "system_attrs": proposed.system_attrs}
    tried = [trial.params for trial in trials]
    untried = [point for point in points or () if point not in tried]
    order = np.random.default_rng([sampler.get("seed") or 0, number]).permutation(len(untried))
    for place in order[:ATTEMPTS]:
        yield {"params": untried[place], "system_attrs": {}}


def begin(study: optuna.Study, space: Space, proposed: dict[str, Any], key: str) -> bool:
    """Put a trial into the study, whole and running: there is none that is half proposed.

    Called again after a storage's answer was lost, it adds none.

    Returns:
        Whether the key is the caller's. Where locks do not reach each other two may begin one: the
        storage numbers them, the first has it, and the other is closed and counts nowhere.
    """
    if _of_key(study, key):
        return True
    own = {"distributions": dict(space.searched), "user_attrs": {"key": key}}
    trial = create_trial(state=TrialState.RUNNING, **proposed, **own)
    mine = study._storage.create_new_trial(study._study_id, template_trial=trial)
    first, *others = _of_key(study, key)
    if first._trial_id == mine:
        return True
    for double in (each for each in others if each._trial_id == mine):
        study._storage.set_trial_user_attr(mine, DOUBLE, first.number)
        study.tell(double.number, state=TrialState.FAIL, skip_if_finished=True)
    return False


def _of_key(study: optuna.Study, key: str) -> list[FrozenTrial]:
    return [t for t in study.get_trials(deepcopy=False) if t.user_attrs.get("key") == key]


def require_sampler(space: Space, sampler: DictConfig) -> None:
    """Raise InputError for a sampler that cannot be built, or not propose a point of this space."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        trials: list[FrozenTrial] = []
        for number in range(PROBES):
            asked = _ask(optuna.create_study(), trials, space, sampler, (number, 0))
            told = {"value": float(number), "system_attrs": asked.system_attrs}
            trials.append(
                create_trial(params=asked.params, distributions=asked.distributions, **told)
            )
    except Exception as error:
        said = [*str(error).strip().splitlines(), type(error).__name__][0].rstrip(".")
        raise InputError(
            f"The sampler {sampler._target_.rpartition('.')[2]} cannot search here: {said}. Type "
            "hydra/sweeper/sampler=tpe, or leave it out."
        ) from error


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
