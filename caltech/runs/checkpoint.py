"""What is written to disk during and after training: always complete, or the previous version."""

import logging
import pickle
import time
import zlib
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Any, Protocol
from zipfile import ZipFile

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialized
from torch import Tensor, nn

from caltech.errors import DamagedError, InputError
from caltech.files import CHECKSUM, replacing, require_no_pipe, sync
from caltech.links import write_shared
from caltech.models.classifier import load_into, state_of
from caltech.runs.directory import FROZEN, previous_of

log = logging.getLogger(__name__)

SYNC_SECONDS = 5.0  # what a failing power supply may cost a run at most, beside an epoch
GO_ON = "Move it away: the run then goes on from a checkpoint of its own, or begins anew."
SMALL_BYTES = 1 << 26  # of a checkpoint of which three may be on the disk at a time


class Stateful(Protocol):
    """A module, an optimizer, a schedule or a gradient scaler."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...


def save(path: Path, key: str, parts: Mapping[str, Stateful], progress: Mapping[str, Any]) -> None:
    """Write a run's key, the parts' states and the plain values in `progress`, atomically.

    The checkpoint before stays as `previous_of(path)`, for the case that this one is damaged later.
    The one before that is deleted first, so there are never more than two on the disk.

    To wait for the disk takes longer than a short epoch. So while the previous one is seconds old
    and both are small, it stays, and the new one, which a kill does not harm, is not waited for:
    should the power fail, the run goes on from the previous one.

    Raises:
        DiskError: there is no room for it; the checkpoint before is still there.
    """
    states = {name: part.state_dict() for name, part in parts.items()}
    _write(path, {"key": key, "states": states, "progress": progress})


def adopt(other: Path, its_key: str, path: Path, key: str) -> dict[str, Any]:
    """Write the checkpoint of another run as one of this run; its progress, as load gives it.

    Raises:
        DamagedError, InputError: it is not what was written there; it is of a third run.
        DiskError: as save.
    """
    saved = _read(other)
    _require_key(other, saved, its_key)
    _write(path, saved | {"key": key})
    return saved["progress"]


def _write(path: Path, saved: Mapping[str, Any]) -> None:
    size = sum(tensor.nbytes for tensor in _tensors(saved))
    keeps = size <= SMALL_BYTES and _is_young(previous_of(path))
    rotates = path.is_file() and not keeps
    waits = rotates or not path.is_file()
    with replacing(path, size, syncs=waits) as partial:
        if rotates:
            previous_of(path).unlink(missing_ok=True)
        with partial.open("wb") as file:  # Python's file, which says why it cannot be written
            torch.save(saved, file)
        if rotates:
            sync(path)
            path.replace(previous_of(path))


def _is_young(path: Path) -> bool:
    return path.is_file() and abs(time.time() - path.stat().st_mtime) < SYNC_SECONDS


def load(path: Path, key: str, parts: Mapping[str, Stateful]) -> dict[str, Any] | None:
    """Put the saved states into `parts` and return the progress; executes nothing from the file.

    Of the last checkpoint and the one before, this takes the first that is as it was written, and
    tells about the other. None if there is none: training then begins at its beginning.

    Raises:
        InputError: it is of another run, or does not fit the parts; nothing is touched.
    """
    for candidate in (path, previous_of(path)):
        if not candidate.is_file():
            continue
        try:
            saved = _read(candidate)
        except DamagedError as error:
            log.warning("%s It is not used.", error)
            continue
        _require_key(candidate, saved, key)
        _put(candidate, saved["states"], parts)
        candidate.replace(path)  # so that the next one to be saved cannot replace the good one
        return saved["progress"]
    return None


def require_own(path: Path, key: str, origin: Mapping[str, str]) -> None:
    """Raise InputError if what `load` would go on from is another run's; weights are not read.

    `origin`: provenance.origin of the run, as one of its key may be of other data. DamagedError: a
    pipe is in its place.
    """
    foreign: list[str] = []
    for candidate in (path, previous_of(path)):
        require_no_pipe(candidate)
        saved = reason = None
        with suppress(Exception):  # damaged, which load tells
            saved = torch.load(candidate, map_location="cpu", weights_only=True, mmap=True)
            reason = _why_not_own(saved, key, origin)
        if reason is not None:
            foreign.append(f"{candidate} is {reason}.")
        elif isinstance(saved, dict):
            break
    if foreign:
        raise InputError(" ".join([*foreign, GO_ON.replace("it", "both", len(foreign) - 1)]))


def _why_not_own(saved: Mapping[str, Any], key: str, origin: Mapping[str, str]) -> str | None:
    if saved.get("key", key) != key:  # earlier code did not note it
        return f"of run {saved['key']}, and this is run {key}"
    before = saved["progress"].get("origin") or {}
    differs = (what for what, digest in origin.items() if before.get(what, digest) != digest)
    return next((f"of run {key}, but from other {what}" for what in differs), None)


def _require_key(path: Path, saved: Mapping[str, Any], key: str) -> None:
    if reason := _why_not_own(saved, key, {}):
        raise InputError(f"{path} is {reason}. {GO_ON}")


def _put(path: Path, states: Mapping[str, Any], parts: Mapping[str, Stateful]) -> None:
    for name, part in parts.items():
        try:
            part.load_state_dict(states.get(name, {}))  # an earlier version had no average
        except Exception as error:  # each part of its own type
            said = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(
                f"{path} does not fit this run's {name}: {said} It is another run's, or a library "
                "has changed since. Move it away to begin anew."
            ) from error


def save_weights(path: Path, model: nn.Module, frozen: Collection[str] = ()) -> None:
    """Write a model's parameters and buffers as safetensors, atomically.

    What is frozen is of many runs the same, and in every file of one run. It is in a file of its
    own beside `path`, frozen.safetensors, and `path` notes its checksum. Runs beside this one that
    have the same share one place on the disk, under a name in each run's directory, so that a
    directory that is moved or copied is whole.

    Args:
        frozen: names in the model's state.

    Raises:
        DiskError: there is no room for them.
    """
    tensors = state_of(model)
    apart = {name: tensors.pop(name) for name in sorted(frozen)}
    noted = _sum_of(tensors)
    if apart:
        noted += f" {(frozen_sum := _sum_of(apart))}"
        own = path.parent.glob(f"*/{FROZEN}")  # of a result that was set aside
        beside = chain(path.parent.parent.glob(f"*/{FROZEN}"), own)
        write_shared(path.with_name(FROZEN), _content(apart, frozen_sum), beside)
    # Of one epoch, `last` and `best` are one file.
    write_shared(path, _content(tensors, noted), sorted(path.parent.glob("*.safetensors")))


def _content(tensors: Mapping[str, Tensor], noted: str) -> bytes:
    """Of a file. One note: of several, the order is chosen at random."""
    # Not safetensors' save_file: killed, it leaves a temporary file of its own behind.
    return serialized(dict(tensors), metadata={CHECKSUM: noted})


def load_weights(path: Path, model: nn.Module) -> None:
    """Load what save_weights wrote into a model of the same architecture.

    Raises:
        DamagedError, ValueError: it is not what was written; it is another network's.
    """
    load_into(model, read_weights(path))


def read_weights(path: Path) -> dict[str, Tensor]:
    """A whole state, as save_weights or an earlier version wrote it.

    Raises:
        DamagedError: the file, or what is frozen beside it, is not what was written.
    """
    tensors, apart = _read_weights(path)
    if not apart:
        return tensors
    frozen = path.with_name(FROZEN)
    if not frozen.is_file():
        raise DamagedError(
            f"{frozen} is not there: {path.name} holds what was trained, and the frozen part of "
            "the network is in that file. Copy it from where the run was, or from a run with the "
            f"same frozen part; its checksum is {apart}."
        )
    rest, _ = _read_weights(frozen)
    if _sum_of(rest) != apart:
        raise DamagedError(
            f"{frozen} is not the frozen part of {path}: its checksum is {_sum_of(rest)}, not "
            f"{apart}. Copy it from where the run was."
        )
    return {**rest, **tensors}


def _read_weights(path: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors of one file, and the checksum of what belongs to them and is frozen, if any."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            found = (file.metadata() or {}).get(CHECKSUM)
    except SafetensorError as error:
        raise DamagedError(f"{path} was cut short or changed: {error}.") from error
    if found is None:
        log.warning("%s has no checksum; an earlier version wrote it so.", path)
        return tensors, ""
    own, _, apart = found.partition(" ")
    if own != _sum_of(tensors):
        raise DamagedError(f"{path} does not match its checksum.")
    return tensors, apart


def copy_of(module: nn.Module) -> dict[str, Tensor]:
    """The module's present state in memory that training does not change."""
    return {name: tensor.detach().cpu().clone() for name, tensor in module.state_dict().items()}


