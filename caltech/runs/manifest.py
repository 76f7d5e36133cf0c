"""Which files belong to a run: its config by the key, the others by their SHA-256.

manifest.json is sealed: {"key": the run's, "files": {name: SHA-256}}. It is written just before the
result, so the weights, answers, config or provenance of another run, or edited ones, are told from
the run's own. A run of earlier code has none: of its config, the key is computed again.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from caltech.errors import OF_ANOTHER_SHAPE, DamagedError
from caltech.files import read_sealed_json, require_no_pipe, write_sealed_json
from caltech.keys import ADDED, LISTS_WITHIN, former_key, run_key
from caltech.runs.directory import WEIGHTS, RunDirectory
from caltech.settings import ROOT


def write(directory: RunDirectory, key: str, result: bytes) -> None:
    """Of all files of a run that has ended, and of the result that is about to be written."""
    files = [directory.config, directory.provenance, directory.data, directory.timing]
    files += [directory.history, directory.frozen, *map(directory.weights, WEIGHTS)]
    files += [*map(directory.predictions, WEIGHTS), *map(directory.logits, WEIGHTS)]
    files += [directory.calibration, directory.images, directory.groups]
    sums = {path.name: _sha256(path) for path in files if path.is_file()}
    sums[directory.result.name] = hashlib.sha256(result).hexdigest()
    write_sealed_json(directory.manifest, {"key": key, "files": sums})


def renew(directory: RunDirectory) -> None:
    """After files were added to a run that has ended; a run of earlier code has no manifest.

    The last epoch's weights may have been removed since.

    Raises:
        DamagedError: a file that was there is not what the run wrote.
    """
    if directory.manifest.is_file():
        kept = read_sealed_json(directory.manifest, {"key": str, "files": dict})
        added = {*map(directory.logits, WEIGHTS), directory.calibration, directory.images}
        last = directory.weights("last")
        added |= set() if last.is_file() else {last}
        verify(directory, kept["files"].keys() - {path.name for path in added})
        write(directory, kept["key"], directory.result.read_bytes())


def verify(directory: RunDirectory, names: Iterable[str | Path]) -> None:
    """Compare files of a run that has ended with what it wrote.

    Args:
        names: of files in the directory. What the run did not write is not its file, either.

    Raises:
        DamagedError: names the first file that does not belong to the run.
    """
    if not directory.manifest.is_file():
        _verify_config(directory)
        return
    kept = read_sealed_json(directory.manifest, {"key": str, "files": dict})
    for name in (Path(name).name for name in names):
        path = directory.path / name
        if path == directory.groups and name not in kept["files"]:
            continue  # earlier code did not list it
        if name in kept["files"] and not path.is_file():
            raise DamagedError(f"{directory} has no {lacking(path)}; it had one when it ended.")
        if kept["files"].get(name) != _sha256(path):
            raise DamagedError(
                f"{path} is not the file that run {kept['key']} wrote there: it was changed, or is "
                f"another run's ({directory.manifest.name})."
            )


def harmed(directory: RunDirectory) -> tuple[list[str], list[str]]:
    """Files that a run wrote and that are gone, but for what caltech clean removes; and changed.

    Raises:
        DamagedError: its list of them is not what was written, or one cannot be read.
    """
    if not directory.manifest.is_file():
        return [], []
    kept = read_sealed_json(directory.manifest, {"key": str, "files": dict})["files"]
    there = {name: directory.path / name for name in kept if (directory.path / name).is_file()}
    gone = kept.keys() - there.keys() - {directory.weights("last").name}
    return sorted(gone), [name for name, path in there.items() if _sha256(path) != kept[name]]


def wrote(directory: RunDirectory, path: Path) -> bool:
    """Whether a finished run had this file when it ended; of earlier code nobody knows.

    Raises:
        DamagedError: its list of them is not what was written.
    """
    if not directory.manifest.is_file():
        return True
    kept = read_sealed_json(directory.manifest, {"key": str, "files": dict})["files"]
    return path.name in kept


def lacking(path: Path) -> str:
    """A file that is not there, for a message, with what may have removed it."""
    why = " (caltech clean last removes it, and a sweep keeps a head's best weights alone)"
    return f"{path.name}{why if _is_last(path) else ''}"


def again(path: Path) -> str:
    """What is typed beside a run's command to have weights computed that are not there."""
    return f"rerun=true{' last_weights=keep' if _is_last(path) else ''}"


def _is_last(path: Path) -> bool:
    return path.name == RunDirectory("").weights("last").name


def read_config(path: Path) -> DictConfig:
    """A run's config.yaml.

    Raises:
        DamagedError: it is not a whole config.
    """
    require_no_pipe(path)
    try:
        config = OmegaConf.load(path)
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OSError as error:
        raise DamagedError(f"{path} cannot be read: {error.strerror}.") from error
    except Exception as error:  # yaml and omegaconf raise many types for a broken file
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DamagedError(f"{path} was cut short or changed: {said}.") from error
    if not isinstance(plain, dict) or not isinstance(plain.get("key"), str):
        raise DamagedError(f"{path} was cut short or changed: it has no key.")
    for name in ROOT.keys() & plain.keys():
        if ROOT[name].decides and ROOT[name].type is Any and not isinstance(plain[name], dict):
            raise DamagedError(f"{path} was cut short or changed: {name} is no group.")
    return config


def keys_of(config: DictConfig) -> set[str] | None:
    """The keys that a run of this config may have; None if that cannot be told.

    An export's config has no more than an answer needs, and a list of files may be gone.

    Raises:
        DamagedError: a value is of another kind than a run writes.
    """
    if not all(name in config or name in ADDED for name, key in ROOT.items() if key.decides):
        return None
    lists = [(group, name) for group, names in LISTS_WITHIN.items() for name in names]
    if any(config.get(group, {}).get(name) for group, name in lists):  # a group came later
        return None
    try:
        return {run_key(config), former_key(config)}
    except OF_ANOTHER_SHAPE as error:
        raise DamagedError(
            f"The config of run {config.key} holds other values than it wrote: {error}."
        ) from error


def _verify_config(directory: RunDirectory) -> None:
    """Of a run of earlier code: the config is the only file that can be told from others'."""
    config = read_config(directory.config)
    key = read_sealed_json(directory.result, {"key": str})["key"]
    own = keys_of(config)
    if config.key != key or (own is not None and key not in own):
        raise DamagedError(
            f"{directory.config} is not the config of run {key}, whose {directory.result.name} is "
            f"beside it, but of run {', '.join(sorted(own or {config.key}))}: one of the two was "
            "changed, or is another run's."
        )


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DamagedError(f"{path} cannot be read: {error.strerror}.") from error
