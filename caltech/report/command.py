"""A study's tables and pictures, from its runs to files, and where each row is from."""

import logging
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig, OmegaConf

from caltech import plugins
from caltech.amounts import printable
from caltech.config import build
from caltech.errors import CaltechError, InputError
from caltech.files import replacing
from caltech.report import conclusions, pictures, render
from caltech.report.arrange import arrange, experiments
from caltech.report.rows import Table
from caltech.report.sources import ensembles
from caltech.report.sources.asked import Asked
from caltech.report.sources.directories import read_config
from caltech.report.sources.images import keep_names, names_of
from caltech.report.sources.kept import keep
from caltech.report.sources.study import Found, gather
from caltech.report.sources.unknown import nothing_of
from caltech.report.trained import Run
from caltech.runs.directory import RunDirectory
from caltech.runs.known import typed

if TYPE_CHECKING:
    from caltech.data.dataset import Dataset

log = logging.getLogger(__name__)


def report(cfg: DictConfig, is_brief: bool = False) -> str:
    """Write a study's report into its folder, and return its text, or what is most important of it.

    Raises:
        InputError: there is neither a run nor an experiment of this study, the store does not
            answer and there is nothing else, or the report cannot be written.
    """
    asked, published = Asked.of(cfg), experiments(cfg.order)
    found = {}
    for study in asked.studies:
        folder = asked.output / study
        found[study] = gather(cfg.tracking, folder, study, published)
        is_published = any(each.study == study for each in published)
        if not found[study].runs and (asked.is_joined or not is_published):
            wrong = " ".join(map(str, found[study].unused[:3]))
            raise nothing_of(study, asked.output, cfg.tracking, wrong)
    if cfg.ensemble:
        found[asked.name] = _with_ensemble(cfg, asked, found)
    everything = asked.together(found)
    tables = arrange(everything.runs, published, *asked.studies)
    contents, text = drawn_up(cfg, asked, tables, everything)
    try:
        for study, of_study in found.items():
            keep(asked.output / study / "kept", of_study.runs, of_study.kept)
            own = {run.data["sha256"] for run in of_study.runs if run.data}
            names = {digest: of for digest, of in everything.names.items() if digest in own}
            keep_names(asked.output / study, names)
        write(asked.folder, contents)
    except OSError as error:
        raise InputError(
            f"The report of {asked.folder} cannot be written: {error.strerror} ({error.filename}). "
            "Type output= with a folder that is yours, to which the study was copied."
        ) from error
    shown = f"{conclusions.brief(asked.name, tables)}\n" if is_brief else text
    return f"{shown}\n{whence(tables)}".rstrip("\n")


def _with_ensemble(cfg: DictConfig, asked: Asked, found: Mapping[str, Found]) -> Found:
    """Of the one study that is asked for, with one more ensemble."""
    if asked.is_joined:
        raise InputError(
            f"ensemble= joins runs of one study, and this report is of {asked.name}. "
            f"Type {typed(asked.studies[0])}."
        )
    ensembles.add(asked.folder, found[asked.name].runs, cfg.ensemble)
    kept, _ = ensembles.kept(asked.folder / "kept" / "ensembles")
    return replace(found[asked.name], ensembles=kept)


def drawn_up(
    cfg: DictConfig, asked: Asked, tables: Sequence[Table], found: Found
) -> tuple[dict[str, bytes], str]:
    """The report's files by name, pictures too, and its text."""
    drawn = {table.title: pictures.draw(table) for table in tables}
    try:
        folders = [asked.output / study for study in asked.studies]
        data = reachable(cfg, folders, tables)
        gallery = render.gallery(asked.name, tables, data)
    except (CaltechError, OSError) as error:  # of the images and their cache, which are extra
        log.warning("There is no gallery: %s", error)
        data, gallery = {}, None
    for digest, each in data.items():
        found.names.setdefault(digest, names_of(each))
    sheets = [render.Sheet(table, found.runs, found.names) for table in tables]
    told = found.unused, found.ensembles
    text, page = render.text_and_page(asked.name, sheets, found.runs, drawn, *told)
    written = {
        "table.md": text,
        "table.csv": render.spreadsheet(sheets, found.ensembles),
        "report.html": page,
    }
    written |= {} if gallery is None else {"gallery.html": gallery}
    contents = {name: content.encode() for name, content in written.items()}
    for number, group in enumerate(drawn.values(), 1):  # by table
        contents |= {f"pictures/{number}-{each.name}.png": each.png for each in group}
    return contents, text


def write(folder: Path, contents: Mapping[str, bytes]) -> None:
    """The report's files, and no pictures of an earlier one."""
    for old in folder.glob("pictures/[0-9]*-*.png"):
        old.unlink(missing_ok=True)  # a second report at the same time removes them, too
    for name, content in contents.items():
        with replacing(folder / name) as partial:
            partial.write_bytes(content)


def whence(tables: Sequence[Table]) -> str:
    """Where each row is from, which is no part of the report: made elsewhere, it is the same."""
    places = defaultdict(list)
    for row in (row for table in tables for row in table.rows):
        seeds = defaultdict(list)
        for run in row.runs:
            seeds[run.source].append(str(run.seed))
        for source, of in seeds.items():
            places[source].append(row.name + f" (seed {', '.join(of)})" * (len(seeds) > 1))
    if len(places) == 1:
        return f"All runs are from {printable(*places)}."
    return "\n".join(f"From {printable(s)}: {'; '.join(rows)}." for s, rows in places.items())


def reachable(
    cfg: DictConfig, folders: Sequence[Path], tables: Sequence[Table]
) -> dict[str, "Dataset"]:
    """By digest, the data of the tables' best rows that are on this machine.

    As the runs' own directories say, or else conf/report.yaml. Nothing is downloaded, and no image
    is decoded that is not shown.
    """
    plugins.load(())  # those of the environment
    datasets: dict[str, Dataset] = {}
    for run in (table.best.first for table in tables if table.finished):
        for option in _data_options(cfg, folders, run):
            if run.data["sha256"] not in datasets:
                sparing = {"download": False, "cache_pixels": False}
                given = {name: value for name, value in sparing.items() if name in option}
                with suppress(CaltechError, OSError):
                    data = build(option, **given)
                    datasets[data.digest] = data
    return datasets


def _data_options(cfg: DictConfig, folders: Sequence[Path], run: Run) -> Iterator[DictConfig]:
    """Where a run's data may be."""
    configs = (RunDirectory(folder / run.key).config for folder in folders)
    for path in (path for path in configs if path.is_file()):
        option = OmegaConf.create(read_config(path).get("data") or {})
        if run.data["name"] in (option.get("_target_", "").rpartition(".")[2], option.get("name")):
            yield option
    if run.data["name"] in cfg.data:
        yield cfg.data[run.data["name"]]
