"""What is known of a run before it starts, as the tracker shows it."""

import json
import math
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from caltech.files import without_passwords
from caltech.keys import decisive, point_key
from caltech.runs.directory import RunDirectory
from caltech.settings import ROOT

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
    "seed": "seed",
}


@dataclass(frozen=True)
class Description:
    """What is known of a run before it starts."""

    directory: RunDirectory
    name: str
    params: Mapping[str, Any]
    tags: Mapping[str, str]
    data: Mapping[str, str] | None  # name and sha256


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
        params=params | groups,
        tags=tags,
        data=None if provenance is None else provenance["data"],
    )


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

    MLflow's table shows no parameters at first, so a run's name begins with its values.
    """
    lr = params.get("lr")
    said = [] if lr is None else [f"lr={lr:g}" if isinstance(lr, float) else f"lr={lr}"]
    unsaid = {"lr", "optimizer.lr", "model", "freeze"}
    unsaid |= {name for name in PLACES.values() if params.get(name) != cfg[name]}  # without effect
    indifferent = {name for name, key in ROOT.items() if key.decides is False}
    for override in overrides:
        key = override.lstrip("+").split("=")[0]
        if key not in unsaid and key.split(".")[0] not in indifferent:
            said.append(override)
    return " ".join(said + [groups[name] for name in ("model", "freeze") if name in groups])
