"""The composed config: where it lives, the types and ranges of its values, what a run's key is."""

import dataclasses
import difflib
import hashlib
import json
import math
import re
import sys
from collections.abc import Sequence
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
# Where files lie does not decide a result; what is in them is compared by digest (run.py).
INDIFFERENT_WITHIN = {"data": ("root", "download", "cache")}


def run_key(cfg: DictConfig) -> str:
    """Ten hexadecimal digits that are equal for two configs exactly if their results must be."""
    return _digest({name: decisive(cfg, name) for name in DECISIVE})


def point_key(cfg: DictConfig) -> str:
    """As run_key, but equal for all seeds of one config: what a row of a table stands for."""
    return _digest({name: decisive(cfg, name) for name in DECISIVE if name != "seed"})


def decisive(cfg: DictConfig, name: str) -> Any:
    """The plain value of a root key, or a group's keys and values without where files lie."""
    value = cfg[name]
    if isinstance(value, DictConfig):
        value = OmegaConf.to_container(value, resolve=True)
        for ignored in INDIFFERENT_WITHIN.get(name, ()):
            value.pop(ignored, None)
    return value


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


def refuse_null_groups(arguments: Sequence[str]) -> None:
    """Raise InputError for GROUP=null among what was typed, which Hydra does not understand."""
    for argument in arguments:
        group, _, option = argument.partition("=")
        if option == "null" and (CONF / group).is_dir():
            options = [path.relative_to(CONF / group) for path in (CONF / group).rglob("*.yaml")]
            known = ", ".join(sorted(str(path.with_suffix("")) for path in options))
            raise InputError(
                f"{argument} is no option. Leave {group}= out, or type one of {known}."
            )


def validate(cfg: DictConfig) -> None:
    """Raise InputError for the first unknown key or value out of range, before any work."""
    for name in cfg:
        if name not in Settings.__dataclass_fields__:
            close = difflib.get_close_matches(name, Settings.__dataclass_fields__, n=3, cutoff=0.0)
            raise InputError(f"{name} is no key of the config. Did you mean {', '.join(close)}?")

    require_resolved(cfg)

    def require(name: str, allowed: bool, rule: str, example: str) -> None:
        if not allowed:
            raise InputError(f"{name}={cfg[name]} is not allowed: {rule}, for example {example}.")

    for name in ("lr", "momentum", "weight_decay", "gamma"):
        require(name, math.isfinite(cfg[name]), "it must be a finite number", f"{name}=0.1")
    require("lr", cfg.lr > 0, "the learning rate must be positive", "lr=1e-2")
    require("momentum", 0 <= cfg.momentum < 1, "it must be at least 0 and below 1", "momentum=0.9")
    require("weight_decay", cfg.weight_decay >= 0, "it must not be negative", "weight_decay=5e-5")
    require("gamma", cfg.gamma > 0, "it must be positive", "gamma=0.1")
    require("num_epochs", cfg.num_epochs >= 1, "at least one epoch is needed", "num_epochs=30")
    require("step_size", cfg.step_size >= 1, "it is a number of epochs", "step_size=15")
    require("batch_size", cfg.batch_size >= 1, "a batch has images", "batch_size=256")
    require("seed", 0 <= cfg.seed < 2**32, "it must be from 0 to 4294967295", "seed=0")
    require("seeds", cfg.seeds is None or cfg.seeds >= 1, "it is how many seeds", "seeds=5")
    if cfg.seeds is not None and cfg.seed != 0:
        raise InputError(
            f"seeds={cfg.seeds} repeats the run with seeds 0 to {cfg.seeds - 1}, and "
            f"seed={cfg.seed} asks for one. Type seeds={cfg.seeds} or seed={cfg.seed}."
        )
    minutes = cfg.checkpoint_minutes
    require("checkpoint_minutes", minutes > 0, "it must be positive", "checkpoint_minutes=10")
    for name, options in (("device", ("auto", "cpu", "cuda")), ("features", ("auto", "off"))):
        require(name, cfg[name] in options, f"it is one of {', '.join(options)}", f"{name}=auto")
    is_key = cfg.start is None or re.fullmatch("[0-9a-f]{10}", cfg.start) is not None
    rule = "it is a finished run's key, quoted if it reads as a number (start=\"'1234567e89'\")"
    require("start", is_key, rule, "start=6ba21d19c4, or start=null")
    require_study(cfg.study)


def require_resolved(cfg: DictConfig) -> None:
    """Raise InputError if a value refers to another (${name}) that is not there."""
    try:
        OmegaConf.to_container(cfg, resolve=True)
    except OmegaConfBaseException as error:
        raise InputError(f"The config refers to what is not there: {error}") from error


def require_study(study: str) -> None:
    """Raise InputError for a study's name that is no directory's name."""
    plain = study not in ("", ".", "..") and not set(study) & set("/\\")
    if not (plain and study.isprintable() and len(study.encode(errors="replace")) <= 200):
        raise InputError(
            f"study={study} is not allowed: it names a directory under multirun/, "
            "for example study=first_try."
        )
