"""Runs as a list: read from their directories alone, without torch and without MLflow."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from caltech import overrides
from caltech.errors import OF_ANOTHER_SHAPE, DamagedError
from caltech.files import read_sealed_json
from caltech.keys import decisive
from caltech.runs.directory import RunDirectory
from caltech.runs.manifest import read_config
from caltech.settings import ROOT

_KEY = re.compile(r"^key: ['\"]?([0-9a-f]{10})\b", re.MULTILINE)  # in a config, as a run writes it
RUNNING, INTERRUPTED, DAMAGED = "running", "interrupted", "damaged"


@dataclass(frozen=True)
class Listed:
    """One run as it is now. Accuracies are those of the best epoch in validation."""

    study: str
    key: str
    status: str  # finished, pruned, running, interrupted, failed or damaged
    stopped: str  # after which epoch and why, if that was before the last
    words: tuple[str, ...]  # that decide it, as typed; of one name the last
    validation: float | None
    test: float | None
    epochs: int
    bytes: int  # on the disk; of a file that several share, its share
    changed: float  # seconds since 1970
    directory: Path


def listed(study: Path) -> list[Listed]:
    """The runs of a study's folder, the newest first."""
    found = [_read(RunDirectory(path.parent)) for path in study.glob("*/config.yaml")]
    return sorted(found, key=lambda run: (-run.changed, run.key))


def differing(runs: Sequence[Listed]) -> dict[Path, tuple[str, ...]]:
    """By directory, the words of a run that not all runs have."""
    shared = set.intersection(*(set(run.words) for run in runs)) if len(runs) > 1 else set()
    return {run.directory: tuple(word for word in run.words if word not in shared) for run in runs}


def taken(files: Iterable[Path]) -> int:
    """Bytes of files on the disk; of one that has several names, its share."""
    total = 0.0
    for path in files:
        if path.is_file() and not path.is_symlink():
            status = path.stat()
            total += status.st_blocks * 512 / status.st_nlink
    return round(total)


def _read(directory: RunDirectory) -> Listed:
    try:
        status, stopped, epochs, best = _told(directory)
        key = _key(directory)
        _require_own(directory, key)
        words = _words(directory, key)
    except (DamagedError, OSError, *OF_ANOTHER_SHAPE):
        status, stopped, epochs, best, words = DAMAGED, "", 0, {}, ()
    times = [path.stat().st_mtime for path in _newest(directory) if path.is_file()]
    return Listed(
        study=directory.path.parent.name,
        key=directory.path.name,
        status=status,
        stopped=stopped,
        words=words,
        validation=best.get("val/accuracy"),
        test=best.get("test/accuracy"),
        epochs=epochs,
        bytes=taken(directory.path.rglob("*")),
        changed=max(times, default=0.0),
        directory=directory.path,
    )


def _told(directory: RunDirectory) -> tuple[str, str, int, dict[str, float]]:
    """Status, why it stopped early, epochs, and the accuracies of the best one."""
    if directory.result.is_file():
        result = read_sealed_json(directory.result, {"status": str, "best": dict, "last": dict})
        name = directory.path.name
        if result.get("key") != name and re.fullmatch("[0-9a-f]{10}", name):
            raise DamagedError(f"{directory} is named as run {name}, and holds another one.")
        best, epochs = result["best"], int(result["last"]["epoch"])
        status, stopped = result["status"], str(result.get("stopped") or "")
    else:
        status, stopped = RUNNING if directory.is_held() else _ended(directory), ""
        history = _history(directory)
        best = max(history, key=lambda epoch: epoch["val/accuracy"], default={})
        epochs = len(history)
    shares = {name: best[name] for name in ("val/accuracy", "test/accuracy") if name in best}
    return status, stopped, epochs, {name: 1.0 * share for name, share in shares.items()}


def _newest(directory: RunDirectory) -> list[Path]:
    finished = directory.result.is_file()
    return [directory.result] if finished else [directory.config, directory.history]


def _ended(directory: RunDirectory) -> str:
    """How a run without a result stopped: a person or the system ended it, or an error."""
    if directory.ended.is_file():
        return "failed" if read_sealed_json(directory.ended)["status"] == "FAILED" else INTERRUPTED
    return INTERRUPTED


def _history(directory: RunDirectory) -> list[dict[str, float]]:
    return read_sealed_json(directory.history)["epochs"] if directory.history.is_file() else []


def _require_own(directory: RunDirectory, key: str | None) -> None:
    """Raise DamagedError if the config or the manifest of another run lies there."""
    noted = _KEY.search(directory.config.read_text("utf-8", "replace"))
    if key and noted and noted[1] != key:
        raise DamagedError(f"{directory.config} is of run {noted[1]}, and not of run {key}.")
    manifest = directory.manifest
    kept = read_sealed_json(manifest, {"key": str}) if manifest.is_file() else {}
    if key and kept.get("key", key) != key:
        raise DamagedError(f"{manifest} is of run {kept['key']}, and not of run {key}.")


def _key(directory: RunDirectory) -> str | None:
    """By the result or, without one, by the directory's name if that was not typed."""
    if directory.result.is_file():
        return read_sealed_json(directory.result).get("key")
    return directory.path.name if re.fullmatch("[0-9a-f]{10}", directory.path.name) else None


def _words(directory: RunDirectory, key: str | None) -> tuple[str, ...]:
    """What was typed and decides the result.

    Of earlier code, or if what was typed for another run lies there, what the config says instead.
    """
    if not directory.description.is_file():
        return _of_config(directory)
    kept = read_sealed_json(directory.description, {"tags": dict, "params": dict})
    if key and kept["tags"].get("key", key) != key:
        return _of_config(directory)
    typed = overrides.apart(kept["tags"].get("overrides", ""))
    indifferent = {name for name, key in ROOT.items() if key.decides is False}
    words = [w for w in typed if overrides.name_of(w).partition(".")[0] not in indifferent]
    seed = f"seed={kept['params'].get('seed', 0)}"
    if seed != "seed=0" and seed not in words:  # of seeds=5
        words.append(seed)
    return tuple(overrides.effective(words))


def _of_config(directory: RunDirectory) -> tuple[str, ...]:
    values = decisive(read_config(directory.config))
    words = []
    for name, value in values.items():
        if isinstance(value, dict):
            target = str(value.get("name") or value.get("_target_", "")).rpartition(".")[2]
            words.append(f"{name}={target}")
            words += [
                f"{name}.{inner}={json.dumps(own)}".replace('"', "")
                for inner, own in value.items()
                if inner not in ("_target_", "name")
            ]
        elif value is not None:
            words.append(f"{name}={value}")
    return tuple(word.replace(" ", "") for word in words)
