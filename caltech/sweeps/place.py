"""Where a command writes: its folders are checked before any of them is made."""

import os
from pathlib import Path

from omegaconf import DictConfig

from caltech.errors import InputError
from caltech.keys import begun_key
from caltech.runs.directory import RunDirectory
from caltech.settings import require_allowed

VARIABLE = "CALTECH_SWEEP"  # reaches the jobs of a sweep by the environment


def sweep() -> Path | None:
    """Folder of the sweep that this process works for; None in a single run."""
    return Path(os.environ[VARIABLE]) if VARIABLE in os.environ else None


def require_place(cfg: DictConfig) -> None:
    """Raise InputError if a command would write elsewhere than in its study.

    Args:
        cfg: composed, with Hydra's part.
    """
    require_allowed("study", cfg.study)
    if not cfg.output:
        raise InputError(
            "output= is empty: it is the folder of all studies. Leave it out, or type a folder."
        )
    if cfg.key != begun_key(cfg):
        raise InputError(
            f"key={cfg.key}: a run's key is computed from its config and cannot be chosen. Leave "
            "it out; study=NAME computes the run in another place."
        )
    if Path(cfg.directory).name != cfg.key:  # it was typed
        RunDirectory(cfg.directory).require_no_others()
    right = {"run.dir": cfg.directory, "sweep.dir": f"{cfg.output}/{cfg.study}"}
    for name, folder in {**right, "sweep.subdir": cfg.key}.items():
        group, _, leaf = name.partition(".")
        if (found := cfg.hydra[group][leaf]) != folder:
            raise InputError(
                f"hydra.{name}={found}: a run is found again by its folder, OUTPUT/STUDY/KEY. Type "
                "output=FOLDER or study=NAME to say where runs go, or directory=FOLDER for one."
            )
