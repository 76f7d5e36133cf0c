"""The report of a made-up store: its golden table, its verdicts, and what it must never do."""

import csv
import io
import itertools
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from omegaconf import OmegaConf

from caltech import train as training
from caltech.config import register
from caltech.errors import InputError
from caltech.metrics import EPOCH_METRICS
from caltech.report import (
    arrange,
    canvas,
    kept,
    landscape,
    markdown,
    page,
    pictures,
    published,
    rows,
    spreadsheet,
    statistics,
    tables,
    tracked,
)
from caltech.report.cells import show_parameter
from caltech.report.command import combine, report
from caltech.report.rows import Predictions
from caltech.settings import CONF
from caltech.tracking.description import describe

CLASSES = ["ant", "bass|<b>", "=cup", "$dog$"]
IMAGES = 400
DATA = {
    "name": "made_up",
    "sha256": "d" * 64,
    "images": {"train": 600, "validation": 200, "test": IMAGES},
    "majority_accuracy": 0.25,
    "classes": CLASSES,
}
CODE = {"git": "abc1234", "sha256": "c" * 16}
ENVIRONMENT = {"device": "Abacus", "threads": 2, "torch": "9.9", "python": "3.99"}
LABELS = np.arange(IMAGES) % len(CLASSES)


def answers(accuracy: float, shift: int = 0) -> np.ndarray:
    """Right on the first images, and one class too high on the others."""
    wrong = np.roll(np.arange(IMAGES) >= round(accuracy * IMAGES), shift)
    return (LABELS + wrong) % len(CLASSES)


class Store:
    """Writes runs as caltech.train would have, without training."""

    def __init__(self, folder: Path) -> None:
        register()
        self.folder, self.uri = folder, f"sqlite:///{folder}/mlflow.db"
        self.client = MlflowClient(self.uri)
        place = (folder / "artifacts").as_uri()
        self.experiment = self.client.create_experiment("caltech", artifact_location=place)

    def add(self, *overrides, status="FINISHED", accuracy=0.5, tags=None, given=None, **changes):
        """One run; `given` are its answers on the test images."""
        with initialize_config_dir(config_dir=str(CONF)):
            cfg = compose("train", ["model.weights=null", *overrides], return_hydra_config=True)
        choices = cfg.hydra.runtime.choices
        OmegaConf.set_struct(cfg, False)
        cfg.pop("hydra")
        data, code = DATA | changes.get("data", {}), CODE | changes.get("code", {})
        provenance = {
            "data": {"name": data["name"], "sha256": data["sha256"]},
            "weights": {"name": "none", "sha256": "w"},
            "code": code,
            "environment": ENVIRONMENT,
            "continued_by": changes.get("continued_by", []),
        }
        told = describe(cfg, choices, overrides, None, provenance)
        run = self.client.create_run(self.experiment, run_name=told.name).info
        epochs = cfg.num_epochs if status == "FINISHED" else 3
        metrics = [
            Metric(name, value + 0.001 * (epoch - epochs) * (name == "val/accuracy"), 0, epoch)
            for epoch in range(1, epochs + 1)
            for name, value in zip(
                EPOCH_METRICS, (1.5, 1.25, 0.6, 1.4, accuracy, cfg.lr), strict=True
            )
        ]
        given = answers(accuracy) if given is None else given
        if status == "FINISHED":
            final = {"val/best_accuracy": accuracy, "val/best_epoch": epochs}
            final |= {"test/accuracy": (given == LABELS).mean(), "test/best_accuracy": accuracy}
            final |= {"test/accuracy_per_class": accuracy}
            metrics += [Metric(name, float(value), 0, epochs) for name, value in final.items()]
            self._files(run, cfg, data, provenance, given)
        self.client.log_batch(
            run.run_id, metrics=metrics,
            params=[Param(name, str(value)) for name, value in told.params.items()],
            tags=[RunTag(name, value) for name, value in (told.tags | (tags or {})).items()],
        )  # fmt: skip
        if status != "RUNNING":
            self.client.set_terminated(run.run_id, status)
        return cfg

    def _files(self, run, cfg, data, provenance, given) -> None:
        folder = Path(run.artifact_uri.removeprefix("file://"))
        folder.mkdir(parents=True)
        (folder / "config.yaml").write_text(OmegaConf.to_yaml(cfg, resolve=True))
        for name, value in (
            ("data", data),
            ("provenance", provenance),
            ("timing", {"seconds": 75}),
        ):
            (folder / f"{name}.json").write_text(json.dumps(value))
        confidences = np.linspace(0.5, 1, IMAGES, dtype=np.float32)
        for name in ("last", "best"):
            np.savez(
                folder / f"predictions_{name}.npz", indices=np.arange(IMAGES), labels=LABELS,
                predictions=given, confidences=confidences,
            )  # fmt: skip


