"""Tell a store of the runs that it lacks: `python -m caltech.tracking study=course`."""

import logging
import sys
from collections import Counter
from pathlib import Path

import hydra
from omegaconf import DictConfig

from caltech import errors
from caltech.config import build, hydra_targets, register
from caltech.errors import CaltechError, HeldError, InputError
from caltech.flags import listed, readable, require_flags, with_study
from caltech.runs import identity
from caltech.runs.directory import RunDirectory
from caltech.runs.known import RUNS, names, require_study
from caltech.settings import CONF, require_allowed
from caltech.tracking.tracker import NOBODY

log = logging.getLogger(__name__)

TOLD, KNOWN, RUNNING, FAILED = "told now", "known already", "left to their processes", "not told"


def tell(cfg: DictConfig) -> Counter[str]:
    """Copy every run of a study, or of several, to the store; how many came to what.

    Raises:
        InputError: there is no such study, or the store cannot be used.
    """
    output = Path(cfg.output)
    for study in names(cfg.study):
        require_allowed("study", study)
        require_study(study, output)
    if not names(cfg.study):
        raise InputError("study=[] names no study. Type study=course.")
    tracker = build(cfg.tracking)
    if "uri" not in cfg.tracking:
        raise InputError(NOBODY)
    found = [
        path.parent for study in names(cfg.study) for path in sorted((output / study).glob(RUNS))
    ]
    tracker.open(None, is_needed=True)
    return Counter(tell_one(tracker, RunDirectory(path)) for path in found)


def tell_one(tracker, directory: RunDirectory) -> str:
    """One run; a copy, or one of earlier code, first gets the id by which stores know it."""
    try:
        if identity.is_stale(directory.path, directory.result.is_file()):
            with directory.claimed(waits=False):
                pass
        return {True: TOLD, False: KNOWN, None: RUNNING}[tracker.send(directory)]
    except HeldError:
        return RUNNING
    except CaltechError as error:
        log.error("%s is not told: %s", directory, error)
        return FAILED


@hydra.main(config_path=str(CONF), config_name="tell", execution_whitelist=hydra_targets())
def compose_and_tell(cfg: DictConfig) -> None:
    """What Hydra calls."""
    errors.composed()
    with errors.told_once(is_single=True):
        counted = tell(cfg)
    told = ", ".join(f"{number} {what}" for what, number in counted.items())
    print(f"{', '.join(names(cfg.study))}: {told}")
    if counted[FAILED]:
        sys.exit(1)


def main() -> None:
    """Entry point; the exit code is 0 only if the store has every run that is not computed now."""
    with errors.shown_as_messages():
        register()
        sys.argv[1:] = readable([*map(listed, with_study(sys.argv[1:]))])
        require_flags(sys.argv[1:], sweeps=False)
        compose_and_tell()
