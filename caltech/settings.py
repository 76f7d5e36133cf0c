"""What may be typed: each root key once, the options of conf/, the check before any work."""

import dataclasses
import difflib
import functools
import math
import os
import re
from collections.abc import Callable, Container
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from caltech.arguments import nearest
from caltech.errors import InputError
from caltech.passwords import without_passwords

PACKAGE = Path(__file__).resolve().parent
# A wheel carries conf/ inside the package; in a checkout it stands beside it.
CONF = next(path for path in (PACKAGE / "conf", PACKAGE.parent / "conf") if path.is_dir())


def names_a_folder(name: str | int) -> bool:
    """Whether a study's name is that of a folder and no way to another one."""
    name = str(name)  # 2026, which Hydra takes for a number
    plain = name not in ("", ".", "..") and not set(name) & set("/\\") and name[0] != "~"
    return plain and name.isprintable() and len(name.encode(errors="replace")) <= 200


@dataclasses.dataclass(frozen=True)
class RootKey:
    """What there is to know of one key at the root of the config.

    `decides` says whether results depend on it: True, False, or None if they do only through the
    groups that refer to it, as step_size does not matter to a cosine.
    """

    decides: bool | None
    type: Any = Any  # Any is a group
    allowed: Callable[[Any], bool] = lambda value: True
    rule: str = ""
    example: str = ""
    like: Callable[[Any], str] = lambda value: (
        ""
    )  # what may be meant by a value that is not allowed


def _one_of(*options: str) -> tuple[Callable[[Any], bool], str, str, Callable[[Any], str]]:
    rule = f"it is one of {', '.join(options)}"
    # As far from each other as gpu and cpu, they are not alike.
    return options.__contains__, rule, options[0], lambda value: nearest(value, options, 0.7)


def _is_place(path: str) -> bool:
    if os.name != "nt" and re.match(r"[A-Za-z]:[\\/]", path):
        return False  # of another system: a folder of that name would be made here
    with suppress(RuntimeError):  # ~ without a home directory
        return path != "" and "\0" not in path and bool(Path(path).expanduser())
    return False


def _is_database(url: str) -> bool:
    """Whether there may be a database at an URL: asked before SQLAlchemy and drivers are loaded."""
    kind, _, rest = url.partition("://")
    if rest.strip("/") in ("", ":memory:"):
        return False
    if kind.partition("+")[0] in DATABASES:
        return True
    added = {each.name for each in metadata.entry_points(group="sqlalchemy.dialects")}
    return kind in added or kind.replace("+", ".") in added


def _database_like(url: str) -> str:
    """The URL that a path or a URL of older forms may mean; empty if none."""
    kind, _, rest = url.partition("://")
    if kind.casefold() == "postgres" and rest:
        return f"postgresql+psycopg://{without_passwords(f'a://{rest}')[4:]}"
    if rest and kind != kind.casefold() and _is_database(f"{kind.casefold()}://{rest}"):
        return without_passwords(f"{kind.casefold()}://{rest}")
    path = re.sub(r"^sqlite:/*(?=/)", "", url)
    is_path = "://" not in path and path.endswith((".db", ".sqlite", ".sqlite3"))
    return f"sqlite:///{Path(path).expanduser().absolute()}" if is_path else ""


# What SQLAlchemy has; others are added by packages. A study in memory would end with its process.
DATABASES = ("sqlite", "postgresql", "mysql", "mariadb", "oracle", "mssql", "journal")
_PLACE = (_is_place, "it is the path of a folder here, and ~ is the home directory if there is one")
# What Hydra and the tracker are told of a run, and what it is found by: computed from all the rest.
COMPUTED = {"key": "${run_key:}"}

