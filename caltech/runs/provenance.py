"""What decides a run's result and cannot be seen in its config, and the config itself."""

import hashlib
import logging
import platform
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from caltech.data.dataset import Dataset
from caltech.errors import DamagedError, InputError
from caltech.files import read_sealed_json, replacing, without_passwords, write_sealed_json
from caltech.models.classifier import Classifier
from caltech.models.freeze import digest
from caltech.runs.directory import RunDirectory
from caltech.settings import PACKAGE

log = logging.getLogger(__name__)

# Found once, by the PATH of who started us: a config can set the environment of a job.
GIT = shutil.which("git") or "/usr/bin/git"


def collect(data: Dataset, model: Classifier, device: torch.device) -> dict[str, Any]:
    """What decides a result and cannot be seen in its config: data, weights, code, environment."""
    return {
        "data": {"name": data.name, "sha256": data.digest},
        "weights": {"name": model.weights, "sha256": digest([model])},
        "classes": list(data.classes),  # so that a trained model needs no data set to answer
        "code": code_version(),
        "environment": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "platform": platform.platform(),
            "device": torch.cuda.get_device_name() if device.type == "cuda" else _cpu_name(),
            "threads": torch.get_num_threads(),
            "host": socket.gethostname(),
        },
    }


def record(directory: RunDirectory, cfg: DictConfig, now: dict[str, Any], goes_on: bool) -> None:
    """Write config and provenance, or compare with what an earlier process wrote here.

    A run that goes on by other code or on another machine has those listed as "continued_by".

    Raises:
        InputError: the directory's run was made from other data or other weights.
    """
    path = directory.provenance
    if path.is_file():
        before = _provenance_before(path)
        for what in ("data", "weights"):
            if before[what] != now[what]:
                raise InputError(
                    f"{directory} was made from other {what}: {before[what]}, and now there is "
                    f"{now[what]}. Type study=NAME for a new place, or rerun=true to compute it "
                    "again and keep the old result aside."
                )
        if before["code"]["sha256"] != now["code"]["sha256"]:
            log.warning(
                "%s was made by other code: %s, and now there is %s. Type rerun=true to compute "
                "it again.", directory, before["code"], now["code"],
            )  # fmt: skip
        makers = [_maker(before), *before.get("continued_by", [])]
        if goes_on and _maker(now) not in makers:
            write_sealed_json(path, before | {"continued_by": [*makers[1:], _maker(now)]})
        return
    with replacing(directory.config) as partial:
        partial.write_text(without_passwords(OmegaConf.to_yaml(cfg, resolve=True)))
    write_sealed_json(path, now)


def is_begun(directory: RunDirectory, now: dict[str, Any]) -> bool:
    """Whether an earlier process began the very run: from the same data, weights and code."""
    path = directory.provenance
    try:
        before = read_sealed_json(path) if path.is_file() else None
    except DamagedError:
        return False
    decisive = ("data", "weights", "code")
    return before is not None and all(before[what] == now[what] for what in decisive)


def _maker(made_from: dict[str, Any]) -> dict[str, Any]:
    """What may change when a run goes on, and be told of it."""
    return {"code": made_from["code"], "environment": made_from["environment"]}


def _provenance_before(path: Path) -> dict[str, Any]:
    try:
        return read_sealed_json(path)
    except DamagedError as error:
        raise DamagedError(
            f"{error} What {path.parent} was made from cannot be told. Type rerun=true to compute "
            "it again and keep the old files aside."
        ) from None


def code_version() -> dict[str, Any]:
    """Git commit of a checkout and a hash of this package's source as it is now."""
    sha = hashlib.sha256()
    for path in sorted(PACKAGE.rglob("*.py")):
        sha.update(str(path.relative_to(PACKAGE)).encode() + path.read_bytes())
    command = [GIT, "-C", str(PACKAGE), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        git = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        git = "not a git checkout"
    return {"git": git, "sha256": sha.hexdigest()[:16]}


def _cpu_name() -> str:
    """The processor's marketing name where Linux tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
