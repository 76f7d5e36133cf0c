"""What is known of a run before it starts, as the tracker shows it.

description.json in a run's directory holds it, sealed: {"name": ..., "params": {...}, "tags":
{...}}. It is written whatever the tracker is, so that any store can be told of the run later.
"""

import json
import logging
import math
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from caltech.errors import DamagedError, InputError
from caltech.files import read_sealed_json, sum_of, write_sealed_json
from caltech.keys import MOVED, decisive, point_key, renamed, targets_in
from caltech.overrides import effective
from caltech.passwords import without_passwords
from caltech.runs.directory import RunDirectory
from caltech.settings import CONF, ROOT

log = logging.getLogger(__name__)

# Of a run's provenance, as tags of the same names.
ENVIRONMENT = ("device", "threads", "torch", "python")
# Where a config has what was used, and the parameter's name in tables. An optimizer and a schedule
# are called with what their groups have, which need not be what the root has.
PLACES = {
    "optimizer.lr": "lr",
    "optimizer.momentum": "momentum",
    "optimizer.betas": "momentum",  # of Adam it is the first of them
    "optimizer.weight_decay": "weight_decay",
    "num_epochs": "num_epochs",
    "schedule.step_size": "step_size",
    "schedule.gamma": "gamma",
    "batch_size": "batch_size",
    "micro_batch": "micro_batch",
    "clip_norm": "clip_norm",
    "patience": "patience",
    "seed": "seed",
}


SEEN, KEY_DIGITS = 25, 4  # characters of a run's name that MLflow's charts show; of its key there


@dataclass(frozen=True)
class Description:
    """What is known of a run before it starts; parameters and tags are text."""

    directory: RunDirectory
    name: str
    params: Mapping[str, str]
    tags: Mapping[str, str]
    data: Mapping[str, str] | None  # name and sha256

    @property
    def sum(self) -> str:
        """Checksum of what a store is told of it."""
        return sum_of(repr((dict(self.params), dict(self.tags))).encode())


def describe(
    cfg: DictConfig,
    choices: Mapping[str, str | None],
    overrides: Sequence[str],
    sweep: Path | None,
    provenance: Mapping[str, Any] | None,
) -> Description:
    """Of a run that is about to start or, without provenance, of one that was refused before.

    Args:
        cfg: composed; if it was refused, its values may be out of range.
        choices: option of each config group.
        overrides: as typed.
        sweep: folder of the sweep that the run is a job of.
    """
    params, groups = hyperparameters(decisive(cfg)), chosen(choices)
    typed = {override.lstrip("+").split("=")[0] for override in overrides}
    groups |= {name: cfg[name]._target_ for name in groups if f"{name}._target_" in typed}
    tags = {
        "study": cfg.study,
        "key": cfg.key,
        "point": point_key(cfg),
        "overrides": without_passwords(" ".join(overrides)),
        "directory": str(Path(cfg.directory).absolute()),
        "host": socket.gethostname(),
        "mlflow.source.name": "caltech.train",
    }
    if "experiment" in groups:
        tags["experiment"] = groups["experiment"]
    if cfg.published is not None:  # of the study, in this experiment
        tags["published"] = json.dumps(OmegaConf.to_container(cfg.published, resolve=True))
    if sweep is not None:
        tags["sweep"] = sweep.name
    if provenance is not None:
        tags |= {
            "weights": provenance["weights"]["name"],
            "code": provenance["code"]["sha256"],
            "data": provenance["data"]["sha256"],
            "mlflow.source.git.commit": provenance["code"]["git"],
            **{name: str(provenance["environment"][name]) for name in ENVIRONMENT},
        }
    return Description(
        directory=RunDirectory(cfg.directory),
        name=_name(cfg, params, groups, overrides),
        params={name: str(value) for name, value in (params | groups).items()},
        tags=tags,
        data=None if provenance is None else provenance["data"],
    )


KEPT = {"name": str, "params": dict, "tags": dict}  # of description.json
ALWAYS = ("key", "study", "overrides")  # among its tags


def record(described: Description, goes_on: bool) -> None:
    """Write description.json, or say there which sweep the run counts to now and who goes on.

    All else stays as it was first typed: a store does not let a parameter change.
    """
    path, new = described.directory.description, dict(described.tags)
    if before := _own(path, new["key"]):
        renewed = {"sweep", "host", "overrides"} if goes_on else {"sweep"}
        tags = before["tags"] | {name: new[name] for name in renewed & set(new)}
        if tags != before["tags"]:
            write_sealed_json(path, before | {"tags": tags})
        return
    told = {"name": described.name, "params": dict(described.params), "tags": new}
    write_sealed_json(path, told)


