"""A job's config, composed once, and what is written down of the job before it starts."""

import pickle
import zlib
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from caltech.errors import InputError
from caltech.passwords import without_passwords
from caltech.settings import require_fixed, require_resolved
from caltech.sweeps import records
from caltech.sweeps.place import require_place


class ComposedOnce:
    """A config loader: a job that has been described is launched with the config it has by then.

    Hydra's launcher would compose it again, which is most of the time between two trials
    (tests/bench/workers.py). `most` are kept: the first, and the last instead of all others. They
    are packed, to 6 kB each of 260: unpacking takes a hundredth of the time that composing does,
    and the garbage collector has nothing to look through.
    """

    def __init__(self, loader: Any, config: DictConfig, most: int) -> None:
        self.loader, self.config, self.most = loader, config, most
        self.kept: dict[tuple[str, ...], bytes] = {}

    def describe(self, overrides: Sequence[str]) -> records.Record:
        """What is written down of a job before it starts."""
        composed = self.loader.load_sweep_config(self.config, [*overrides])
        if self.most:
            if len(self.kept) == self.most:
                self.kept.popitem()
            self.kept[tuple(overrides)] = zlib.compress(pickle.dumps(composed), 1)
        return described(composed)

    def load_sweep_config(self, master_config: DictConfig, overrides: list[str]) -> DictConfig:
        """As Hydra's; a config is given away once, and then composed again."""
        kept = self.kept.pop(tuple(overrides), None)
        if kept is not None and master_config is self.config:
            return pickle.loads(zlib.decompress(kept))
        return self.loader.load_sweep_config(master_config, overrides)


def described(cfg: DictConfig) -> records.Record:
    """What is written down of a job before it starts.

    Raises:
        InputError: its config is not complete or not allowed, or its place is not its own.
    """
    with suppress(TypeError):  # a value of another kind, which the job tells
        require_fixed(cfg, ())
    for name in cfg:
        group = cfg._get_node(name)  # to look a value up may raise, which is told below
        if name != "hydra" and OmegaConf.is_config(group) and MISSING in str(group):
            require_resolved(group)
    try:
        key, directory = require_place(cfg)
        overrides = " ".join(OmegaConf.to_container(cfg.hydra.overrides.task))
        return records.Record(key, directory, without_passwords(overrides))
    except OmegaConfBaseException as error:
        said = str(error).splitlines()[0]
        raise InputError(f"A job's config is not complete at {error.full_key}: {said}.") from error
