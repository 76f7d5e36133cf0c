"""The last lines of a command: where its run is, whether it learned anything, what to type next."""

import json
import logging
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from caltech.amounts import printable
from caltech.config import project_root
from caltech.errors import OF_ANOTHER_SHAPE, DamagedError
from caltech.flags import as_typed
from caltech.metrics import collapsed
from caltech.overrides import effective, quoted
from caltech.passwords import without_passwords
from caltech.runs import manifest
from caltech.runs.directory import WEIGHTS, RunDirectory
from caltech.runs.logits import arrays
from caltech.runs.result import FINISHED, Result
from caltech.words import shell

log = logging.getLogger(__name__)

WIDTH = 80
AROUND = 0.3, 1, 3  # times a run's learning rate


def warn_if_collapsed(directory: RunDirectory, classes: Sequence[str]) -> None:
    """Of a finished run that answers (almost) always the same: its accuracy is no model's."""
    for name in WEIGHTS:
        if not directory.predictions(name).is_file():
            continue
        try:
            answers = arrays(directory.predictions(name), ("labels", "predictions"))
            top = collapsed(answers["labels"], answers["predictions"])
        except (DamagedError, *OF_ANOTHER_SHAPE) as error:
            log.warning("The answers of the run are not looked at: %s", error)
            continue
        if top is not None:
            log.warning(
                "WARNING: the %s weights answer %s to (almost) every test image.\nThe run learned "
                "nothing else: type another lr, or more epochs.", name, printable(classes[top]),
            )  # fmt: skip


def warn_if_harmed(directory: RunDirectory) -> None:
    """Of a finished run whose files are gone or changed: its numbers stand without them."""
    try:
        gone, changed = manifest.harmed(directory)
    except (DamagedError, *OF_ANOTHER_SHAPE) as error:
        log.warning("What files the run had cannot be told: %s", error)
        return
    told = [f"it has no {', '.join(gone)}; it had when it ended."] if gone else []
    told += [f"{', '.join(changed)}: not as the run wrote it."] if changed else []
    if told:
        log.warning(
            "WARNING: %s\nIts numbers stand. rerun=true computes the run again and keeps the old "
            "files aside.", "\n".join(told),
        )  # fmt: skip


def warn_if_not_kept(directory: RunDirectory, cfg: DictConfig) -> None:
    """Of a finished run without what is asked for now."""
    if cfg.keep_checkpoint and not directory.checkpoint.is_file():
        log.warning("It has kept no checkpoint: rerun=true does with keep_checkpoint=true.")
    if cfg.last_weights == "keep" and not directory.weights("last").is_file():
        log.warning("It has no last epoch's weights: rerun=true keeps them with last_weights=keep.")


def tell(cfg: DictConfig, result: Result, overrides: Sequence[str]) -> None:
    """How many images it rests on, key, folder and the commands that come next.

    Args:
        cfg: of the run, or of the first of several seeds.
        overrides: as typed.
    """
    with suppress(OSError, ValueError, LookupError, TypeError, AttributeError):  # it only informs
        counts = json.loads(RunDirectory(cfg.directory).data.read_bytes())["images"]
        log.info("images: %s", ", ".join(f"{count} {part}" for part, count in counts.items()))
    log.info("run %s in %s", result.key, cfg.directory)
    if result.status == FINISHED:
        commands = next_commands(cfg, result.key, overrides)
        # Into the log, too, where a password of the store's address has no place.
        log.info("next:\n%s", "\n".join(_lines([map(without_passwords, c) for c in commands])))


def next_commands(cfg: DictConfig, key: str, overrides: Sequence[str]) -> list[list[str]]:
    """Ask the run, look at it beside others, and sweep around it; each as words."""
    command = ["caltech"] if shutil.which("caltech") else ["python", "-m", "caltech"]
    is_usual = Path(cfg.output).absolute() == Path(project_root()) / "multirun"
    place = [] if is_usual else [f"output={cfg.output}"]
    usual = Path(cfg.output) / cfg.study / key
    run = key if Path(cfg.directory) == usual else cfg.directory
    tracked = [word for word in overrides if word.startswith("tracking.")]
    is_tracked = "uri" in cfg.tracking
    study = quoted(cfg.study) if "," in cfg.study else cfg.study  # which are two to a report
    look = ["ui", *tracked] if is_tracked else ["report", f"study={study}", *place]
    own = "lr=", "rerun=", "directory=", "seeds="
    kept = [as_typed(word) for word in effective(overrides) if not word.startswith(own)]
    plugins = [word for word in kept if word.startswith("plugins=")]
    rates = ",".join(f"{factor * cfg.lr:.2g}" for factor in AROUND)
    return [
        [*command, "predict", "IMAGE", f"run={run}", *place, *plugins],
        [*command, *look],
        [*command, "sweep", *_config_dir(), f"lr={rates}", *kept],
    ]


def _config_dir() -> list[str]:
    """The folder of options of one's own that was typed, wherever one is then."""
    if not HydraConfig.initialized():
        return []
    sources = HydraConfig.get().runtime.config_sources
    typed = [source.path for source in sources if source.provider == "command-line"]
    words = [word for path in typed for word in ("--config-dir", path)]
    return words + [
        word for word in HydraConfig.get().overrides.hydra if word.startswith("hydra.searchpath=")
    ]


def _lines(commands: Iterable[Iterable[str]]) -> list[str]:
    """As they are typed into a shell, in 80 columns where words are shorter than that."""
    lines = []
    for words in commands:
        line = " "
        for word in map(shell, words):
            if len(line) + len(word) > WIDTH - 3 and line.strip():
                lines.append(f"{line} \\")
                line = "   "
            line += f" {word}"
        lines.append(line)
    return lines
