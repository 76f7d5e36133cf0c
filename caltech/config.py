"""The composed config: where it lives, the types of its values, what a run's key is."""

import dataclasses
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from caltech.errors import CaltechError, InputError

PACKAGE = Path(__file__).resolve().parent
# A wheel carries conf/ inside the package; in a checkout it stands beside it.
CONF = next(path for path in (PACKAGE / "conf", PACKAGE.parent / "conf") if path.is_dir())

# The only code that a config may name.
TARGETS = (
    "caltech.model.Classifier",  # Hydra checks what a target returns, too, if it can be called
    "caltech.data.caltech101",
    "caltech.data.digits",
    "caltech.model.efficientnet_lite0",
    "caltech.model.efficientnet_lite2",
    "caltech.model.torchvision_model",
    "caltech.model.timm_model",
    "caltech.freeze.freeze",
    "caltech.augment.Views",
    "caltech.augment.FlipCrop",
    "caltech.augment.Trivial",
    "caltech.loop.cross_entropy",
    "torch.nn.modules.loss.CrossEntropyLoss",  # as the models, for being returned
    "torch.optim.*",
    "caltech.schedule.constant",
    "caltech.schedule.cosine",
    "caltech.average.Last",
    "caltech.average.MovingAverage",
    "caltech.precision.Precision",
    "optuna.pruners.*",
    "caltech.tracking.MlflowRun",
    "caltech.tracking.NoRun",
)
# What Hydra itself may call beside them: log handlers, the callback, Optuna's samplers.
HYDRA_TARGETS = (
    *TARGETS,
    "logging.StreamHandler",
    "logging.FileHandler",
    "logging.Formatter",
    "caltech.sweep.NameSweep",
    "optuna.samplers.*",
)


@dataclasses.dataclass
class Settings:
    """Root of every config; OmegaConf refuses values of other types."""

    data: Any = MISSING
    model: Any = MISSING
    freeze: Any = MISSING
    augment: Any = MISSING
    loss: Any = MISSING
    optimizer: Any = MISSING
    schedule: Any = MISSING
    average: Any = MISSING
    precision: Any = MISSING
    pruner: Any = MISSING
    tracking: Any = MISSING

    lr: float = MISSING
    momentum: float = MISSING
    weight_decay: float = MISSING
    num_epochs: int = MISSING
    step_size: int = MISSING
    gamma: float = MISSING
    batch_size: int = MISSING
    seed: int = MISSING
    start: str | None = MISSING

    study: str = MISSING
    device: str = MISSING
    features: str = MISSING
    rerun: bool = MISSING
    dry_run: bool = MISSING
    seeds: int | None = MISSING
    checkpoint_minutes: float = MISSING
    cache: str = MISSING
    output: str = MISSING
    storage: str = MISSING
    key: str = MISSING
    directory: str = MISSING
    published: dict[str, Any] | None = MISSING


# Every root key is in exactly one of these three; a test compares them with the composed config.
DECISIVE = [
    "data",
    "model",
    "freeze",
    "augment",
    "loss",
    "optimizer",
    "schedule",
    "average",
    "precision",
    "num_epochs",
    "batch_size",
    "seed",
    "start",
]
# Decisive only through the groups that interpolate them: step_size does not matter to a cosine.
BY_REFERENCE = ["lr", "momentum", "weight_decay", "step_size", "gamma"]
INDIFFERENT = [
    "pruner",
    "tracking",
    "study",
    "device",
    "features",
    "rerun",
    "dry_run",
    "seeds",
    "checkpoint_minutes",
    "cache",
    "output",
    "storage",
    "key",
    "directory",
    "published",
]
# Groups that came later, and their option by which a run is as all runs were before: it is left out
# of the key, so that those runs have theirs still.
LATER = {"average": ("none", {"_target_": "caltech.average.Last"})}
# Where files lie does not decide a result; what is in them is compared by digest (run.py).
INDIFFERENT_WITHIN = {"data": ("root", "download", "cache")}


def run_key(cfg: DictConfig) -> str:
    """Ten hexadecimal digits that are equal for two configs exactly if their results must be."""
    return _digest(decisive(cfg))


def point_key(cfg: DictConfig) -> str:
    """As run_key, but equal for all seeds of one config: what a row of a table stands for."""
    return _digest({name: value for name, value in decisive(cfg).items() if name != "seed"})


def decisive(cfg: DictConfig) -> dict[str, Any]:
    """All that decides the result, as plain values: groups without where files lie."""
    values = {}
    for name in DECISIVE:
        if name not in cfg:  # it was made by code that had fewer
            continue
        value = cfg[name]
        if isinstance(value, DictConfig):
            value = OmegaConf.to_container(value, resolve=True)
            for ignored in INDIFFERENT_WITHIN.get(name, ()):
                value.pop(ignored, None)
        if name not in LATER or value != LATER[name][1]:
            values[name] = value
    return values


def _digest(values: dict[str, Any]) -> str:
    canonical = json.dumps(values, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:10]


def build(group: DictConfig, *args: Any, **kwargs: Any) -> Any:
    """Call a group option's target with the arguments given here and the option's keys.

    Raises:
        InputError: the target is not one of TARGETS, or the keys do not fit it.
    """
    try:
        return instantiate(group, *args, **kwargs, _execution_whitelist_=list(TARGETS))
    except CaltechError:
        raise
    except (InstantiationException, OmegaConfBaseException, TypeError, ValueError) as error:
        if isinstance(error.__cause__, CaltechError):
            raise error.__cause__ from None
        raise InputError(
            f"The config {OmegaConf.to_container(group)} does not fit: {error}. "
            "Type --cfg job to see the whole config, and HYDRA_FULL_ERROR=1 for a traceback."
        ) from error


def project_root() -> str:
    """The checkout, where runs and the tracking store are kept; the working directory without."""
    return str(PACKAGE.parent if (PACKAGE.parent / "pyproject.toml").is_file() else Path.cwd())


def gpus(without: int, most: int | None = None) -> int:
    """How many GPUs this machine has, at most `most`; `without` where there is none."""
    import torch

    return min(torch.cuda.device_count(), most or sys.maxsize) or without


def register() -> None:
    """Make the schema and the resolvers known to Hydra; calling it again changes nothing."""
    ConfigStore.instance().store(name="settings", node=Settings, replace=True)
    OmegaConf.register_resolver("run_key", lambda *, _root_: run_key(_root_), replace=True)
    OmegaConf.register_resolver("project_root", project_root, replace=True)
    OmegaConf.register_resolver("gpus", gpus, replace=True)
