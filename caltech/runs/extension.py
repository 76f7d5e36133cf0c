"""A run of more epochs goes on where a finished one of fewer ended, if both are one until there.

The run of fewer epochs stays as it is. It needs a checkpoint, which keep_checkpoint=true keeps.
"""

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from caltech.errors import OF_ANOTHER_SHAPE, DamagedError, InputError
from caltech.files import remove, write_sealed_json
from caltech.keys import decisive, former_key, run_key
from caltech.runs import checkpoint, provenance
from caltech.runs.directory import RunDirectory
from caltech.runs.progress import Progress
from caltech.runs.result import FINISHED, Result

log = logging.getLogger(__name__)

_LENGTH = re.compile(r"^num_epochs: (\d+)$", re.MULTILINE)  # in a run's config, as it writes it


@dataclass(frozen=True)
class Shorter:
    """A finished run that differs in num_epochs alone, and in what that decides."""

    cfg: DictConfig
    key: str
    directory: RunDirectory
    epochs: int  # that it trained

    def __str__(self) -> str:
        return f"run {self.key} of num_epochs={self.cfg.num_epochs}"


# Where the rates of a run that goes on would differ: epoch, rate there and here; None: nowhere.
Difference = Callable[[DictConfig, int], tuple[int, float, float] | None]


def found(cfg: DictConfig, made_from: Mapping[str, Any], difference: Difference) -> Shorter | None:
    """The longest run that this one can go on from, if it is not begun; says so, or why not."""
    own = RunDirectory(cfg.directory)
    if cfg.rerun or any(path.is_file() for path in (own.result, *own.checkpoints)):
        return None
    reasons = []
    for each in _shorter(cfg):
        reason = _hindrance(each, cfg, provenance.origin(made_from), difference)
        if reason is None:
            log.info("goes on after epoch %d of %s, which stays as it is", each.epochs, each)
            return each
        reasons.append(f"computed from the start, and not from {each}: {reason}")
    if reasons:
        log.info(reasons[0])
    return None


def begin(
    cfg: DictConfig, directory: RunDirectory, made_from: dict[str, Any], difference: Difference
) -> None:
    """Give a run that is not begun what a shorter one has computed of it, if there is one.

    Called before its own provenance is recorded: that begins with the shorter run's.
    """
    if (shorter := found(cfg, made_from, difference)) is None:
        return
    try:
        before = provenance.read(shorter.directory)
        began = {"key": shorter.key, "epochs": shorter.epochs}
        write_sealed_json(directory.provenance, before | {"key": cfg.key, "began_as": began})
        kept = Progress.of(
            checkpoint.adopt(
                shorter.directory.checkpoint, shorter.key, directory.checkpoint, cfg.key
            )
        )
        if len(kept.history) != shorter.epochs or kept.inside is not None:
            raise DamagedError(f"Its checkpoint is of epoch {len(kept.history)}.")
        write_sealed_json(directory.history, kept.told)
    except (DamagedError, InputError) as error:
        for path in (directory.provenance, directory.checkpoint):
            remove(path)
        log.warning("It is computed from the start, and not from %s: %s", shorter, error)


def _shorter(cfg: DictConfig) -> Iterator[Shorter]:
    """Of the same study, the longest first."""
    folder, lengths = Path(cfg.directory).parent, set()
    for path in folder.glob("*/config.yaml"):
        if path.is_file() and path.with_name("result.json").is_file():
            lengths |= set(map(int, _LENGTH.findall(path.read_text("utf-8", "replace"))))
    for num_epochs in sorted((each for each in lengths if each < cfg.num_epochs), reverse=True):
        each = OmegaConf.merge(cfg, {"num_epochs": num_epochs})
        for key in dict.fromkeys((run_key(each), former_key(each))):
            directory = RunDirectory(folder / key)
            result = Result.read(directory, pruned_too=False)
            if result is not None and (result.key, result.status) == (key, FINISHED):
                yield Shorter(each, key, directory, int(result.last["epoch"]))


def _hindrance(
    shorter: Shorter, cfg: DictConfig, origin: Mapping[str, str], difference: Difference
) -> str | None:
    """Why this one cannot go on from it; None if nothing speaks against it."""
    one, other = decisive(shorter.cfg), decisive(cfg)
    differing = [name for name in other if one.get(name) != other[name]]
    if others := [name for name in differing if name not in ("num_epochs", "schedule")]:
        return f"{' and '.join(others)} depends on num_epochs, too"
    if differs := difference(shorter.cfg, shorter.epochs):
        epoch, there, here = differs
        return (
            f"its schedule depends on num_epochs (learning rate of epoch {epoch}: {there:.4g} if "
            f"it went on, {here:.4g} from the start)"
        )
    if not shorter.directory.checkpoint.is_file():
        return "it ended without keep_checkpoint=true, which keeps the checkpoint that this takes"
    try:
        before = provenance.origin(provenance.read(shorter.directory))
    except (DamagedError, *OF_ANOTHER_SHAPE) as error:
        return f"what it was made from cannot be told: {error}"
    differ = [what for what in origin if before[what] != origin[what]]
    return f"it was made from other {differ[0]}" if differ else None
