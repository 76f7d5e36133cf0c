"""From a composed config to objects: what it may name, how an option is built."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra._internal.hydra
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from caltech import composer, plugins
from caltech.errors import CaltechError, InputError
from caltech.keys import MOVED, begun_key, renamed, targets_in
from caltech.settings import CONF, PACKAGE, Settings, options


def targets() -> list[str]:
    """The only code that a config may name: what conf/ names, optimizers, schedules, pruners."""
    named = {node["_target_"] for _, option in options() for node in targets_in(option)}
    # Hydra checks what a target returns, too, if it can be called.
    returned = {"caltech.models.classifier.Classifier", "torch.nn.modules.loss.CrossEntropyLoss"}
    return sorted(named | returned | {"torch.optim.*", "optuna.pruners.*"})


def hydra_targets() -> list[str]:
    """What Hydra itself may call beside them: log handlers, the callback, Optuna's samplers."""
    handlers = [f"logging.{name}" for name in ("StreamHandler", "FileHandler", "Formatter")]
    return [*targets(), *handlers, "caltech.sweeps.jobs.NameSweep", "optuna.samplers.*"]


def targets_of(cfg: DictConfig) -> list[str]:
    """What a config names, in all of its groups."""
    return [node["_target_"] for node in targets_in(OmegaConf.to_container(cfg))]


def code_of(cfg: DictConfig) -> str:
    """What plugins' data and model are computed by and neither images nor weights show: their
    code, and the model's values, which its forward may read. Empty without such plugins."""
    told: dict[str, Any] = plugins.digests([*targets_of(cfg.model), *targets_of(cfg.data)])
    if plugins.digests(targets_of(cfg.model)):
        told |= {"values": OmegaConf.to_container(cfg.model, resolve=True)}
    return str(told) if told else ""


def build(group: DictConfig, *args: Any, **kwargs: Any) -> Any:
    """Call a group option's target with the arguments given here and the option's keys.

    Raises:
        InputError: the target is not one that a config may name, or the keys do not fit it.
    """
    plain = OmegaConf.to_container(group)
    if plugins.adds(plain.get("_target_", "")):
        return _built_by_plugin(group, args, kwargs)
    inner = {name: group[name] for name in plain if OmegaConf.is_dict(group[name])}
    kwargs |= {k: build(v) for k, v in inner.items() if plugins.adds(v.get("_target_", ""))}
    if any(renamed(node["_target_"], MOVED) != node["_target_"] for node in targets_in(plain)):
        plain = OmegaConf.to_container(group, resolve=True)
        for node in targets_in(plain):
            node["_target_"] = renamed(node["_target_"], MOVED)
        group = OmegaConf.create(plain)
    try:
        return instantiate(group, *args, **kwargs, _execution_whitelist_=targets())
    except CaltechError:
        raise
    except (InstantiationException, OmegaConfBaseException, TypeError, ValueError) as error:
        if isinstance(error.__cause__, CaltechError):
            raise error.__cause__ from None
        said = " ".join(str(error).split("full_key")[0].split()).rstrip(".")
        values = {name: value for name, value in plain.items() if name != "_target_"}
        if "whitelist" in said:
            raise InputError(
                f"{plain.get('_target_')} is not in the whitelist of what a config may name. If it "
                f"is code of yours, type plugins=[MODULE] or set {plugins.VARIABLE}."
            ) from error
        raise InputError(
            f"{plain.get('_target_')} does not fit its values {values}: {said}. Type --cfg job to "
            "see the whole config, and --help for what each group has."
        ) from error


def _built_by_plugin(group: DictConfig, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """By code of the user's own; what stands inside, as a data set's split, is built before."""
    values = {}
    for name in (str(name) for name in group if name != "_target_"):
        inner = group[name]
        is_option = isinstance(inner, DictConfig) and "_target_" in inner
        plain = OmegaConf.to_container(inner, resolve=True) if OmegaConf.is_config(inner) else inner
        values[name] = build(inner) if is_option else plain
    place = group._key() if group._get_parent() is not None else None
    return plugins.call(place, group["_target_"], args, values | dict(kwargs))


def project_root() -> str:
    """The checkout, where runs and the tracking store are kept; the working directory without."""
    return str(PACKAGE.parent if (PACKAGE.parent / "pyproject.toml").is_file() else Path.cwd())


def sqlite_url(*parts: str) -> str:
    """Address of a SQLite database at a path, whatever characters the path has."""
    path = str(Path(*parts))
    if set(path) & set("%?"):
        from sqlalchemy.engine import make_url

        # From version 2.1 on, SQLAlchemy decodes %; before, it took a path as it stands.
        if make_url("sqlite:///%41").database == "A":
            path = path.replace("%", "%25").replace("?", "%3F")
    return f"sqlite:///{path}"


def folder_name(path: str | None) -> str | None:
    """The last part of a path, as it is called on the disk: of `.` or `photos/`, too."""
    return None if path is None else Path(path).expanduser().absolute().resolve().name


def gpus(without: int, most: int | None = None) -> int:
    """How many GPUs this machine has, at most `most`; `without` where there is none."""
    import torch

    return min(torch.cuda.device_count(), most or sys.maxsize) or without


@contextmanager
def composing() -> Iterator[None]:
    """Here `hydra.compose` makes configs of conf/; the Hydra that is in use stays as it is.

    That is of the command that runs, or of a program around us, with configs of its own.
    """
    loader, state = hydra._internal.hydra.ConfigLoaderImpl, GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    register()
    try:
        with initialize_config_dir(config_dir=str(CONF)):
            yield
    finally:
        hydra._internal.hydra.ConfigLoaderImpl = loader
        GlobalHydra.instance().hydra = state


def register() -> None:
    """Make schema, loader and resolvers known to Hydra; calling it again changes nothing."""
    composer.install()
    ConfigStore.instance().store(name="settings", node=Settings, replace=True)
    OmegaConf.register_resolver("run_key", lambda *, _root_: begun_key(_root_), replace=True)
    OmegaConf.register_resolver("project_root", project_root, replace=True)
    OmegaConf.register_resolver("sqlite_url", sqlite_url, replace=True)
    OmegaConf.register_resolver("folder_name", folder_name, replace=True)
    OmegaConf.register_resolver("gpus", gpus, replace=True)
