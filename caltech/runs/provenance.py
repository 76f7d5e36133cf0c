"""What decides a run's result and cannot be seen in its config, and the config itself."""

import functools
import hashlib
import logging
import platform
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from caltech import versions
from caltech.data.dataset import Dataset
from caltech.errors import DamagedError, InputError
from caltech.files import (
    read_sealed_json,
    remove,
    write_bytes,
    write_sealed_json,
)
from caltech.keys import former_key, run_key
from caltech.models.classifier import Classifier
from caltech.models.freeze import digest
from caltech.passwords import without_passwords
from caltech.runs import manifest
from caltech.runs.directory import RunDirectory
from caltech.settings import PACKAGE

log = logging.getLogger(__name__)

# Found once, by the PATH of who started us: a config can set the environment of a job.
GIT = shutil.which("git") or "/usr/bin/git"


# Of the environment, what may change a result's last bits; a tracker and a report tell of it, too.
DECISIVE = ("device", "torch", "torchvision", "timm", "numpy", "pillow", "libjpeg", "libwebp")
DECISIVE += ("instructions", "cuda", "cudnn", "fp32", "features")


def settled(cfg: DictConfig) -> DictConfig:
    """The config with the key of its run, whatever comes to lie on the disk.

    Raises:
        InputError: the key was typed and is another config's, or the directory holds another run,
            or other files and no run.
        DiskError: the directory cannot be written.
    """
    key, own = cfg.key, {run_key(cfg), former_key(cfg)}
    if key not in own:
        raise InputError(
            f"key={key} is not the key of this run, which is {run_key(cfg)}. A key follows from "
            "the rest of the config: leave key= out."
        )
    directory = RunDirectory(cfg.directory)
    if directory.path.name != key:  # it was typed
        directory.require_no_others()
    directory.require_writable()
    held = _keys_noted(directory)
    if held and not held & own:
        raise InputError(
            f"{directory} holds run {', '.join(sorted(held))}, and this command is run {key}. "
            "Nothing of it is touched. Type another directory=, or leave it out, or study=NAME."
        )
    return OmegaConf.merge(cfg, {"key": key if key in held else min(held & own, default=key)})


