"""Where a command writes: its folders are checked before any of them is made."""

import os
from pathlib import Path

from omegaconf import DictConfig

from caltech.errors import InputError
from caltech.runs.directory import RunDirectory
from caltech.settings import require_allowed

VARIABLE = "CALTECH_SWEEP"  # reaches the jobs of a sweep by the environment


def sweep() -> Path | None:
    """Folder of the sweep that this process works for; None in a single run."""
    return Path(os.environ[VARIABLE]) if VARIABLE in os.environ else None


def require_place(cfg: DictConfig) -> tuple[str, str]:
    """A run's key and directory, each resolved once here, since that is slow.

    Args:
        cfg: composed, with Hydra's part.

    Raises:
        InputError: a command would write elsewhere than in its study.
    """
    require_allowed("study", cfg.study)
    if not cfg.output:
        raise InputError(
            "output= is empty: it is the folder of all studies. Leave it out, or type a folder."
        )
    key, directory = cfg.key, cfg.directory
    if Path(directory).name != key:  # it was typed
        RunDirectory(directory).require_no_others()
    right = {"run.dir": directory, "sweep.dir": f"{cfg.output}/{cfg.study}", "sweep.subdir": key}
    for name, folder in right.items():
        group, _, leaf = name.partition(".")
        if (found := cfg.hydra[group][leaf]) != folder:
            raise InputError(
                f"hydra.{name}={found}: a run is found again by its folder, OUTPUT/STUDY/KEY. Type "
                "output=FOLDER or study=NAME to say where runs go, or directory=FOLDER for one."
            )
    return key, directory