@pytest.fixture(scope="session")
def store(tmp_path_factory) -> Store:
    """A fresh store costs five seconds; each test has a study of its own in this one."""
    return Store(tmp_path_factory.mktemp("made_up"))


@pytest.fixture(scope="session")
def experiments():
    """Composing all of them takes a second."""
    register()
    return published.experiments(OmegaConf.load(CONF / "report.yaml").order)


@pytest.fixture
def make(store, tmp_path, monkeypatch, experiments):
    """Write a study's report into tmp_path; returns the folder and the text."""
    monkeypatch.setattr(published, "experiments", lambda order: experiments)
    monkeypatch.setattr(rows, "TEST_IMAGES", IMAGES)  # else nothing here would be compared

    def made(
        study: str, *overrides: str, tracking: str = "mlflow", draws: bool = False
    ) -> tuple[Path, str]:
        if not draws:  # takes seconds
            monkeypatch.setattr(pictures, "draw", lambda table: [])
        own = [f"tracking={tracking}", f"output={tmp_path}", f"cache={tmp_path}"]
        own += [f"tracking.uri={store.uri}"] * (tracking == "mlflow")
        with initialize_config_dir(config_dir=str(CONF)):
            cfg = compose("report", [*own, *overrides])
        cfg.study = study
        return tmp_path / study, report(cfg)

    return made


