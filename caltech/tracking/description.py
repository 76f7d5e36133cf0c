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
from caltech.keys import point_key
from caltech.runs.directory import RunDirectory
from caltech.settings import ROOT

# Of a run's provenance, as tags of the same names.
ENVIRONMENT = ("device", "threads", "torch", "python")


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
    sweep: str | None,
    provenance: Mapping[str, Any] | None,
) -> Description:
    """A run's name begins with its key values: MLflow's table shows no parameters at first.

    Args:
        cfg: composed; if it was refused, its values may be out of range.
        choices: option of each config group.
        overrides: as typed.
        sweep: name of the sweep that the run is a job of, or None.
        provenance: what caltech.runs.provenance collects; None for a run that was refused before.
    """
    groups = chosen(choices)
    named = ("model", "freeze", "lr")
    hidden = {name for name, key in ROOT.items() if key.decides is False}
    shown = [o for o in overrides if o.split("=")[0] not in named]
    shown = [o for o in shown if o.lstrip("+").split("=")[0].split(".")[0] not in hidden]
    identity = [groups[name] for name in ("model", "freeze") if name in groups]
    tags = {
        "study": cfg.study,
        "key": cfg.key,
        "point": point_key(cfg),
        "overrides": without_passwords(" ".join(overrides)),
        "directory": str(Path(cfg.directory).absolute()),
        "host": socket.gethostname(),
        "mlflow.source.name": "caltech.train",
        **_published(cfg, groups),
    }
    if sweep is not None:
        tags["sweep"] = sweep
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
        name=" ".join([f"lr={cfg.lr:g}", *shown, *identity]),
        params=hyperparameters(cfg) | groups,
        tags=tags,
        data=None if provenance is None else provenance["data"],
    )


def hyperparameters(cfg: DictConfig) -> dict[str, Any]:
    """The scalars of a config that MLflow's table shows as columns."""
    scalars = ("lr", "momentum", "weight_decay", "num_epochs", "step_size", "gamma", "batch_size")
    params = {name: cfg[name] for name in (*scalars, "seed")}
    if cfg.lr > 0:  # MLflow's charts have linear axes for parameters.
        params["log10_lr"] = round(math.log10(cfg.lr), 6)
    return params


def chosen(choices: Mapping[str, str | None]) -> dict[str, str]:
    """Option of each group of ours."""
    return {k: v for k, v in choices.items() if v is not None and not k.startswith("hydra")}


def _published(cfg: DictConfig, groups: Mapping[str, str]) -> dict[str, str]:
    """Which experiment this is, and what the study published of it."""
    tags = {name: groups[name] for name in ("experiment",) if name in groups}
    if cfg.published is not None:
        tags["published"] = json.dumps(OmegaConf.to_container(cfg.published, resolve=True))
    return tags
