"""Make a study's tables and pictures from its runs: `python -m caltech.report study=course`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import hydra
from omegaconf import DictConfig

from caltech import errors
from caltech.config import build, hydra_targets, register
from caltech.errors import InputError
from caltech.files import replacing
from caltech.report import arrange as arrangement
from caltech.report import kept, markdown, page, pictures, published, spreadsheet, tracked
from caltech.report.rows import FINISHED, Published, Run, Table
from caltech.report.statistics import COLLAPSED_SHARE
from caltech.report.tables import baselines, newest_end, sheet
from caltech.settings import CONF, require_allowed

if TYPE_CHECKING:
    from caltech.data.dataset import Dataset


READING = (
    "The three numbers of a row are of the last epoch's weights; those of the best epoch by "
    "validation accuracy are in the second table. ± is the standard deviation over seeds.",
    "The 95 % interval is Wilson's for the number of test images and, with several seeds, "
    "Student's over the seeds joined to it.",
    "McNemar's exact two-sided test compares rows on the same test images, by the last epoch's "
    "answers of the first seed.",
    f"A run is called collapsed if {COLLAPSED_SHARE:.0%} of its answers or more are one class. "
    "Macro accuracy is the mean of the classes' own accuracies; TESTING ACC counts images.",
    "The calibration error is the expected one, over 15 bins of equal width. It and the pictures "
    "are of the first seed.",
    "Training time is the mean over seeds of all epochs with their validation, without decoding "
    "images and without computing a frozen part's outputs.",
    "Rows that are not run, not finished or pruned count nowhere.",
)
READING_BESIDE_PUBLISHED = (
    "The study does not say of which epoch its numbers are; they are compared with our last one's.",
    "agrees: the published number is inside our 95 % interval; better and worse: it is outside "
    "(of a loss, less is better). "
    "The published accuracy is itself one run on as many images, and its own chance is not in our "
    "interval: a verdict near the edge says little. The interval of a training loss is where one "
    "further run is expected by those of our seeds; that of a single run has none, and no verdict.",
    "The test images are the study's own. Its validation images were drawn in an unknown way; "
    "ours are as many, but not the same.",
    "A row with another model's name, or with values of its own, is not compared with the "
    "published numbers; one in another precision is.",
)
READING_OF_RUNS = ("Runs are in the order of their best epoch's validation accuracy.",)
GALLERY = "gallery.html"


def report(cfg: DictConfig) -> str:
    """Write a study's report into its folder and return the tables as text.

    Raises:
        InputError: there is neither a run nor an experiment of this study.
    """
    require_allowed("study", cfg.study)
    folder = Path(cfg.output) / cfg.study
    runs = combine(tracked.read(cfg.tracking, cfg.study), kept.read(folder / "kept"))
    datasets = reachable(cfg, runs)
    runs = [described(run, datasets) for run in runs]
    tables = arrange(runs, published.experiments(cfg.order), cfg.study)
    if not tables:
        raise InputError(
            f"study={cfg.study} has no run in {tracked.place(cfg.tracking)} or {folder / 'kept'}. "
            f"Studies in {cfg.output} are: {', '.join(studies(Path(cfg.output))) or 'none'}."
        )
    sheets = [sheet(table, runs) for table in tables]
    drawn = {table.title: pictures.draw(table) for table in tables}
    gallery = page.gallery(cfg.study, tables, datasets)

    kept.write(folder / "kept", runs)
    reading = explain(tables)
    text = markdown.write(cfg.study, sheets, baselines(runs), reading)
    subtitle = summary(runs, gallery is not None)
    html = page.write(cfg.study, subtitle, sheets, drawn, reading)
    save(folder / "table.md", text)
    save(folder / "table.csv", spreadsheet.write(sheets))
    save(folder / "report.html", html)
    if gallery is not None:
        save(folder / GALLERY, gallery)
    save_pictures(folder / "pictures", drawn)
    return text


def combine(stored: Sequence[Run], retained: Sequence[Run]) -> list[Run]:
    """One run a key: the store's newest finished one, else a finished one that was kept, else the
    store's newest, else a pruned one that was kept.

    Where the store no longer has a run's files, what was kept of the very run is more.
    """
    whole = {(run.key, run.started): run for run in retained}
    newest = [
        whole.get((run.key, run.started), run)
        if run.status == FINISHED and run.predictions is None
        else run
        for run in arrangement.newest(stored)
    ]
    finished = {run.key for run in newest if run.status == FINISHED}
    known = {run.key for run in newest}
    more = [r for r in retained if r.key not in (finished if r.status == FINISHED else known)]
    return arrangement.newest([*newest, *more])


def arrange(runs: Sequence[Run], experiments: Sequence[Published], study: str) -> list[Table]:
    """The study's tables, and one for all runs that belong to none."""
    tables, rest = arrangement.study_tables(experiments, arrangement.by_point(runs), study)
    if rest:
        title = "Further runs" if tables else "Runs"
        tables.append(arrangement.own_table(rest, title))
    return tables


