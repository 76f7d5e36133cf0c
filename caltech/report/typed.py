"""`python -m caltech.report study=course`: what was typed, looked at before anything is read."""

import re
import signal
import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig

from caltech import errors
from caltech.config import hydra_targets, register
from caltech.errors import InputError
from caltech.flags import listed, readable, require_flags, with_study
from caltech.report.sources.unknown import require_known
from caltech.runs.known import names
from caltech.settings import CONF, require_allowed
from caltech.waiting import said


@hydra.main(config_path=str(CONF), config_name="report", execution_whitelist=hydra_targets())
def compose_and_report(cfg: DictConfig) -> None:
    """What Hydra calls."""
    errors.composed()
    with errors.told_once(is_single=True):
        for study in names(cfg.study):
            require_allowed("study", study)
        require_known(cfg.tracking, Path(cfg.output), names(cfg.study))
        with said("reading runs and drawing their pictures"):
            from caltech.report.command import report  # takes seconds, with SciPy and Matplotlib
            from caltech.report.sources.asked import Asked

            text = report(cfg, is_brief=sys.stdout.isatty())
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # all is written: `| head` may have read enough
    print(text)
    folder = Asked.of(cfg).folder
    for name in ("table.md", "table.csv", "report.html", "gallery.html", "pictures", "kept"):
        if (folder / name).exists():
            print(folder / name)


def _as_list(word: str) -> str:
    """ensemble=KEY,KEY as Hydra takes a list of texts: some keys read as numbers."""
    name, equals, value = word.partition("=")
    if name.strip() != "ensemble" or not equals or value.strip() in ("", "null"):
        return word
    keys = [key.strip(" '\"") for key in value.strip(" []").split(",")]
    if len({*keys}) < 2 or not all(re.fullmatch("[0-9a-f]{10}", key) for key in keys):
        raise InputError(
            f"{word} is no ensemble: it is the keys of two finished runs or more. Type "
            "ensemble=KEY,KEY with keys as `caltech runs` lists them."
        )
    if len({*keys}) < len(keys):
        raise InputError(f"{word} has a key twice. Type ensemble={','.join(dict.fromkeys(keys))}.")
    return "ensemble=[" + ",".join(f'"{key}"' for key in keys) + "]"


def main() -> None:
    """Entry point; errors that a user can act on are one message without a traceback."""
    with errors.shown_as_messages():
        register()
        sys.argv[1:] = readable([*map(listed, with_study(sys.argv[1:]))])
        require_flags(sys.argv[1:], sweeps=False)
        sys.argv[1:] = map(_as_list, sys.argv[1:])
        compose_and_report()
