"""How far a sweep is, in one line: in its place on a terminal, else a line of the log."""

import logging
import shutil
import sys
from pathlib import Path

from caltech.sweeps import records, table

log = logging.getLogger(__name__)

LAUNCHING = "hydra._internal.core_plugins.basic_launcher"  # two wide lines a trial, of no news
OF_EACH_RUN = ("caltech.runs.ending",)  # warnings that are in the table, too


class OfSearch(logging.Filter):
    """What a search shows on a terminal: its own lines and what goes wrong. Logs have all."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.startswith("caltech.sweeps"):
            return True
        return record.levelno >= logging.WARNING and record.name not in OF_EACH_RUN


def is_terminal() -> bool:
    """Whether somebody looks at what is printed."""
    return sys.stdout.isatty()


def quieten() -> None:
    """Leave a terminal to the line; to be called when a job's logging has been set up."""
    if not is_terminal():
        return
    logging.getLogger(LAUNCHING).setLevel(logging.WARNING)
    for handler in logging.getLogger().handlers:
        if not isinstance(handler, logging.FileHandler):
            handler.addFilter(OfSearch())


def tell(folder: Path) -> None:
    """How far the sweep is by now."""
    if is_terminal() and records.plan(folder).unit != "job":
        draw(table.outlook(folder))
    else:
        log.info(table.outlook(folder))


def draw(told: str, is_last: bool = False) -> None:
    """Print a line that the next one takes the place of, no wider than the terminal."""
    width = shutil.get_terminal_size().columns - 1
    shown = told if len(told) <= width else told[: width - 1] + "\N{HORIZONTAL ELLIPSIS}"
    print(f"{shown:<{width}}", end="\n" if is_last else "\r", flush=True)


def draw_last(folder: Path) -> None:
    """Leave the line on the terminal, where there was one."""
    if is_terminal() and records.plan(folder).unit != "job":
        draw(table.outlook(folder), is_last=True)