def table(text: str, title: str) -> list[dict[str, str]]:
    """The first table under a heading of the Markdown."""
    section = text.split(f"## {title}\n", 1)[1]
    lines = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE).group().splitlines()
    split = [[c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [dict(zip(split[0], line, strict=True)) for line in split[2:]]


GOLDEN = """
| Model | LR | MOMENTUM | WEIGHT_DECAY | NUM_EPOCHS | STEP_SIZE | GAMMA | TRAINING LOSS AT LAST STEP | VALIDATION ACC | TESTING ACC |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
| Base (a) | 1e-3 | 0.9 | 5e-5 | 30 | 20 | 0.1 | 1.250 (published 4.254, -3) | 0.2500 (published 0.0858, +0.1642, better) | 0.2500 (published 0.0919, +0.1581, better) |
| Model 1 | 1e-1 | 0.9 | 5e-5 | 30 | 10 | 0.1 | not run (published 3.465) | not run (published 0.2483) | not run (published 0.2454) |
| Model 2 | 1e-1 | 0.9 | 5e-5 | 40 | 10 | 0.01 | 1.250 (published 3.139, -1.9) | 0.1500 (published 0.2773, -0.1273, worse) | 0.1500 (published 0.2745, -0.1245, worse) |
| Model 3 (b) | 1e-2 | 0.9 | 5e-5 | 30 | 15 | 0.01 | 1.250 ± 0.000 (published 2.808, -1.6, better) | 0.3000 ± 0.0141 (published 0.2932, +0.0068, agrees) | 0.3000 ± 0.0141 (published 0.2969, +0.0031, agrees) |
| Best (ours) | 4e-2 | 0.9 | 5e-4 | 25 | cosine |  | not run | not run | not run |
| Model 3 (efficientnet_lite0) | 1e-2 | 0.9 | 5e-5 | 30 | 15 | 0.01 | 1.250 | 0.9000 | 0.9000 |

(a) collapsed: 100.0% of the answers are ant.

(b) seed 2 failed: does not count.

Not run or not finished; to run them:

```sh
python -m caltech.train experiment=scratch/model1
python -m caltech.train experiment=scratch/best
```
"""  # noqa: E501


@pytest.fixture(scope="session")
def course(store) -> Store:
    """Rows of the study's first table, and one of its third that is still running."""
    store.add("experiment=scratch/base", accuracy=0.25, given=np.zeros(IMAGES, int))
    store.add("experiment=scratch/model2", accuracy=0.15)
    for seed, accuracy in enumerate((0.29, 0.31)):
        store.add("experiment=scratch/model3", f"seed={seed}", accuracy=accuracy)
    store.add("experiment=scratch/model3", "seed=2", status="FAILED")
    store.add("experiment=scratch/model3", "model=efficientnet_lite0", accuracy=0.9)
    store.add("experiment=freeze/fully_connected", "model.weights=IMAGENET1K_V1", status="RUNNING")
    return store


def test_the_golden_table(course, make):
    _, text = make("course")
    assert text.split("## Training from Scratch\n")[1].startswith(GOLDEN)
    headings = re.findall(r"^## (.*)", text, re.MULTILINE)
    assert headings[:3] == ["Training from Scratch", "Transfer Learning", "Freezing Layers"]
    assert "On the 400 test images of made_up, always answering the most frequent class" in text
    (running, convolutional) = table(text, "Freezing Layers")
    assert running["TESTING ACC"] == "running, epoch 3 of 30 (published 0.8676)"
    assert running["TRAINING LOSS AT LAST STEP"].endswith("(published 0.8628, erratum)")
    assert convolutional["TESTING ACC"] == "not run (published 0.5620)"


def test_a_row_tells_what_it_changes_and_another_precision_is_still_compared(store, make):
    study = "study=variants"
    store.add(study, "experiment=scratch/model1", "precision=bf16", accuracy=0.3)
    smaller = ("data.resize=128", "data.crop=112")
    store.add(study, "experiment=scratch/model2", "model=efficientnet_lite0", *smaller)
    store.add(study, "experiment=scratch/model2", "precision=bf16", "lr=0.05")
    store.add(study, "experiment=scratch/model3", accuracy=0.29)
    store.add(study, "experiment=scratch/model3", "precision=bf16", accuracy=0.31)
    lines = table(make("variants")[1], "Training from Scratch")
    told = {line["Model"]: line["TESTING ACC"] for line in lines}
    assert told == {
        "Base": "not run (published 0.0919)",
        "Model 1 (precision=bf16)": "0.3000 (published 0.2454, +0.0546, better)",
        "Model 2": "not run (published 0.2745)",
        "Model 3": "0.2900 (published 0.2969, -0.0069, agrees)",
        "Best (ours)": "not run",
        "Model 2 (efficientnet_lite0, data.resize=128, data.crop=112)": "0.5000",
        "Model 2 (lr=0.05, precision=bf16)": "0.5000",
        "Model 3 (precision=bf16)": "0.3100 (published 0.2969, +0.0131, agrees)",
    }


def test_a_key_that_was_added_makes_another_row(store, make):
    """It is not the study's row, does not take its place, and rows of one name are told apart."""
    study = "study=added"
    store.add(study, "experiment=scratch/model3", accuracy=0.3)
    store.add(study, "experiment=scratch/model3", "+optimizer.nesterov=true", accuracy=0.4)
    store.add(study, "experiment=scratch/model2", "pruner=median", accuracy=0.28)
    timm = ("experiment=scratch/base", "model=timm")
    store.add(study, *timm, "model.name=test_resnet", accuracy=0.1)
    store.add(study, *timm, "model.name=test_vit", accuracy=0.2)
    resnet = ("experiment=scratch/model1", "model=resnet50")
    store.add(study, *resnet, accuracy=0.5)
    store.add(study, *resnet, "model.weights=IMAGENET1K_V2", accuracy=0.6)
    lines = table(make("added")[1], "Training from Scratch")
    told = {line["Model"]: line["TESTING ACC"] for line in lines}
    assert told == {
        "Base": "not run (published 0.0919)",
        "Model 1": "not run (published 0.2454)",
        "Model 2": "0.2800 (published 0.2745, +0.0055, agrees)",
        "Model 3": "0.3000 (published 0.2969, +0.0031, agrees)",
        "Best (ours)": "not run",
        "Base (timm, model.name=test_resnet)": "0.1000",
        "Base (timm, model.name=test_vit)": "0.2000",
        "Model 1 (resnet50): model.weights=null": "0.5000",
        "Model 1 (resnet50): model.weights=IMAGENET1K_V2": "0.6000",
        "Model 3 (optimizer.nesterov=true)": "0.4000",
    }


def test_a_seed_of_older_code_joins_its_row_and_hides_none(experiments):
    """Such a run lacks a key, so its point is another."""
    experiment = next(e for e in experiments if e.experiment == "scratch/model3")
    older = {key: value for key, value in experiment.config.items() if key != "optimizer.momentum"}
    base = made_up_row(0.3).runs[0]
    now = {"experiment": "scratch/model3", "params": {"seed": "0"}, "config": experiment.config}
    was = now | {"params": {"seed": "1"}, "config": older, "point": "older"}
    runs = [
        replace(base, key="a", point=experiment.point, started=1, **now),
        replace(base, key="b", point=experiment.point, started=3, status="killed", **now),
        replace(base, key="c", started=2, **was),
    ]
    points = arrange.by_point(runs)
    (found,), rest = arrange.study_tables([experiment], points, experiment.study)
    assert [run.key for run in found.rows[0].runs] == ["a", "c"] and not rest


def test_other_images_than_the_study_s_are_not_compared(store, make, monkeypatch):
    monkeypatch.setattr(rows, "TEST_IMAGES", 2893)
    store.add("study=mine", "experiment=scratch/model3", accuracy=0.3)
    _, text = make("mine")
    line = table(text, "Training from Scratch")[3]
    assert line["Model"] == "Model 3 (a)"
    assert line["TESTING ACC"] == "0.3000 (published 0.2969, other images)"
    assert "(a) tested on 400 images and not on the study's 2893: not compared" in text


def test_what_mlflow_calls_failed_is_not_finished(store, make):
    """Its tag says finished, but its files could not be written."""
    store.add("study=full", "lr=0.1", accuracy=0.3)
    cfg = store.add("study=full", "lr=0.2", accuracy=0.9, tags={"status": "finished"})
    found = store.client.search_runs([store.experiment], f"tags.key = '{cfg.key}'")
    store.client.set_terminated(found[0].info.run_id, "FAILED")
    told = [line["TESTING ACC"] for line in table(make("full")[1], "Runs")]
    assert told == ["0.3000", "failed"]


def test_code_and_threads_that_went_on_with_a_run_are_told(store, make):
    more = {name: 7 if name == "threads" else value for name, value in ENVIRONMENT.items()}
    maker = {"code": {"git": "def", "sha256": "e" * 16}, "environment": more}
    store.add("study=mixture", "lr=0.1", continued_by=[maker])
    store.add("study=mixture", "lr=0.2")
    text = make("mixture")[1]
    assert f"{ENVIRONMENT['threads']}, then 7 threads |" in text
    assert "made by other code than most runs: abc1234, then def (cccccccc)" in text


def test_kept_results_outlive_the_store_s_files(store, make):
    cfg = store.add("study=cleaned", accuracy=0.3)
    folder, before = make("cleaned")
    found = store.client.search_runs([store.experiment], f"tags.key = '{cfg.key}'")
    shutil.rmtree(found[0].info.artifact_uri.removeprefix("file://"))
    kept_before = {path.name: path.read_bytes() for path in (folder / "kept").iterdir()}
    assert make("cleaned")[1] == before
    assert {path.name: path.read_bytes() for path in (folder / "kept").iterdir()} == kept_before


def test_paired_tests_stay_within_a_data_set(monkeypatch):
    """Of many rows, each data set's best is compared with the others on the same images."""
    mine = [made_up_row(0.5 + 0.01 * i, lr=str(i)) for i in range(12)]
    other = DATA | {"sha256": "o" * 64, "name": "other"}
    runs = [replace(made_up_row(0.9 + 0.01 * i).runs[0], data=other) for i in range(3)]
    others = [rows.Row(f"other {i}", (run,), {}) for i, run in enumerate(runs)]
    pairs = tables._pairs(rows.Table("Runs", (*mine, *others), (), False))
    assert {pair.first for pair in pairs} == {mine[-1].name, "other 2"}
    assert len(pairs) == 11 + 2


def test_a_report_is_remade_from_kept_results(store, make):
    for seed in (0, 1):
        store.add("study=kept", "experiment=scratch/model1", f"seed={seed}", accuracy=0.3)
    folder, text = make("kept", draws=True)
    files = ("table.md", "table.csv", "report.html")
    before = {name: (folder / name).read_text() for name in files}
    assert before["table.md"] == text
    names = {path.suffix: path for path in (folder / "kept").iterdir()}
    assert len(list((folder / "kept").iterdir())) == 4 and set(names) == {".json", ".csv"}
    assert {
        "1-learning-curves.png",
        "1-confusions.png",
        "1-per-class.png",
        "1-reliability.png",
    } == {path.name for path in (folder / "pictures").iterdir()}
    html = before["report.html"]  # needs nothing else
    assert "default-src 'none'" in html
    assert set(re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?(\w+:)", html)) == {"data:"}
    assert not re.search(r"https?://|<script|<link|@import", html)
    assert "python -m caltech.train experiment=scratch/base study=kept" in html
    for name in files:
        (folder / name).unlink()
    make("kept", tracking="none", draws=True)
    assert {name: (folder / name).read_text() for name in files} == before


def test_the_store_is_believed_before_kept_results(store, make):
    store.add("study=believed", accuracy=0.3)
    folder, before = make("believed")
    (path,) = (folder / "kept").glob("*.json")
    written = json.loads(path.read_text())
    written["metrics"]["test/accuracy"] = 0.99
    path.write_text(json.dumps(written))
    assert make("believed")[1] == before
    assert "0.99" not in path.read_text()


def test_runs_that_did_not_finish_are_marked_and_do_not_count(store, make):
    store.add("study=sweep", "lr=0.1", accuracy=0.3)
    store.add("study=sweep", "lr=0.2", accuracy=0.4)
    store.add("study=sweep", "lr=0.3", status="FINISHED", accuracy=0.9, tags={"status": "pruned"})
    store.add("study=sweep", "lr=0.4", status="FAILED", tags={"failure": "DivergedError: nan"})
    store.add("study=sweep", "lr=0.5", status="RUNNING")
    folder, text = make("sweep")
    lines = table(text, "Runs")
    assert [line["lr"] for line in lines] == ["2e-1", "1e-1", "3e-1", "4e-1", "5e-1"]
    told = [line["TESTING ACC"] for line in lines]
    assert told == ["0.4000", "0.3000", "pruned after epoch 30", "failed", "running, epoch 3 of 30"]
    assert "(b) failed (DivergedError: nan): does not count." in text
    assert text.count(" / 2: ") == 1  # one pair for McNemar's test
    assert len(list((folder / "kept").glob("*.json"))) == 3  # what failed or runs is not kept
    assert table(make("sweep", tracking="none")[1], "Runs") == lines[:3]


def test_a_kept_run_counts_where_the_store_has_no_better():
    (finished,) = made_up_row(0.3, lr="1").runs
    pruned, running = (
        replace(finished, status=status, predictions=None) for status in ("pruned", "running")
    )
    assert combine([], [pruned]) == [pruned]
    assert combine([running], [pruned]) == [running]  # the same, that goes on
    assert combine([running], [finished]) == combine([pruned], [finished]) == [finished]
    assert combine([finished], [pruned]) == [finished]


def test_runs_of_before_there_was_a_group_differ_only_from_its_other_options():
    points = [
        made_up_row(0.3, **params).runs
        for params in ({"lr": "1"}, {"lr": "2", "average": "none"}, {"lr": "2", "average": "ema"})
    ]
    assert arrange.describe(points[:2]) == [{"lr": "1"}, {"lr": "2"}]
    assert [each["average"] for each in arrange.describe(points)] == ["none", "none", "ema"]


def test_of_runs_with_one_key_the_newest_finished_one_counts(store, make):
    store.add("study=again", accuracy=0.3)
    store.add("study=again", accuracy=0.4)
    store.add("study=again", status="FAILED")
    (line,) = table(make("again")[1], "Runs")
    assert line["TESTING ACC"] == "0.4000"
    assert line["Model"] == "efficientnet_lite0" and line["LR"] == "1e-1"


def test_other_code_and_other_data_are_marked(store, make):
    store.add("study=mixed", "lr=0.1", accuracy=0.2, code={"sha256": "old", "git": "old-git"})
    store.add("study=mixed", "lr=0.2", accuracy=0.4)
    store.add("study=mixed", "lr=0.3", accuracy=0.3, data={"sha256": "other", "name": "mine"})
    store.add("study=mixed", "lr=0.4", accuracy=0.5)
    text = make("mixed")[1]
    marks = {line[""].split(" ")[0]: line[""].partition(" ")[2] for line in table(text, "Runs")}
    assert marks == {"1": "", "2": "", "3": "(a)", "4": "(b)"}
    assert "(a) made from other data than most runs: mine other." in text
    assert "(b) made by other code than most runs: old-git (old)." in text
    assert text.count(": lr=0.3 / ") == 0  # no paired test on other images


def test_columns_are_the_keys_that_differ(store, make):
    store.add("study=columns", "optimizer=adamw", "lr=0.1")
    store.add("study=columns", "lr=0.2")
    store.add("study=columns", "lr=0.2", "model.weights=imagenet", accuracy=0.6)
    lines = table(make("columns")[1], "Runs")
    assert list(lines[0])[:4] == ["", "lr", "optimizer", "model.weights"]
    assert [line["model.weights"] for line in lines] == ["imagenet", "null", "null"]


NAMES = ["<script>alert(1)</script>", "a|b 'c\" $d$", "=1+1"]


@pytest.mark.parametrize("name", [n.replace("/", "") for n in NAMES])
def test_names_are_escaped(store, make, name):
    quoted = arrange.quoted(name).replace("'\"'\"'", "'").removeprefix("'").removesuffix("'")
    store.add(f"study={quoted}", "model=alexnet", accuracy=0.5)
    store.add(f"study={quoted}", "model=torchvision", f"model.name={quoted}", accuracy=0.6)
    folder, text = make(name)
    html = (folder / "report.html").read_text()
    assert "<script" not in html and "<b>" not in html
    assert html.count("&lt;script&gt;") == 0 or name.startswith("<")
    lines = table(text, "Runs")
    assert len(lines) == 2 and "<script" not in text
    cells = [
        cell for row in csv.reader(io.StringIO((folder / "table.csv").read_text())) for cell in row
    ]
    assert not [cell for cell in cells if cell[:1] in "=@" and cell]


@pytest.mark.parametrize("text", ["=1+1", "+x", "-x", "@x", "\tx", "\rx", "=-1"])
def test_no_cell_is_a_formula(text):
    assert spreadsheet.harmless(text) == f"'{text}"


@pytest.mark.parametrize("value", [-1.5, "-1.5", "+0.0032", "1e-3", "ant", "", None])
def test_numbers_and_words_stay_as_they_are(value):
    assert spreadsheet.harmless(value) == ("" if value is None else str(value))


def test_a_study_that_is_not_there(make, tmp_path):
    (tmp_path / "another").mkdir()
    with pytest.raises(InputError, match=r"study=nowhere has no run .*: another"):
        make("nowhere")
    with pytest.raises(InputError, match="names a directory"):
        make("..")


def test_the_command_line(tmp_path):
    """Without runs it is a list of what to run; nothing but the report is written."""
    command = [sys.executable, "-m", "caltech.report", "tracking=none", f"output={tmp_path}/out"]
    shown = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert shown.returncode == 0, shown.stderr
    assert shown.stderr == ""
    named = re.findall(r"^python -m caltech.train experiment=(\S+)$", shown.stdout, re.MULTILINE)
    files = Path(__file__).parents[1].glob("conf/experiment/*/*.yaml")
    assert sorted(named) == sorted(f"{path.parent.name}/{path.stem}" for path in files)
    assert f"{tmp_path}/out/course/report.html" in shown.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    written = sorted(path.name for path in (tmp_path / "out" / "course").iterdir())
    assert written == ["report.html", "table.csv", "table.md"]


def test_no_store_is_created(tmp_path):
    uri = f"sqlite:///{tmp_path}/absent.db"
    cfg = OmegaConf.create({"uri": uri, "experiment": "caltech"})
    assert tracked.read(cfg, "course") == []
    assert not list(tmp_path.iterdir())


def test_every_experiment_that_names_a_table_is_in_order():
    """Files that conf/report.yaml does not list follow those that it does; none may be gone."""
    order = OmegaConf.load(CONF / "report.yaml").order
    assert all((CONF / "experiment" / f"{name}.yaml").is_file() for name in order)


def test_a_real_run_is_reported_from_its_directory_if_the_store_has_no_files(
    configure, store, make, monkeypatch
):
    """As runs of older code are: their predictions are in their directory alone."""
    places = [f"tracking.uri={store.uri}", f"tracking.artifacts={store.folder}/artifacts"]
    fast = ["num_epochs=2", "batch_size=16", "lr=0.1"]
    cfg = configure("tracking=mlflow", *places, *fast, "study=real")
    monkeypatch.setattr(training.run, "ARTIFACTS", ())
    training.train(cfg, {"model": "efficientnet_lite0", "data": "caltech101"})
    (Path(cfg.directory) / "data.json").unlink()
    folder, text = make(
        "real",
        f"data.caltech101.root={cfg.data.root}",
        *(f"data.caltech101.{name}={cfg.data[name]}" for name in ("resize", "crop", "cache")),
    )
    result = json.loads((Path(cfg.directory) / "result.json").read_text())
    (line,) = table(text, "Runs")
    assert line["TESTING ACC"] == f"{result['last']['test/accuracy']:.4f}"
    assert line["VALIDATION ACC"] == f"{result['last']['val/accuracy']:.4f}"
    answered = np.load(Path(cfg.directory) / "predictions_last.npz")
    (run,) = kept.read(folder / "kept")
    assert run.images("validation") == 10
    assert (run.predictions.last == answered["predictions"]).all()
    assert run.data["classes"][0] == "accordion"
    wrong = (answered["predictions"] != answered["labels"]).sum()
    if wrong:
        assert (folder / "gallery.html").read_text().count("data:image/jpeg") == min(wrong, 24)


def made_up_row(accuracy: float, **params: str) -> rows.Row:
    given = answers(accuracy)
    run = rows.Run(
        key=str(params), point=str(params), status="finished", reason="", started=0,
        params={"seed": "0", **params}, config={}, metrics={"val/best_accuracy": accuracy},
        history={name: [0.4, 0.5] for name in EPOCH_METRICS}, seconds=1.0, environment={},
        code=CODE, data=DATA, experiment=None,
        predictions=Predictions(np.arange(IMAGES), LABELS, given, given, np.full(IMAGES, 0.7)),
    )  # fmt: skip
    return rows.Row(" ".join(f"{k}={v}" for k, v in params.items()), (run,), params)


@pytest.mark.parametrize(
    ("keys", "kind"),
    [({"lr": (0.1, 0.01, 1)}, "_line"), ({"lr": (0.1, 1), "step_size": (5, 10)}, "_heat_map"),
     ({"lr": (0.1, 1), "step_size": (5, 9), "gamma": (0.1, 1), "model": ("a", "$b")}, "_parallel")],
)  # fmt: skip
def test_the_picture_of_a_sweep_fits_the_keys_that_differ(keys, kind, monkeypatch):
    found = []
    original = getattr(landscape, kind)
    monkeypatch.setattr(landscape, kind, lambda *args: found.append(kind) or original(*args))
    points = [dict(zip(keys, map(str, p), strict=True)) for p in itertools.product(*keys.values())]
    drawn = [made_up_row(0.5 + 0.02 * i, **point) for i, point in enumerate(points)]
    sweep = rows.Table("Runs", tuple(drawn), tuple(keys), False)
    with mpl.rc_context(canvas.STYLE):
        assert landscape.sweep(sweep).startswith(b"\x89PNG")
    assert found == [kind]


def test_wilson_s_interval():
    """Values of Newcombe (1998), Table I, method 3."""
    for correct, count, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605)):
        interval = statistics.wilson(correct / count, count)
        assert (interval.low, interval.high) == pytest.approx((low, high), abs=5e-5)
    assert statistics.wilson(1.0, 29).high == 1.0


def test_seeds_widen_the_interval_of_images():
    alone = statistics.of_accuracy([0.5], 1000)
    assert alone == statistics.wilson(0.5, 1000)
    together = statistics.of_accuracy([0.48, 0.5, 0.52], 1000)
    assert together.low < alone.low and together.high > alone.high
    seeds = statistics.over_seeds([0.48, 0.5, 0.52])  # t(2) = 4.3027
    assert seeds.high - 0.5 == pytest.approx(4.3027 * 0.02 / 3**0.5, rel=1e-4)
    assert 0.5 in together and 0.6 not in together
    assert statistics.of_accuracy([0.97, 0.99], 599).high == 1.0
    assert statistics.of_accuracy([0.02, 0.05], 599).low == 0.0


def test_where_one_more_seed_is_expected():
    """As Student's interval of the mean, and wider by the one's own chance."""
    interval = statistics.of_one_more([2.0, 3.0, 4.0])
    assert interval.high - 3 == pytest.approx(4.3027 * (1 + 1 / 3) ** 0.5, rel=1e-4)
    assert 3 - interval.low == pytest.approx(interval.high - 3)


def test_mcnemar_s_test():
    """Exact: twice the binomial tail of the smaller count, here of 5 in 20."""
    first, second = np.zeros(100, bool), np.zeros(100, bool)
    first[:15], second[15:20] = True, True
    first[20:60] = second[20:60] = True
    only_first, only_second, p_value = statistics.mcnemar(first, second)
    assert (only_first, only_second) == (15, 5)
    assert p_value == pytest.approx(0.041389, abs=1e-6)
    assert statistics.mcnemar(first, first) == (0, 0, 1.0)


def test_holm_s_adjustment():
    """The example of R's p.adjust(c(0.01, 0.02, 0.03, 0.005), "holm")."""
    assert statistics.holm([0.01, 0.02, 0.03, 0.005]) == pytest.approx([0.03, 0.04, 0.04, 0.02])
    assert statistics.holm([]) == []


def test_calibration():
    """Two bins: 0.9 promised and 0.5 kept, 0.3 promised and 0.3 kept, as many answers in each."""
    confidences = np.array([0.9] * 10 + [0.3] * 10)
    correct = np.array([True] * 5 + [False] * 5 + [True] * 3 + [False] * 7)
    result = statistics.calibration(confidences, correct)
    assert result.error == pytest.approx(0.2)
    assert result.count.sum() == 20
    assert statistics.calibration(np.ones(4), np.ones(4, bool)).error == 0


def test_a_collapsed_run_is_known_by_its_answers():
    labels = np.array([0] * 30 + [1] * 70)
    assert statistics.collapsed(labels, np.full(100, 1)) == 1
    nearly = np.array([0] * 5 + [1] * 95)
    assert statistics.collapsed(labels, nearly) == 1
    assert statistics.collapsed(labels, np.array([0] * 6 + [1] * 94)) is None
    assert statistics.collapsed(np.zeros(9, int), np.zeros(9, int)) is None  # so are the labels


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [("lr", "0.001", "1e-3"), ("lr", "0.05", "5e-2"), ("weight_decay", "5e-05", "5e-5"),
     ("gamma", "0.01", "0.01"), ("weight_decay", "0.0", "0"), ("model", "alexnet", "alexnet"),
     ("start", "1234567e89", "1234567e89")],
)  # fmt: skip
def test_parameters_are_written_as_in_the_study(name, value, shown):
    assert show_parameter(name, value) == shown