def _read(path: Path) -> dict[str, Any]:
    """What save wrote: a zip file, in which torch.save keeps a CRC-32 of every record."""
    try:
        with ZipFile(path) as file:
            damaged = file.testzip()
    except Exception as error:  # zipfile and zlib raise many types for a broken file
        raise DamagedError(f"{path} cannot be read: {error}.") from error
    if damaged is not None:
        raise DamagedError(f"{path} does not match its checksum ({damaged}).")
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except RuntimeError as error:
        if "PytorchStreamReader" in str(error):  # the zip file's directory, which has no checksum
            raise DamagedError(f"{path} cannot be read: {str(error).split('.')[0]}.") from error
        raise  # for want of memory, for example: no reason to begin anew
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path} is whole, but cannot be loaded: {str(error).splitlines()[0]} Another version "
            "of torch wrote it, or it holds more than numbers. Move it away to begin anew."
        ) from error
    if not isinstance(saved, dict) or not {"states", "progress"} <= saved.keys():
        raise DamagedError(f"{path} is no checkpoint.")
    return saved


def _sum_of(tensors: Mapping[str, Tensor]) -> str:
    """Checksum over names, types, shapes and bytes, in the order of the names."""
    total = 0
    for name, tensor in sorted(tensors.items()):
        total = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), total)
        total = zlib.crc32(tensor.flatten().view(torch.uint8).numpy(), total)
    return f"{total:08x}"


def _tensors(value: Any) -> Iterable[Tensor]:
    """All tensors in nested dicts, lists and tuples."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _tensors(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _tensors(inner)
