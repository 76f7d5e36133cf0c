"""What a run is: its key, which two configs share exactly if they agree in all that decides.

Normalise, then hash: numbers get the type that conf/ gives them, lists of files count by their
lines, addresses become the names that they were born with, and what was added later is left out
at the value at which it changes nothing. Golden tests hold the keys of every experiment.
"""

import functools
import hashlib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from caltech.settings import ROOT, options

# A run key hashes names and not addresses: what has moved is written as where it was born, and
# configs of before the move are built at where it is now. What is new has its address as its name.
BORN = {
    "caltech.data.sources": "caltech.data",
    "caltech.data.augment": "caltech.augment",
    "caltech.models.architectures": "caltech.model",
    "caltech.models.freeze": "caltech.freeze",
    "caltech.training.loss": "caltech.loop",
    "caltech.training.schedule": "caltech.schedule",
    "caltech.training.average": "caltech.average",
    "caltech.training.precision": "caltech.precision",
    "caltech.tracking.tracker": "caltech.tracking",
}
MOVED = {old: new for new, old in BORN.items()}
# What came later, a root key or GROUP.KEY: its option in words, and its value at which a run is as
# all runs were before. At that value it is left out of the key, so that those runs have theirs.
ADDED = {
    "average": ("none", {"_target_": "caltech.average.Last"}),
    "split": ("own", {"_target_": "caltech.data.split.Own"}),
    "mix": ("none", {"_target_": "caltech.data.augmentation.mix.Unmixed"}),
    "split.train_on_validation": ("false", False),
    "optimizer.backbone_lr": ("1", 1.0),
    "optimizer.layer_decay": ("1", 1.0),
    "optimizer.norm_decay": ("true", True),
    "micro_batch": ("null", None),
    "clip_norm": ("null", None),
    "patience": ("null", None),
}
# Where files lie does not decide a result; what is in them is compared by digest (provenance.py).
# The split, to which a data set refers, counts by itself.
INDIFFERENT_WITHIN = {"data": ("root", "download", "cache", "cache_pixels", "split")}
# Text files with a name a line, which count by those lines.
LISTS_WITHIN = {
    "data": ("train_files", "test_files"),
    "split": ("train_files", "val_files", "test_files"),
}


def run_key(cfg: DictConfig) -> str:
    """Ten hexadecimal digits, the same for two configs exactly if these agree in what decides."""
    return _digest(decisive(cfg))


def point_key(cfg: DictConfig) -> str:
    """As run_key, but equal for all seeds of one config, and for all seeds of its split: what a
    row of a table stands for."""
    values = decisive(cfg)
    values.pop("seed", None)
    values.get("split", {}).pop("seed", None)
    return _digest(values)


def decisive(cfg: DictConfig) -> dict[str, Any]:
    """All that decides the result, as plain values of one form: without where files lie, numbers
    of the type that conf/ gives them, lists of files by their lines."""
    return _normalised(_as_typed(cfg))


def begun_key(cfg: DictConfig) -> str:
    """A run's key, or the one under which it was begun when keys still told 0 and 0.0 apart."""
    typed, study = _as_typed(cfg), Path(cfg.output) / cfg.study
    keys = _digest(_normalised(typed)), _digest(_without_added(typed))
    begun = [key for key in keys if os.path.isfile(study / key / "config.yaml")]  # noqa: PTH113
    return begun[0] if begun else keys[0]


def former_key(cfg: DictConfig) -> str:
    """The key of the time when keys still told 0 and 0.0 apart."""
    return _digest(_without_added(_as_typed(cfg)))


def _as_typed(cfg: DictConfig) -> dict[str, Any]:
    values = {}
    for name in (name for name, key in ROOT.items() if key.decides and name in cfg):
        value = cfg[name]
        if OmegaConf.is_config(value):
            value = OmegaConf.to_container(value, resolve=True)  # a copy
        if isinstance(value, dict):
            for ignored in INDIFFERENT_WITHIN.get(name, ()):
                value.pop(ignored, None)
            for node in targets_in(value):
                node["_target_"] = renamed(node["_target_"], BORN)
        values[name] = value
    return values


def _normalised(typed: Mapping[str, Any]) -> dict[str, Any]:
    values = {}
    for name, value in typed.items():
        values[name] = _of_one_form(value, _kinds().get(name, ROOT[name].type))
        for within in LISTS_WITHIN.get(name, ()):
            if value.get(within) is not None:
                values[name][within] = _content(value[within])
    if (values.get("micro_batch") or 0) >= values.get("batch_size", math.inf):
        values["micro_batch"] = None  # the whole batch
    return _without_added(values)


def _without_added(values: dict[str, Any]) -> dict[str, Any]:
    values = {k: dict(v) if isinstance(v, dict) else v for k, v in values.items()}
    for name, (_, neutral) in ADDED.items():
        *group, key = name.split(".")
        place = values.get(group[0], {}) if group else values
        if key in place and place[key] == neutral:
            del place[key]
    return values


def _of_one_form(value: Any, kind: Any) -> Any:
    """Equal numbers become one: of the type that conf/ has there, or else whole if they can be."""
    if isinstance(value, Mapping):
        kinds = kind if isinstance(kind, Mapping) else {}
        return {name: _of_one_form(inner, kinds.get(name)) for name, inner in value.items()}
    if isinstance(value, list):
        kinds = kind if isinstance(kind, list) and kind else [None]
        return [_of_one_form(v, kinds[min(i, len(kinds) - 1)]) for i, v in enumerate(value)]
    if isinstance(value, int) and not isinstance(value, bool) and kind is float:
        with suppress(OverflowError):
            return float(value) if float(value) == value else value
    if isinstance(value, float) and kind is not float and value.is_integer():
        return int(value)
    return value + 0.0 if isinstance(value, float) else value  # no -0.0


@functools.cache
def _kinds() -> dict[str, dict[str, Any]]:
    """The types of each group's keys, as its options write their values."""

    def kind(value: Any) -> Any:
        if isinstance(value, list):
            return [kind(inner) for inner in value]
        refers = re.fullmatch(r"\$\{(\w+)\}", value) if isinstance(value, str) else None
        return ROOT[refers[1]].type if refers else type(value)

    kinds: dict[str, dict[str, Any]] = {}
    for group, option in options():
        kinds.setdefault(group, {}).update({name: kind(value) for name, value in option.items()})
    return kinds


def _content(path: Any) -> Any:
    """Digest of a list's lines, or what was typed for one that cannot be read."""
    try:
        lines = [line.strip() for line in Path(path).read_text("utf-8").splitlines()]
    except (OSError, TypeError, ValueError):
        return path
    return hashlib.sha256("\n".join(filter(None, lines)).encode()).hexdigest()


def _digest(values: dict[str, Any]) -> str:
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:10]


def targets_in(value: Any) -> Iterator[dict[str, Any]]:
    """Every node of a plain value that names a target."""
    if isinstance(value, dict):
        if isinstance(value.get("_target_"), str):
            yield value
        for inner in value.values():
            yield from targets_in(inner)


def renamed(target: str, names: Mapping[str, str]) -> str:
    module, dot, leaf = target.rpartition(".")
    return names.get(module, module) + dot + leaf
