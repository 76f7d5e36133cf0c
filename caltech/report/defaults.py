"""What all rows of a table share that is not as conf/ has it, where no column tells it."""

import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import OmegaConf

from caltech.keys import ADDED, LISTS_WITHIN
from caltech.report.arrange import NOT_SHOWN, shown
from caltech.report.rows import Table
from caltech.report.sources.options import GROUPS, values_of
from caltech.report.trained import Run, flat
from caltech.settings import CONF
from caltech.tracking.description import PLACES

NO_VALUE = object()


def departures(table: Table) -> str:
    """Of a study's own table: `optimizer timm (lamb), mix.alpha 0.3`. Published rows have names."""
    if table.is_published or not table.finished:
        return ""
    first, *others = (dict(_departing(row.first)) for row in table.finished)
    for each in others:
        first = {name: value for name, value in first.items() if each.get(name) == value}
    common = {name: value for name, value in first.items() if name not in table.columns}
    names = {f"{group}.name" for group in GROUPS if group in common} & common.keys()
    words = {
        name: f"{value} ({common[f'{name}.name']})" if f"{name}.name" in names else value
        for name, value in common.items()
        if name not in names
    }
    return ", ".join(f"{name} {value}" for name, value in words.items())


def _departing(run: Run) -> Iterator[tuple[str, str]]:
    """Options and values of a run that are not the default's; of an option, not its own."""
    groups, scalars = _defaults()
    for name, usual in (groups | scalars).items():
        value = run.params.get(name, shown(run.config[name]) if name in run.config else usual)
        if value != usual and name not in NOT_SHOWN:
            yield name, value
    for name, value in run.config.items():
        group, _, key = name.partition(".")
        option = values_of(group, run.params.get(group, groups.get(group, "")))
        if not key or not option or name in (*PLACES, *NOT_SHOWN) or key == "_target_":
            continue  # of an option that is not in conf/, its name is all that is told
        own = flat(option).get(key, ADDED.get(name, ("", NO_VALUE))[1])
        is_list = key in LISTS_WITHIN.get(group, ()) and value  # of which a config has the digest
        is_taken = (
            isinstance(own, str) and own.startswith("${") and key != "name"
        )  # as lr, which is told
        if not is_list and not is_taken and own != value:
            yield name, shown(value)


@functools.cache
def _defaults() -> tuple[Mapping[str, str], Mapping[str, str]]:
    """By group its option, and the root's values that decide a result."""
    told: Any = OmegaConf.to_container(OmegaConf.load(CONF / "train.yaml"))
    listed = [each for each in told["defaults"] if isinstance(each, dict)]
    groups = {name: option for each in listed for name, option in each.items() if name in GROUPS}
    scalars = {name: str(told[name]) for name in (*PLACES.values(), "start")}
    return groups, {name: re.sub("^None$", "null", value) for name, value in scalars.items()}