def test_markdown_s_cells():
    assert markdown.escape("a|b") == "a\\|b"
    assert markdown.escape("<img src=x>") == "&lt;img src=x>"
    assert markdown.escape("p < 0.05\nand") == "p < 0.05 and"
    assert markdown.escape("[x](y)") == "\\[x\\](y)"


def test_the_surest_errors_come_first(store, make):
    store.add("study=errors", accuracy=0.5)
    make("errors")
    (run,) = tracked.read(OmegaConf.create({"uri": store.uri, "experiment": "caltech"}), "errors")
    assert isinstance(run.predictions, Predictions)
    row = rows.Row("x", (run,), run.params)
    found = page.mistakes(row, 3)
    assert [mistake.index for mistake in found] == [399, 398, 397]
    assert found[0].label == CLASSES[3] and found[0].answer == CLASSES[0]


def test_readme_s_table_says_what_the_kept_report_says():
    """Nothing in it is typed by hand without being noticed: ours, deviations and published.

    Every finished row is in it, but for those on images of another size.
    """
    report = Path(__file__).parents[1] / "multirun" / "course" / "table.csv"
    told = list(csv.DictReader(io.StringIO(report.read_text("utf-8"))))
    known = {
        percent(line[name])
        for line in told
        for name in ("TESTING ACC", "TESTING ACC sd", "TESTING ACC published")
        if line[name]
    }
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    first = re.search(r"(?:^\|.*\n)+", readme, re.MULTILINE).group().splitlines()[2:]
    shown = [cell for row in first for cell in row.split("|")[2:4]]
    numbers = re.findall(r"\d+\.\d\d", " ".join(shown))
    assert len(numbers) > 10
    assert set(numbers) <= known
    finished = [line for line in told if line["TESTING ACC"] and "crop=" not in line["Model"]]
    assert len(finished) > 10
    assert all(percent(line["TESTING ACC"]) in numbers for line in finished)


def percent(share: str) -> str:
    return f"{100 * float(share):.2f}"