ROOT = {
    "data": RootKey(True),
    "split": RootKey(True),
    "model": RootKey(True),
    "freeze": RootKey(True),
    "augment": RootKey(True),
    "mix": RootKey(True),
    "loss": RootKey(True),
    "optimizer": RootKey(True),
    "schedule": RootKey(True),
    "average": RootKey(True),
    "precision": RootKey(True),
    "pruner": RootKey(False),
    "tracking": RootKey(False),
    "lr": RootKey(None, float, lambda v: 0 < v < math.inf,
        "the learning rate must be positive and finite", "1e-2"),
    "momentum": RootKey(None, float, lambda v: 0 <= v < 1,
        "it must be at least 0 and below 1", "0.9"),
    "weight_decay": RootKey(None, float, lambda v: 0 <= v < math.inf,
        "it must not be negative", "5e-5"),
    "num_epochs": RootKey(True, int, lambda v: v >= 1, "at least one epoch is needed", "30"),
    "step_size": RootKey(None, int, lambda v: v >= 1, "it is a number of epochs", "15"),
    "gamma": RootKey(None, float, lambda v: 0 < v < math.inf, "it must be positive", "0.1"),
    "batch_size": RootKey(True, int, lambda v: v >= 1, "a batch has images", "256"),
    "micro_batch": RootKey(True, int | None, lambda v: v is None or v >= 1,
        "it is how many images of a batch are computed at a time", "32"),
    "clip_norm": RootKey(True, float | None, lambda v: v is None or 0 < v < math.inf,
        "it is the norm that all gradients together have at most, positive and finite", "1.0"),
    "patience": RootKey(True, int | None, lambda v: v is None or v >= 1,
        "it is how many epochs may pass without a higher validation accuracy", "5"),
    "seed": RootKey(True, int, lambda v: 0 <= v < 2**32, "it must be from 0 to 4294967295", "0"),
    "start": RootKey(True, str | None,
        lambda v: v is None or re.fullmatch("[0-9a-f]{10}", v) is not None,
        "it is a finished run's key, ten characters as caltech runs lists them, or null; quoted if "
        "it reads as a number (start=\"'1234567e89'\")", "null"),
    "study": RootKey(False, str, names_a_folder,
        "it is the name of a folder in output, and no path", "first_try"),
    "device": RootKey(False, str, *_one_of("auto", "cpu", "cuda", "mps")),
    "deterministic": RootKey(False, bool),
    "compile": RootKey(False, bool),
    "features": RootKey(False, str, *_one_of("auto", "folded", "off")),
    "logits": RootKey(False, str, *_one_of("auto", "keep", "none")),
    "last_weights": RootKey(False, str, *_one_of("auto", "keep", "none")),
    "rerun": RootKey(False, bool),
    "keep_checkpoint": RootKey(False, bool),
    "dry_run": RootKey(False, bool),
    "seeds": RootKey(False, int | None, lambda v: v is None or v >= 1,
        "it is how many seeds, at least 1", "5"),
    "workers": RootKey(False, int, lambda v: v >= 1,
        "it is how many processes work on a search", "8"),
    "gpu_share": RootKey(False, int, lambda v: v >= 1,
        "it is how many processes may compute on one GPU", "4"),
    "checkpoint_minutes": RootKey(False, float, lambda v: v > 0, "it must be positive", "10"),
    "cache": RootKey(False, str, *_PLACE, "/tmp/caltech"),
    "output": RootKey(False, str, *_PLACE, "multirun"),
    "storage": RootKey(False, str, _is_database, "it is the URL of a database: sqlite:///PATH, "
        "postgresql+psycopg://USER@HOST/NAME, mysql://..., or journal://PATH",
        "sqlite:////tmp/optuna.db", _database_like),
    "key": RootKey(False, str),
    "directory": RootKey(False, str, *_PLACE, "multirun/first_try/one"),
    "plugins": RootKey(False, list[str], example="[my_package.parts]"),
    "published": RootKey(False, dict[str, Any] | None),
}  # fmt: skip
KINDS = {
    int: "a whole number", float: "a number", bool: "true or false", str: "a text",
    int | None: "a whole number or null", str | None: "a text or null",
    float | None: "a number or null",
    dict[str, Any] | None: "of the form {name:value}, or null", list[str]: "a list, [one,two]",
}  # fmt: skip
Settings = dataclasses.make_dataclass(
    "Settings",
    [(name, key.type, dataclasses.field(default=MISSING)) for name, key in ROOT.items()],
    namespace={"__module__": __name__},  # by which pickle finds it: a config has its class
)


@functools.cache
def options() -> tuple[tuple[str, dict[str, Any]], ...]:
    """Group and content of every option that conf/ has for the root keys."""
    files = sorted(path for path in CONF.glob("*/*.yaml") if path.parent.name in ROOT)
    loaded = ((path.parent.name, OmegaConf.load(path)) for path in files)
    return tuple((group, OmegaConf.to_container(option)) for group, option in loaded)


