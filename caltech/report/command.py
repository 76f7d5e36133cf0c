"""Make a study's tables and pictures from its runs: `python -m caltech.report study=course`."""

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig

from caltech import errors
from caltech.config import build, hydra_targets, register
from caltech.errors import InputError
from caltech.files import replacing
from caltech.report import pictures, render, sources
from caltech.report.arrange import arrange, experiments
from caltech.report.rows import FINISHED, Run
from caltech.settings import CONF, require_allowed
from caltech.words import require_flags

if TYPE_CHECKING:
    from caltech.data.dataset import Dataset


def report(cfg: DictConfig) -> str:
    """Write a study's report into its folder and return the tables as text.

    Raises:
        InputError: there is neither a run nor an experiment of this study.
    """
    require_allowed("study", cfg.study)
    folder = Path(cfg.output) / cfg.study
    runs = sources.combine(sources.tracked(cfg.tracking, cfg.study), sources.kept(folder / "kept"))
    tables = arrange(runs, experiments(cfg.order), cfg.study)
    if not tables:
        store = cfg.tracking.get("uri", "a tracking store (tracking=none)")
        studies = ", ".join(sorted(path.name for path in Path(cfg.output).glob("*/")))
        raise InputError(
            f"study={cfg.study} has no run in {store} or {folder / 'kept'}. "
            f"Studies in {cfg.output} are: {studies or 'none'}."
        )
    sheets = [render.Sheet(table, runs) for table in tables]
    drawn = {table.title: pictures.draw(table) for table in tables}
    text, page = render.text_and_page(cfg.study, sheets, runs, drawn)
    gallery = render.gallery(cfg.study, tables, reachable(cfg, runs))

    sources.keep(folder / "kept", runs)
    for old in folder.glob("pictures/[0-9]*-*.png"):
        old.unlink()
    written = {"table.md": text, "table.csv": render.spreadsheet(sheets), "report.html": page}
    written |= {} if gallery is None else {"gallery.html": gallery}
    contents = {name: content.encode() for name, content in written.items()}
    for number, group in enumerate(drawn.values(), 1):  # by table
        contents |= {f"pictures/{number}-{each.name}.png": each.png for each in group}
    for name, content in contents.items():
        with replacing(folder / name) as partial:
            partial.write_bytes(content)
    return text


def reachable(cfg: DictConfig, runs: Sequence[Run]) -> dict[str, "Dataset"]:
    """By digest, the data of finished runs that are on this machine; nothing is downloaded."""
    datasets = {}
    for name in {run.data["name"] for run in runs if run.status == FINISHED} & set(cfg.data):
        try:
            data = build(cfg.data[name])
        except InputError:
            continue
        datasets[data.digest] = data
    return datasets


@hydra.main(config_path=str(CONF), config_name="report", execution_whitelist=hydra_targets())
def compose_and_report(cfg: DictConfig) -> None:
    """What Hydra calls."""
    errors.composed()
    with errors.told_once(is_single=True):
        text = report(cfg)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # all is written: `| head` may have read enough
    print(text)
    folder = Path(cfg.output) / cfg.study
    for name in ("table.md", "table.csv", "report.html", "gallery.html", "pictures", "kept"):
        if (folder / name).exists():
            print(folder / name)


def main() -> None:
    """Entry point; errors that a user can act on are one message without a traceback."""
    with errors.shown_as_messages():
        register()
        require_flags(sys.argv[1:])
        compose_and_report()