def explain(tables: Sequence[Table]) -> list[str]:
    """What a reader must know of these tables."""
    beside = READING_BESIDE_PUBLISHED if any(table.is_published for table in tables) else ()
    of_runs = READING_OF_RUNS if any(table.columns for table in tables) else ()
    return [*beside, *of_runs, *READING]


def studies(output: Path) -> list[str]:
    """Names of the folders that runs or reports were written to."""
    return (
        sorted(path.name for path in output.iterdir() if path.is_dir()) if output.is_dir() else []
    )


def reachable(cfg: DictConfig, runs: Sequence[Run]) -> dict[str, "Dataset"]:
    """Data sets of finished runs that are on this machine; nothing is downloaded for pictures."""
    datasets = {}
    for name in {run.data["name"] for run in runs if run.status == FINISHED} & set(cfg.data):
        try:
            datasets[name] = build(cfg.data[name])
        except InputError:
            continue
    return datasets


def described(run: Run, datasets: Mapping[str, "Dataset"]) -> Run:
    """With what runs of older code did not tell of their data, if it is here and the same."""
    data = datasets.get(run.data["name"])
    if "images" in run.data or data is None or data.digest != run.data["sha256"]:
        return run
    return replace(run, data=data.describe())


def summary(runs: Sequence[Run], has_gallery: bool) -> str:
    """A sentence or three under the title."""
    finished = [run for run in runs if run.status == FINISHED]
    if not finished:
        return "No run is finished yet."
    newest = newest_end(runs)
    sentences = [f"{len(finished)} finished runs, the newest of {newest}.", *baselines(runs)]
    if has_gallery:
        sentences.append(
            f"Images of the surest errors are in {GALLERY} beside this page, which is written "
            "where the data set is and is not kept in git."
        )
    return " ".join(sentences)


def save_pictures(folder: Path, drawn: Mapping[str, Sequence[pictures.Picture]]) -> None:
    """As files of their own, numbered by table; those of an earlier report go."""
    for old in folder.glob("[0-9]*-*.png"):
        old.unlink()
    for number, group in enumerate(drawn.values(), 1):
        for picture in group:
            with replacing(folder / f"{number}-{picture.name}.png") as partial:
                partial.write_bytes(picture.png)


def save(path: Path, text: str) -> None:
    """Write atomically."""
    with replacing(path) as partial:
        partial.write_text(text, "utf-8")


@hydra.main(config_path=str(CONF), config_name="report", execution_whitelist=hydra_targets())
def compose_and_report(cfg: DictConfig) -> None:
    """What Hydra calls."""
    errors.composed()
    print(report(cfg))
    folder = Path(cfg.output) / cfg.study
    for name in ("table.md", "table.csv", "report.html", GALLERY, "pictures", "kept"):
        if (folder / name).exists():
            print(folder / name)


def main() -> None:
    """Entry point; errors that a user can act on are one message without a traceback."""
    with errors.shown_as_messages():
        register()
        compose_and_report()
