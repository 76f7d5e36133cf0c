"""Made-up runs of composed configs: as sources gives them, and as a training tracks them."""

import functools
import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from caltech.config import register
from caltech.files import sealed_json, write_json, write_sealed_json
from caltech.keys import decisive, point_key
from caltech.metrics import EPOCH_METRICS
from caltech.report import arrange, command, pictures, render, rows
from caltech.report.sources.asked import Asked
from caltech.report.trained import Predictions, Run, flat
from caltech.runs import manifest
from caltech.runs.directory import RunDirectory
from caltech.settings import CONF
from caltech.tracking.description import Description, describe

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
CONFIDENCES = np.linspace(0.5, 1, IMAGES).round(4)


def answers(accuracy: float) -> np.ndarray:
    """Right on the first images, and one class too high on the others."""
    return (LABELS + (np.arange(IMAGES) >= round(accuracy * IMAGES))) % len(CLASSES)


@functools.cache
def described(*overrides: str) -> tuple[DictConfig, Description]:
    """A composed config and what the tracker is told of it."""
    register()
    with initialize_config_dir(config_dir=str(CONF)):
        cfg = compose("train", ["model.weights=null", *overrides], return_hydra_config=True)
    choices = cfg.hydra.runtime.choices
    OmegaConf.set_struct(cfg, False)
    cfg.pop("hydra")
    cfg.key, cfg.directory = cfg.key, "made_up"  # else each look at them takes 60 ms
    made_from = {"data": {"name": "made_up", "sha256": DATA["sha256"]}, "weights": {"name": "none"}}
    made_from |= {"code": CODE, "environment": ENVIRONMENT}
    return cfg, describe(cfg, choices, overrides, None, made_from)


def made_up(*overrides: str, accuracy=0.5, given=None, status="finished", **changes) -> Run:
    """One run; `given` are its answers on the test images, `changes` other fields of Run."""
    cfg, description = described(*overrides)
    given = answers(accuracy) if given is None else given
    is_finished, epochs = status == "finished", cfg.num_epochs if status == "finished" else 3
    last = (1.5, 1.25, 0.6, 1.4, accuracy, cfg.lr)
    history = {name: [v] * epochs for name, v in zip(EPOCH_METRICS, last, strict=True)}
    history["val/accuracy"] = [accuracy + 0.001 * (n - epochs) for n in range(1, epochs + 1)]
    measured = dict.fromkeys(("val/best_accuracy", "test/best_accuracy"), accuracy)
    measured |= {"test/accuracy_per_class": accuracy, "val/best_epoch": float(epochs)}
    measured |= {"test/accuracy": float((given == LABELS).mean())}
    answered = Predictions(np.arange(IMAGES), LABELS, given, given, CONFIDENCES)
    known = {
        "key": cfg.key,
        "point": point_key(cfg),
        "status": status,
        "reason": "",
        "started": 1,
        "params": {name: str(value) for name, value in description.params.items()},
        "config": flat(decisive(cfg)),
        "metrics": measured if is_finished else {},
        "history": history,
        "seconds": 75.0,
        "environment": {name: str(value) for name, value in ENVIRONMENT.items()},
        "code": CODE,
        "data": DATA,
        "experiment": description.tags.get("experiment"),
        "predictions": answered if is_finished else None,
    }
    return Run(**known | changes)


@pytest.fixture(scope="session")
def experiments() -> list[rows.Published]:
    """Composing all of them takes a second."""
    register()
    return arrange.experiments(OmegaConf.load(CONF / "report.yaml").order)


@pytest.fixture
def compared(experiments) -> list[rows.Published]:
    """As if measured on as many images as the made-up runs: else nothing would be compared."""
    protocol = {"test": IMAGES}
    return [replace(each, protocol=each.protocol and protocol) for each in experiments]


@pytest.fixture
def text_of(compared):
    """The Markdown of some runs."""

    return lambda runs, study="mine": text_of_all(runs, compared, study)


def text_of_all(
    runs: Sequence[Run], published: Sequence[rows.Published], study: str = "mine"
) -> str:
    tables = arrange.arrange(runs, published, study)
    sheets = [render.Sheet(each, runs) for each in tables]
    return render.text_and_page(study, sheets, runs, {each.title: [] for each in tables})[0]


@pytest.fixture
def make(compared, monkeypatch, tmp_path):
    """Write a study's report into tmp_path, without pictures; returns its folder and the text."""
    monkeypatch.setattr(command, "experiments", lambda order: compared)
    monkeypatch.setattr(pictures, "draw", lambda table: [])  # takes seconds

    def made(study: str | list[str], *overrides: str) -> tuple[Path, str]:
        own = [f"output={tmp_path}", f"cache={tmp_path}", f"data.caltech101.root={tmp_path}"]
        with initialize_config_dir(config_dir=str(CONF)):
            cfg = compose("report", [*own, *overrides])
        cfg.study = study
        return Asked.of(cfg).folder, command.report(cfg)

    return made


