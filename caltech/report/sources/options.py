"""Which options of conf/ a run's config was made of: a directory has the values, not the names."""

import functools
from collections.abc import Mapping
from typing import Any

from omegaconf import OmegaConf

from caltech.keys import BORN, renamed
from caltech.settings import CONF, ROOT

GROUPS = [name for name, key in ROOT.items() if key.type is Any]


def options_of(config: Mapping[str, Any]) -> dict[str, str]:
    """By group, in the order in which Hydra tells them; a target of no option is its own name."""
    groups = {name: config[name] for name in reversed(GROUPS) if isinstance(config.get(name), dict)}
    named = {name: _option(name, group) for name, group in groups.items()}
    return {name: option for name, option in named.items() if option is not None}


def values_of(group: str, option: str) -> dict[str, Any] | None:
    """What an option of conf/ has besides its target; None if there is none of this name."""
    return _options(group)[option][1] if option in _options(group) else None


def _option(group: str, used: Mapping[str, Any]) -> str | None:
    """The option of the same target whose first values are most alike; names come first in conf/.

    One of which already the first value is another's is none of several.
    """
    target = used.get("_target_")
    if not isinstance(target, str):
        return None
    likeness = {
        name: [_likeness(value, used.get(key)) for key, value in option.items()]
        for name, (born, option) in _options(group).items()
        if born == renamed(target, BORN)
    }
    best = max(likeness, key=likeness.__getitem__, default=target)
    return target if len(likeness) > 1 and likeness[best][:1] == [-1] else best


def _likeness(own: Any, used: Any) -> int:
    """1 for an option's own value, -1 for another; 0 where the option leaves it open."""
    is_open = isinstance(own, str) and (own == "???" or own.startswith("${"))
    return 0 if is_open else 1 if own == used else -1


@functools.cache
def _options(group: str) -> dict[str, tuple[str, dict[str, Any]]]:
    """By name, the target as it was born, and the other values."""
    found = {}
    for path in sorted((CONF / group).glob("*.yaml")):
        option = OmegaConf.to_container(OmegaConf.load(path))
        found[path.stem] = renamed(option.pop("_target_"), BORN), option
    return found