def require_whole(cfg: DictConfig) -> None:
    """Raise InputError for a root key that is unknown or was removed, or a value that is not there.

    Hydra takes `+name=` and `~name` of any name.
    """
    for name in cfg:
        if name not in ROOT:
            close = difflib.get_close_matches(name, ROOT, n=3, cutoff=0.0)
            raise InputError(f"{name} is no key of the config. Did you mean {', '.join(close)}?")
    there = cfg.keys()  # to ask `in cfg` would compute the key, which is slow
    for name in ROOT:
        if name not in there:
            raise InputError(
                f"{name} is not in the config: no key can be removed. Leave ~{name} out."
            )
    require_resolved(cfg)


def validate(cfg: DictConfig) -> None:
    """Raise InputError for the first key that is unknown or value out of range, before any work."""
    require_whole(cfg)
    for name in ROOT:
        require_allowed(name, cfg[name])
    _require_seeds(cfg)


def require_fixed(cfg: DictConfig, swept: Container[str]) -> None:
    """Raise InputError for a value by which every job of a sweep would be refused.

    Args:
        cfg: composed without the values that differ between the jobs.
        swept: root keys whose values here are no job's.
    """
    there = cfg.keys()  # as in require_whole
    for name in (name for name in ROOT if name in there and name not in swept):
        with suppress(OmegaConfBaseException):  # it may refer to what is swept
            require_allowed(name, cfg[name])
    if "seed" not in swept and "seeds" not in swept:
        with suppress(OmegaConfBaseException):
            _require_seeds(cfg)


def _require_seeds(cfg: DictConfig) -> None:
    if cfg.seeds is not None and cfg.seed != 0:
        raise InputError(
            f"seeds={cfg.seeds} repeats the run with seeds 0 to {cfg.seeds - 1}, and "
            f"seed={cfg.seed} asks for one. Type seeds={cfg.seeds} or seed={cfg.seed}."
        )


def require_allowed(name: str, value: Any) -> None:
    """Raise InputError if the table does not allow a root key to have this value."""
    key = ROOT[name]
    if not key.allowed(value):
        shown = without_passwords(value) if isinstance(value, str) else value
        meant = (isinstance(value, str) and key.like(value)) or key.example
        raise InputError(f"{name}={shown} is not allowed: {key.rule}. Type {name}={meant}.")


def require_places(cfg: DictConfig) -> None:
    """Raise InputError if anything would be written outside of output/study, or nowhere.

    Hydra makes a run's directory before it calls us; this is looked at when a config is composed.
    A directory= is taken as it is: what it holds is asked by the run (provenance.settled).
    """
    there = cfg.keys()  # as in require_whole
    for name in ("study", "output", "cache", "directory", "storage"):
        if name in there:
            with suppress(OmegaConfBaseException):  # a value that is not there is told later
                require_allowed(name, cfg[name])
    for name, formula in COMPUTED.items():
        if name in there and cfg._get_node(name)._value() != formula:
            raise InputError(
                f"{name}={cfg._get_node(name)._value()} is not allowed: it is computed "
                f"from all that decides the result. Leave {name}= out."
            )


def kind(name: str) -> str:
    """What values a root key takes, in words; empty where that is not known."""
    if name not in ROOT or ROOT[name].type not in KINDS:
        return ""
    return f"it is {KINDS[ROOT[name].type]}" + (
        f", and {rule}" if (rule := ROOT[name].rule) else ""
    )


def refusal(name: str, cfg: DictConfig) -> str | None:
    """Why the table does not allow the value that a root key has here; None if it does."""
    try:
        require_allowed(name, cfg[name])
        require_places(cfg)
    except InputError as error:
        return str(error).partition(" Type ")[0].partition(" Leave ")[0]
    except OmegaConfBaseException:  # what it refers to is not there: told later
        pass
    return None


def require_resolved(cfg: DictConfig) -> None:
    """Raise InputError if a value is missing (???) or refers to one (${name}) that is not there."""
    try:
        OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        said = str(error).splitlines()[0]
        typed = f" Type {error.full_key}=VALUE." if isinstance(error, MissingMandatoryValue) else ""
        raise InputError(
            f"The config is not complete at {error.full_key}: {said}.{typed} "
            "Type --cfg job to see the whole config."
        ) from error
