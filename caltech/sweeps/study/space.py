"""What a sweep's command leaves open, as Optuna has it; what hydra-optuna-sweeper parses."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    distribution_to_json,
    json_to_distribution,
)

from caltech.errors import InputError
from caltech.sweeps import lists

MOST_POINTS = 10_000  # of a space that is counted


@dataclass(frozen=True)
class Space:
    """What is searched, what is fixed beside it, and words that remove a key."""

    searched: Mapping[str, BaseDistribution]
    fixed: Mapping[str, Any]
    removed: Sequence[str]

    @classmethod
    def of(cls, config: DictConfig) -> "Space":
        """Of a sweep's config, composed without the values that are swept over.

        Raises:
            InputError: Optuna has no such space.
        """
        # The sweeper's own parser, which takes half a second to import.
        from hydra_plugins.hydra_optuna_sweeper._impl import create_params_from_overrides

        params = OmegaConf.select(config, "hydra.sweeper.params") or {}  # a grid has none
        typed = [f"{name}={values}" for name, values in params.items()]
        try:
            both = [*typed, *config.hydra.overrides.task]
            searched, fixed, removed = create_params_from_overrides(both)
        except (AssertionError, NotImplementedError, ValueError) as error:
            globs = [word for word in both if "=glob(" in word]  # of which Optuna says nothing
            said = str(error) or f"{', '.join(globs) or type(error).__name__} is no list of values"
            raise InputError(
                f"Optuna cannot take what is swept over: {said}. Type values, for example "
                "lr=1e-1,1e-2, or a search space of its own, for example lr=interval(0.01, 0.1)."
            ) from error
        own = {name: values for name, values in searched.items() if name not in fixed}
        own |= {name: CategoricalDistribution(cells) for name, cells in lists.columns().items()}
        return cls(own, fixed, removed)

    def plain(self) -> dict[str, str]:
        """What is searched, as JSON has it."""
        return {name: distribution_to_json(values) for name, values in self.searched.items()}

    def overrides(self, point: Mapping[str, Any]) -> list[str]:
        """A job's words, in the order of the official sweeper."""
        values = {name: point[name] for name in self.searched} | dict(self.fixed)
        return [*(f"{name}={value}" for name, value in values.items()), *self.removed]

    def choices(self) -> dict[str, Sequence[Any]]:
        """Of each name all of its values.

        Raises:
            ValueError: an interval has no such list.
        """
        from hydra_plugins.hydra_optuna_sweeper._impl import OptunaSweeperImpl

        of = OptunaSweeperImpl._to_grid_sampler_choices
        return {name: of(distribution) for name, distribution in self.searched.items()}

    def require_choices(self) -> None:
        """Raise InputError for what is searched and has no list of values, which a grid needs."""
        try:
            self.choices()
        except ValueError as error:
            raise InputError(
                "hydra/sweeper/sampler=grid takes values, and an interval was typed. Type values, "
                "for example lr=1e-1,1e-2 or step_size=range(5,30,5), or leave the sampler out."
            ) from error

    def points(self) -> list[dict[str, Any]] | None:
        """All of them; None if they cannot be counted, or are too many."""
        try:
            choices = self.choices()
        except ValueError:
            return None
        if math.prod(map(len, choices.values())) > MOST_POINTS:
            return None
        combined = itertools.product(*choices.values())
        return [dict(zip(choices, values, strict=True)) for values in combined]


def point(space: Mapping[str, str], overrides: Sequence[str]) -> dict[str, Any]:
    """A job's place in the space that is swept over, as Optuna's create_trial takes it.

    Args:
        space: as Space.plain gives it.
        overrides: of the job.
    """
    given = dict(o.split("=", 1) for o in overrides if "=" in o)  # ~key has none
    searched = {name: json_to_distribution(text) for name, text in space.items()}
    params = {}
    for name, values in searched.items():
        if isinstance(values, CategoricalDistribution):
            params[name] = next(value for value in values.choices if str(value) == given[name])
        else:
            params[name] = values.to_external_repr(float(given[name]))
    return {"params": params, "distributions": searched}