def collect(
    data: Dataset,
    model: Classifier,
    device: torch.device,
    plugins: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """What decides a result and cannot be seen in its config: data, weights, code, environment.

    Args:
        plugins: digests of the code of the user's own, by its modules.
    """
    return {
        "data": {"name": data.name, "sha256": data.digest},
        "weights": {"name": model.weights, "sha256": digest([model])},
        "classes": list(data.classes),  # so that a trained model needs no data set to answer
        "code": code_version(plugins),
        "environment": {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "device": torch.cuda.get_device_name() if device.type == "cuda" else _cpu_name(),
            "threads": torch.get_num_threads(),
            "host": socket.gethostname(),
            **versions.computing(device),
            **versions.decoding(),
        },
    }


def origin(made_from: Mapping[str, Any]) -> dict[str, str]:
    """For a run's checkpoints to note: digests of its data and of the weights it began with."""
    return {what: made_from[what]["sha256"] for what in ("data", "weights")}


def read(directory: RunDirectory) -> dict[str, Any]:
    """What `record` wrote, by this or an earlier version.

    Raises:
        DamagedError: it is not that any more.
    """
    kept = read_sealed_json(directory.provenance, {"data": dict})
    classes = kept.get("classes", [])
    named = all(isinstance(kept["data"].get(name), str) for name in ("name", "sha256"))
    if not named or not isinstance(classes, list) or not all(isinstance(n, str) for n in classes):
        raise DamagedError(f"{directory.provenance} was cut short or changed.")
    return kept


def record(directory: RunDirectory, cfg: DictConfig, now: dict[str, Any], goes_on: bool) -> None:
    """Write config and provenance, or compare with what an earlier process wrote here.

    A run that goes on by other code or on another machine has those listed as "continued_by".

    Raises:
        InputError: the directory's run was made from other data or other weights.
        DamagedError: what it was made from cannot be told.
    """
    path = directory.provenance
    if not goes_on:
        with _saying_what_to_type():
            manifest.verify(directory, [directory.config, path])
    begun = (path, *directory.checkpoints)
    if goes_on and not any(each.is_file() for each in begun):
        _begin(directory, cfg)
        write_sealed_json(path, {"key": cfg.key, **now})
        return
    with _saying_what_to_type():
        before = _whole(directory)
        if before.get("key", cfg.key) != cfg.key:  # earlier code did not note it
            raise DamagedError(f"{path} is that of run {before['key']}, not of {cfg.key}.")
    _compare(directory, before, now)
    if goes_on:
        _begin(directory, cfg)
    makers = [_maker(before), *before.get("continued_by", [])]
    if goes_on and _maker(now) not in makers:
        write_sealed_json(path, before | {"continued_by": [*makers[1:], _maker(now)]})


def _begin(directory: RunDirectory, cfg: DictConfig) -> None:
    remove(directory.manifest)  # what comes is of no result yet
    _write_config(directory, cfg)


def is_begun(directory: RunDirectory, now: dict[str, Any]) -> bool:
    """Whether an earlier process began the very run: from the same data, weights and code."""
    try:
        before = _whole(directory)
    except DamagedError:
        return False
    return all(before[what] == now[what] for what in ("data", "weights", "code"))


def _compare(directory: RunDirectory, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse other data and weights; warn of other code, other libraries and another device."""
    for what in ("data", "weights"):
        _require_same(directory, what, before[what], now[what])
    if before["code"]["sha256"] != now["code"]["sha256"]:
        log.warning(
            "%s was made by other code: %s, and now there is %s. Type rerun=true to compute it "
            "again.", directory, before["code"], now["code"],
        )  # fmt: skip
    one, other = before["environment"], now["environment"]
    differ = [n for n in DECISIVE if n in one and n in other and one[n] != other[n]]
    if differ:
        log.warning(
            "%s was made with %s, and now there is %s. Its last digits may differ. Type rerun=true "
            "to compute it again.", directory, *(
                ", ".join(f"{name} {each[name]}" for name in differ) for each in (one, other)
            ),
        )  # fmt: skip


def require_data(directory: RunDirectory, data: Dataset) -> None:
    """Raise InputError if the directory's run was made from other data: before they are decoded."""
    with suppress(DamagedError):  # which `record` tells
        if directory.provenance.is_file():
            now = {"name": data.name, "sha256": data.digest}
            _require_same(directory, "data", _whole(directory)["data"], now)


def _require_same(
    directory: RunDirectory, what: str, before: Mapping[str, str], now: Mapping[str, str]
) -> None:
    if before != now:
        one, other = (f"{each['name']} ({each['sha256'][:8]})" for each in (before, now))
        raise InputError(
            f"{directory} was made from other {what}: {one}, and now there is {other}. Type "
            "study=NAME for a new place, or rerun=true to compute it again and keep the old "
            "result aside."
        )


def _write_config(directory: RunDirectory, cfg: DictConfig) -> None:
    """With what was typed last, as keep_checkpoint, which does not decide the result; what is not
    this run's any more is told."""
    text = without_passwords(OmegaConf.to_yaml(cfg, resolve=True)).encode()
    if directory.config.is_file():
        try:
            config = manifest.read_config(directory.config)
            own = manifest.keys_of(config)
            if config.key != cfg.key or (own is not None and cfg.key not in own):
                log.warning(
                    "%s is not that of run %s. It is written again.", directory.config, cfg.key
                )
            elif directory.config.read_bytes() == text:
                return
        except DamagedError as error:
            log.warning("%s It is written again.", error)
    write_bytes(directory.config, text)


def _whole(directory: RunDirectory) -> dict[str, Any]:
    """Provenance with all that a run that goes on is compared by."""
    kept = read(directory)
    parts = [kept, *kept.get("continued_by", [])] if isinstance(kept, dict) else []
    for part in parts:
        if not all(isinstance(part.get(name), dict) for name in ("code", "environment")):
            raise DamagedError(f"{directory.provenance} was cut short or changed.")
    weights = kept.get("weights")
    is_named = isinstance(weights, dict) and {"name", "sha256"} <= weights.keys()
    if not is_named or "sha256" not in kept["code"]:
        raise DamagedError(f"{directory.provenance} was cut short or changed.")
    return kept


def _maker(made_from: dict[str, Any]) -> dict[str, Any]:
    """What may change when a run goes on, and be told of it."""
    return {"code": made_from["code"], "environment": made_from["environment"]}


@contextmanager
def _saying_what_to_type() -> Iterator[None]:
    try:
        yield
    except DamagedError as error:
        raise DamagedError(
            f"{error} What the run was made from cannot be told. Restore the file, or type "
            "rerun=true to compute the run again and keep the old files aside."
        ) from None


def _keys_noted(directory: RunDirectory) -> set[str]:
    """The keys that a directory's files name: one, if no file is another run's."""
    keys = set()
    for path in (directory.result, directory.provenance):
        if path.is_file():
            with suppress(DamagedError):
                keys.add(read_sealed_json(path, {"key": str})["key"])
    if directory.config.is_file():
        with suppress(DamagedError):
            keys.add(manifest.read_config(directory.config).key)
    return keys


def code_version(plugins: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Git commit of a checkout and a hash of this package's source, and of plugins', as it is."""
    sha = hashlib.sha256(repr(sorted(plugins.items())).encode() if plugins else b"")
    for path in sorted(PACKAGE.rglob("*.py")):
        sha.update(str(path.relative_to(PACKAGE)).encode() + path.read_bytes())
    told = {"git": _commit(GIT, PACKAGE, sha.hexdigest()), "sha256": sha.hexdigest()[:16]}
    return told | ({"plugins": dict(plugins)} if plugins else {})


@functools.cache
def _commit(git: str, package: Path, sha256: str) -> str:
    """What git calls the commit, asked once a process while the code is the same."""
    command = [git, "-C", str(package), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "not a git checkout"


def _cpu_name() -> str:
    """The processor's marketing name where Linux tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