def of_directory(directory: RunDirectory) -> Description:
    """What a run's directory says of it, wherever the directory is now.

    Of a run of earlier code it is what its config tells: not what was typed, and of each group the
    option that it equals.

    Raises:
        InputError: no run was begun there.
        DamagedError: a file that says it is not as it was written.
    """
    for path in (directory.config, directory.provenance):
        if not path.is_file():
            raise InputError(f"{directory} holds no run: {path.name} is not there.")
    provenance = read_sealed_json(directory.provenance)
    if kept := _own(directory.description, provenance.get("key")):
        found = Description(directory=directory, data=provenance["data"], **kept)
    else:
        found = _of_config(directory, provenance)
    path = directory.path.absolute()
    tags = {**found.tags, "directory": str(path)}
    if path.name == tags["key"]:  # else the place was typed: directory=
        was, tags["study"] = tags["study"], path.parent.name
        typed = [
            f"study={tags['study']}" if word == f"study={was}" else word
            for word in tags["overrides"].split(" ")
        ]
        tags["overrides"] = " ".join(typed)
    return replace(found, tags=tags)


def _own(path: Path, key: str | None) -> dict[str, Any] | None:
    """What is kept of the run of this key; that of another one is told, and not used."""
    if not path.is_file():
        return None
    kept = _kept(path)
    other = kept["tags"]["key"]
    if key in (None, other):  # earlier provenance has none
        return kept
    log.warning("%s is of run %s, and not of run %s: it is not used.", path, other, key)
    return None


def _kept(path: Path) -> dict[str, Any]:
    kept = read_sealed_json(path, KEPT)
    told = [*kept["params"].values(), *kept["tags"].values()]
    is_text = all(isinstance(kept["tags"].get(name), str) for name in ALWAYS)
    if set(kept) != set(KEPT) or not is_text or any(isinstance(e, dict | list) for e in told):
        raise DamagedError(f"{path} is not what was written there.")
    return kept


def _of_config(directory: RunDirectory, provenance: Mapping[str, Any]) -> Description:
    cfg = OmegaConf.load(directory.config)
    found = describe(cfg, _equal_options(cfg), (), None, provenance)
    host = provenance["environment"].get("host", "")
    return replace(found, directory=directory, tags=found.tags | {"host": host})


def _equal_options(cfg: DictConfig) -> dict[str, str]:
    """Of each group the option of the same target that agrees with most of its values."""
    agreeing: dict[str, list[tuple[int, str]]] = {}
    for path in (path for path in CONF.glob("*/*.yaml") if path.parent.name in cfg):
        used = dict(OmegaConf.to_container(cfg[path.parent.name], resolve=True) or {})
        for node in targets_in(used):
            node["_target_"] = renamed(node["_target_"], MOVED)
        option = OmegaConf.to_container(OmegaConf.load(path))
        own = {name: value for name, value in option.items() if "${" not in str(value)}
        if own.get("_target_") == used.get("_target_"):
            same = sum(used.get(name) == value for name, value in own.items())
            agreeing.setdefault(path.parent.name, []).append((same, path.stem))
    return {group: max(found)[1] for group, found in agreeing.items()}


def hyperparameters(used: Mapping[str, Any]) -> dict[str, Any]:
    """The scalars that MLflow's table shows as columns, as they were used; others are left out.

    Args:
        used: what decides a run (keys.decisive).
    """
    params = {}
    for place, name in PLACES.items():
        group, _, key = place.rpartition(".")
        value = (used.get(group, {}) if group else used).get(key)
        if value is not None:
            params[name] = value[0] if isinstance(value, list) and value else value
    lr = params.get("lr")
    if isinstance(lr, float) and lr > 0:  # MLflow's charts have linear axes for parameters
        params["log10_lr"] = round(math.log10(lr), 6)
    return params


def chosen(choices: Mapping[str, str | None]) -> dict[str, str]:
    """Option of each group of ours."""
    return {k: v for k, v in choices.items() if v is not None and not k.startswith("hydra")}


def _name(cfg: DictConfig, params: Mapping, groups: Mapping, overrides: Sequence[str]) -> str:
    """The learning rate, what else was typed and has an effect, the model, what is frozen.

    MLflow's table shows no parameters at first, so a run's name begins with its values. It cuts
    names, so what fits is followed by the beginning of the key, by which any two differ.
    """
    lr = params.get("lr")
    said = [] if lr is None else [f"lr={lr:g}" if isinstance(lr, float) else f"lr={lr}"]
    unsaid = {"lr", "optimizer.lr", "model", "freeze"}
    # What has no effect.
    unsaid |= {name for name in PLACES.values() if params.get(name) != cfg.get(name)}
    indifferent = {name for name, key in ROOT.items() if key.decides is False}
    for override in effective(overrides):
        key = override.lstrip("+").split("=")[0]
        if key not in unsaid and key.split(".")[0] not in indifferent:
            said.append(override)
    said += [groups[name] for name in ("model", "freeze") if name in groups]
    fitting = [n for n in range(len(said) + 1) if len(" ".join(said[:n])) < SEEN - KEY_DIGITS]
    return " ".join([*said[: fitting[-1]], str(cfg.key)[:KEY_DIGITS], *said[fitting[-1] :]])