def table(text: str, title: str) -> list[dict[str, str]]:
    """The first table under a heading of the Markdown."""
    section = text.split(f"## {title}\n", 1)[1]
    lines = re.search(r"(?:^\|.*\n)+", section, re.MULTILINE).group().splitlines()
    split = [[c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return [dict(zip(split[0], line, strict=True)) for line in split[2:]]


def accuracies(text: str, title: str) -> dict[str, str]:
    """TESTING ACC by the row's name."""
    return {next(iter(line.values())): line["TESTING ACC"] for line in table(text, title)}


def trained(folder: Path, *overrides: str, by=(), is_old=False, published=None, **of_run) -> Path:
    """A run's directory in a study's folder, as a training leaves it; an old one tells less."""
    (cfg, _), run = described(*overrides), made_up(*overrides, **of_run)
    directory = RunDirectory(folder / run.key)
    directory.path.mkdir(parents=True)
    resolved = OmegaConf.to_container(cfg, resolve=True) | {"published": published}
    directory.config.write_text(OmegaConf.to_yaml(OmegaConf.create(resolved)))
    made_from = {"data": {"name": "made_up", "sha256": DATA["sha256"]}, "code": CODE}
    made_from |= {"environment": ENVIRONMENT | {"host": "here"}, "continued_by": list(by)}
    write_sealed_json(directory.provenance, made_from)
    by_epoch = zip(*run.history.values(), strict=True)
    epochs = [dict(zip(run.history, each, strict=True)) for each in by_epoch]
    write_sealed_json(directory.history, {"started": run.started, "epochs": epochs})
    if run.status in ("finished", "pruned"):
        write_json(directory.data, DATA)
        write_json(directory.timing, {"seconds": run.seconds})
        best = 1 + int(np.argmax(run.history["val/accuracy"]))
        ended = {
            "last": epochs[-1] | {"epoch": len(epochs)},
            "best": epochs[best - 1] | {"epoch": best},
        }
        if known := run.predictions:
            for name, given in (("last", known.last), ("best", known.best)):
                ended[name] |= {"test/accuracy": float((given == known.labels).mean())}
                ended[name] |= {
                    "test/loss": 1.0,
                    "test/accuracy_per_class": of_run.get("accuracy", 0.5),
                }
                np.savez(
                    directory.predictions(name), indices=known.indices, labels=known.labels,
                    predictions=given, confidences=known.confidences.astype(np.float32),
                )  # fmt: skip
        result = sealed_json({"key": run.key, "status": run.status, **ended})
        manifest.write(directory, run.key, result)
        directory.result.write_bytes(result)
    if is_old:
        torch.save({"progress": {"history": epochs}}, directory.checkpoint)
        for path in (directory.history, directory.manifest):
            path.unlink(missing_ok=True)
    return directory.path


def gone(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def braces(path: Path) -> None:
    path.write_text("{}")


def a_list(path: Path) -> None:
    path.write_text("[1, [2]]")


def a_number(path: Path) -> None:
    path.write_text("7")


def bytes_of_none(path: Path) -> None:
    path.write_bytes(bytes(range(256)))


def deep(path: Path) -> None:
    path.write_text("[" * 100_000)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def a_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def a_link_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def not_a_number(path: Path) -> None:
    path.write_text(path.read_text().replace("0.5", "NaN"))


def too_large(path: Path) -> None:
    path.write_text(path.read_text().replace("0.5", "1e308"))


NO_FILE: tuple[Callable[[Path], None], ...] = (gone, a_folder, a_pipe, a_link_to_itself)
HARMS = (*NO_FILE, empty, cut, braces, a_list, a_number, bytes_of_none, deep)
HARMS += (not_a_number, too_large)


class Store:
    """Writes runs as caltech.train would have, without training."""

    def __init__(self, folder: Path) -> None:
        from mlflow import MlflowClient

        self.folder, self.uri = folder, f"sqlite:///{folder}/mlflow.db"
        self.tracking = OmegaConf.create({"uri": self.uri, "experiment": "caltech"})
        self.client = MlflowClient(self.uri)
        place = (folder / "artifacts").as_uri()
        self.experiment = self.client.create_experiment("caltech", artifact_location=place)

    def add(self, *overrides: str, ended=None, config=None, tags=None, by=(), **of_run) -> Path:
        """One run that MLflow says has `ended` so, its artifacts if it has finished, with a
        `config.yaml` and continued `by` others; returns their folder."""
        from mlflow.entities import Metric, Param, RunTag

        (cfg, told), run = described(*overrides), made_up(*overrides, **of_run)
        info = self.client.create_run(self.experiment).info
        files = Path(info.artifact_uri.removeprefix("file://"))
        if known := run.predictions:
            files.mkdir(parents=True)
            (files / "config.yaml").write_text(config or OmegaConf.to_yaml(cfg, resolve=True))
            written = {"data": DATA, "provenance": {"continued_by": by}, "timing": {"seconds": 75}}
            for name, value in written.items():
                (files / f"{name}.json").write_text(json.dumps(value))
            for name in ("last", "best"):
                np.savez(
                    files / f"predictions_{name}.npz", indices=known.indices, labels=known.labels,
                    predictions=known.last, confidences=known.confidences.astype(np.float32),
                )  # fmt: skip
        sent = [Metric(k, v, 0, n) for k, of in run.history.items() for n, v in enumerate(of, 1)]
        sent += [Metric(name, value, 0, run.epochs) for name, value in run.metrics.items()]
        tags = {**told.tags, "directory": str(self.folder), **(tags or {})}
        tags = [RunTag(name, value) for name, value in tags.items()]
        params = [Param(name, value) for name, value in run.params.items()]
        self.client.log_batch(info.run_id, metrics=sent, params=params, tags=tags)
        if run.status != "running":
            self.client.set_terminated(info.run_id, ended or run.status.upper())
        return files


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A fresh store costs five seconds; each test has a study of its own in this one."""
    return Store(tmp_path_factory.mktemp("made_up"))
