"""What a config file may say of Hydra: how a sweep searches, how large jobs are, what is logged.
Of code that is executed it says nothing (plugins.py).

A config file is what somebody sent, or a folder of --config-dir. Where Hydra writes, what it calls
and the environment of a job are not such a file's to say: whoever tries it would lend it their
rights. What a user types by hand may set all that Hydra has.
"""

import fnmatch
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra._internal.config_repository import IConfigRepository
from hydra.plugins.config_source import ConfigResult
from omegaconf import OmegaConf

from caltech.errors import InputError
from caltech.settings import CONF

# Paths of plain values within the node `hydra`.
MAY_SET = (
    "mode", "verbose", "sweeper.direction", "sweeper.direction.*", "sweeper.n_trials",
    "sweeper.n_jobs", "sweeper.max_failure_rate", "sweeper.max_batch_size", "sweeper.study_name",
    "sweeper.params", "sweeper.params.*", "sweeper.sampler.*", "launcher.n_jobs", "launcher.nodes",
    "launcher.partition", "launcher.timeout_min", "launcher.max_num_timeout", "launcher.mem_gb",
    "launcher.cpus_per_task", "launcher.gpus_per_node", "*_logging.root.level",
    "*_logging.handlers.*.level", "*_logging.loggers.*.level",
)  # fmt: skip
# Where runs are, which a word is refused for as well: study= and output= say it.
PLACES = {"hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir"}
SAMPLERS = re.compile(r"(optuna\.samplers|hydra_plugins\.hydra_optuna_sweeper)\.[\w.]+")
# What is read where a value stands: our own resolvers, and of the environment no secret.
RESOLVERS = {"hydra", "now", "run_key", "project_root", "gpus", "sqlite_url", "folder_name"}
VARIABLES = re.compile(
    r"(CALTECH|SLURM_|XDG_)\w*|HOME|USER|LOGNAME|HOSTNAME|PWD|SCRATCH|TMPDIR|WORK"
)


def require_harmless(config: Any, file: str) -> None:
    """Raise InputError for the first thing in a config file that it may not say.

    Args:
        config: its content, at its place in the whole config.
        file: its name, for the message.
    """
    plain = OmegaConf.to_container(config, resolve=False) if OmegaConf.is_config(config) else {}
    for path, value in _leaves(plain if isinstance(plain, dict) else {}):
        if reason := _read_by(value):
            raise InputError(f"{file} may not set {path}={value}: {reason}.")
        if path.split(".")[0] == "plugins":
            raise InputError(
                f"{file} may not set {path}={value}: a file does not say which code is executed. "
                f"Take it out of the file, and type plugins=[{value}] if you trust that module."
            )
        within = path.removeprefix("hydra.")
        if path.split(".")[0] == "hydra" and not _may_set(within, value):
            meant = "" if path in PLACES else f", or type {path}=VALUE if you mean it"
            raise InputError(
                f"{file} may not set {path}={value}: of Hydra's, a config file sets the search of "
                "a sweep (hydra.sweeper), the size of its jobs (hydra.launcher) and levels of "
                f"logging. Take it out of the file{meant}."
            )


def _may_set(path: str, value: Any) -> bool:
    if not any(fnmatch.fnmatchcase(path, pattern) for pattern in MAY_SET):
        return False
    if path.endswith(".level"):
        return isinstance(value, int) or value in logging.getLevelNamesMapping()
    if path.startswith("sweeper.params."):
        return not re.match(r"[+~]*hydra\b", path.removeprefix("sweeper.params."))
    if path.startswith("sweeper.sampler."):
        if path.endswith("_target_"):
            return isinstance(value, str) and SAMPLERS.fullmatch(value) is not None
        return "${" not in str(value)
    return path != "sweeper.params" or value is None


def _read_by(value: Any) -> str | None:
    """Why an interpolation may not be in a config file; None if it may."""
    if not isinstance(value, str) or "$" not in value:
        return None
    if re.search(r"\$\{[^{}:]*\$\{", value):
        return "the name of what is read is written out in a file"
    for resolver, rest in re.findall(r"\$\{\s*([\w.]+)\s*:([^{}]*)", value):
        name = rest.split(",")[0].strip(" '\"")
        if resolver == "oc.env" and not VARIABLES.fullmatch(name):
            return f"the variable {name} of the environment is not a file's to read"
        if resolver not in RESOLVERS | {"oc.env"}:
            return f"{resolver} is not a file's to call"
    return None


def _leaves(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Path and value of everything within a plain value that is neither mapping nor list."""
    pairs = node.items() if isinstance(node, dict) else enumerate(node)
    for name, value in pairs:
        inner = f"{path}.{name}".lstrip(".")
        if isinstance(value, (dict, list)) and value:
            yield from _leaves(value, inner)
        elif not isinstance(value, (dict, list)):
            yield inner, value


def is_ours(result: ConfigResult, name: str | None) -> bool:
    """Whether a config is part of the program: Hydra's and its plugins', or our own defaults."""
    if result.path.startswith(("pkg://", "structured://")):
        return "searchpath" not in result.provider
    ours = name in ("train", "report", "tell") or str(name).startswith("hydra/")
    return ours and result.path == f"file://{CONF}"


def require_one_file(result: ConfigResult, name: str | None, repo: IConfigRepository) -> None:
    """Raise InputError for files of one name in two folders, of which Hydra would take the first
    and say nothing of the other: ours, if the other is that of a user's --config-dir."""
    if not result.path.startswith("file://"):
        return
    taken = Path(file_of(result, name))
    for source in repo.get_sources():
        other = Path(source.path) / f"{str(name).removesuffix('.yaml')}.yaml"
        if (
            source.scheme() == "file"
            and other.is_file()
            and other.read_bytes() != taken.read_bytes()
        ):
            raise InputError(
                f"{other} has the name of {taken}, which would be taken in its place. Give it "
                "another name."
            )


def file_of(result: ConfigResult, name: str | None) -> str:
    return f"{result.path.removeprefix('file://')}/{str(name).removesuffix('.yaml')}.yaml"
