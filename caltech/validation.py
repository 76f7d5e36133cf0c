"""What may be typed: unknown keys and values out of range are one message before any work."""

import difflib
import math
import re
from collections.abc import Sequence

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from caltech.config import CONF, Settings
from caltech.errors import InputError


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
    """Raise InputError if a value is missing (???) or refers to one (${name}) that is not there."""
    try:
        OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        said = str(error).splitlines()[0]
        raise InputError(
            f"The config is not complete at {error.full_key}: {said}. "
            "Type --cfg job to see the whole config."
        ) from error


def require_study(study: str) -> None:
    """Raise InputError for a study's name that is no directory's name."""
    plain = study not in ("", ".", "..") and not set(study) & set("/\\")
    if not (plain and study.isprintable() and len(study.encode(errors="replace")) <= 200):
        raise InputError(
            f"study={study} is not allowed: it names a directory under multirun/, "
            "for example study=first_try."
        )
