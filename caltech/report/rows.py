"""What a report is made of: runs, and rows, each of which is all seeds of one config."""

import itertools
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from caltech.metrics import collapsed
from caltech.report import statistics
from caltech.report.trained import (
    FINISHED,
    MEAN_OVER_CLASSES,
    MOST_ROWS_IN_PAIRS,
    Predictions,
    Run,
)


@dataclass(frozen=True)
class Published:
    """One experiment of conf/experiment: a row of the study, or a row of ours in its table."""

    experiment: str
    point: str
    study: str
    table: str
    name: str
    numbers: dict[str, float]  # train/loss_last_step, val/accuracy, test/accuracy, ...
    protocol: dict[str, int]  # of the numbers: images of a part, classes
    errata: tuple[str, ...]
    params: dict[str, str]
    config: dict[str, Any]
    elsewhere: tuple[dict[str, str], ...] = ()  # numbers of others, to be read beside it
    seeds: int | None = None  # with how many it is to be run


@dataclass(frozen=True)
class Row:
    """All runs of one config but for its seed, or none yet."""

    name: str
    runs: tuple[Run, ...]  # by seed
    params: dict[str, str]
    published: Published | None = None  # to be compared with
    command: str | None = None  # that runs it

    @cached_property
    def finished(self) -> list[Run]:
        """The runs that count."""
        return [run for run in self.runs if run.status == FINISHED]

    @property
    def first(self) -> Run:
        """The finished run of the smallest seed: predictions shown are its."""
        return self.finished[0]

    @property
    def status(self) -> str:
        """Of a row without a finished run."""
        return self.runs[0].state if self.runs else "not run"

    @property
    def other_protocol(self) -> str:
        """In what ours was not measured as the published numbers were; empty if it was."""
        if not (self.published and self.finished):
            return ""
        told, data = self.published.protocol, self.first.data
        ours = data.get("images", {}) | {"classes": len(data.get("classes", ()))}
        differ = [name for name in told if ours.get(name) not in (None, 0, told[name])]
        return ", ".join(f"{name} {ours[name]} and not {told[name]}" for name in differ)

    @property
    def splits(self) -> list[int]:
        """The seeds by which the finished runs' images were split, if these differ."""
        seeds = {run.split_seed for run in self.finished} - {None}
        return sorted(seeds) if len(seeds) > 1 else []

    def shares_images(self, other: "Row") -> bool:
        """Whether both have a run of the same images, split in the same way."""
        mine, theirs = ({run.data["sha256"] for run in row.finished} for row in (self, other))
        return bool(mine & theirs)

    @property
    def is_chosen_already(self) -> bool:
        """Whether validation images were trained on: nothing is to be chosen by their accuracy."""
        return bool(self.runs and self.runs[0].config.get("split.train_on_validation"))

    @cached_property
    def predictions(self) -> Predictions | None:
        return self.first.predictions if self.finished else None

    def compared(self, other: "Row") -> float | None:
        """The p value of a difference from another row in what the best epochs have right of the
        test, over all seeds; None if that is not known, or not of the same images."""
        if None in (self.mean("test/best_accuracy"), other.mean("test/best_accuracy")):
            return None
        if self.splits or other.splits:
            return self._compared_by_splits(other)
        mine, theirs = ([run for run in row.finished if run.predictions] for row in (self, other))
        if len({run.tested for run in (*mine, *theirs)}) != 1 or not (mine and theirs):
            return None
        right = ([run.predictions.correct_at_best for run in runs] for runs in (mine, theirs))
        return statistics.of_seeds(*map(np.array, right))

    def _compared_by_splits(self, other: "Row") -> float | None:
        rows = [{run.split_seed: run for run in row.finished} for row in (self, other)]
        common = sorted(rows[0].keys() & rows[1].keys() - {None})
        accuracies = [[of[seed].number("test/best_accuracy") for seed in common] for of in rows]
        tested, trained = (self.first.images(part) for part in ("test", "train"))
        if len(common) < 2 or None in (*accuracies[0], *accuracies[1], tested, trained):
            return None
        return statistics.of_splits(*accuracies, tested / trained, tested)

    @property
    def collapsed(self) -> tuple[str, float] | None:
        """The one class that (almost) all answers are, and their share."""
        if self.predictions is None:
            return None
        top = collapsed(self.predictions.labels, self.predictions.last)
        share = float((self.predictions.last == top).mean())
        return None if top is None else (self.first.class_name(top), share)

    def other_versions(self, usual: Mapping[str, str]) -> list[str]:
        """What finished runs were made with, or went on with, that is not as usual."""
        told = dict.fromkeys(each for run in self.finished for each in run.versions.items())
        return [f"{name} {version}" for name, version in told if usual[name] != version]

    def other_data(self, usual: Mapping[str, str]) -> list[dict[str, Any]]:
        """What finished runs were made from that is not as usual for their split."""
        datas = [run.data for run in self.finished if run.data["sha256"] != usual[run.split]]
        return list({data["sha256"]: data for data in datas}.values())

    def values(self, name: str) -> list[float]:
        """Of the finished runs that have this number."""
        numbers = [run.number(name) for run in self.finished]
        return [number for number in numbers if number is not None]

    def mean(self, name: str) -> float | None:
        values = self.values(name)
        return float(np.mean(values)) if values else None

    def deviation(self, name: str) -> float | None:
        """Standard deviation over at least two seeds."""
        values = self.values(name)
        return float(np.std(values, ddof=1)) if len(values) > 1 else None

    @property
    def score(self) -> float | None:
        """What rows are compared by, validation accuracy of the best epoch: the test has no say."""
        best = self.mean("val/best_accuracy")
        return 0.0 if best is not None and self.is_chosen_already else best

    def mistakes(self, names: Mapping[int, str]) -> list[dict[str, Any]]:
        """The wrong answers of the first seed, the surest first; `names` are the images' files."""
        if self.predictions is None:
            return []
        known, name = self.predictions, self.first.class_name
        wrong = np.flatnonzero(~known.correct)
        return [
            {
                "index": int(known.indices[place]),
                "file": names.get(int(known.indices[place]), f"image {known.indices[place]}"),
                "label": name(known.labels[place]),
                "answer": name(known.last[place]),
                "confidence": float(known.confidences[place]),
            }
            for place in wrong[np.argsort(-known.confidences[wrong], kind="stable")]
        ]

    @property
    def calibration_error(self) -> float | None:
        """Of the first seed's test. Its answers here have four decimals, and move it by a few
        thousandths; of earlier code there is nothing else."""
        if self.predictions is None:
            return None
        known = self.first.number("test/calibration_error")
        return self.predictions.calibration.error if known is None else known

    def interval(self, name: str) -> statistics.Interval | None:
        """Of an accuracy, from images and seeds; of what is no share of images, of one further run
        by the seeds', or by the splits'."""
        values = self.values(name)
        if not values:
            return None
        if "accuracy" not in name or name == MEAN_OVER_CLASSES:
            is_spread = len(values) > 1 and (self.splits or name != MEAN_OVER_CLASSES)
            return statistics.of_one_more(values) if is_spread else None
        count = self._images(name)
        return statistics.of_accuracy(values, count) if count else None

    def differs(self, name: str, published: float) -> bool | None:
        """Whether a published number is another than ours; None if that cannot be told."""
        values = self.values(name)
        if "accuracy" in name and name != MEAN_OVER_CLASSES:
            count = self._images(name)
            return statistics.differs(values, published, count) if count else None
        interval = self.interval(name)
        return None if interval is None else published not in interval

    def _images(self, name: str) -> int | None:
        return self.first.images("test" if name.startswith("test/") else "validation")


@dataclass(frozen=True)
class Table:
    """Rows under one title. `columns` are the parameters that describe them."""

    title: str
    rows: tuple[Row, ...]
    columns: tuple[str, ...]
    is_published: bool

    @property
    def finished(self) -> list[Row]:
        return [row for row in self.rows if row.finished]

    @property
    def best(self) -> Row:
        """Of the finished rows."""
        return max(self.finished, key=lambda row: row.score)

    @cached_property
    def pairs(self) -> list[statistics.Pair]:
        """McNemar's test between rows that answered for the same images; the first seed of each."""
        by_data = defaultdict(list)
        for row in self.finished:
            if row.predictions is not None:
                by_data[row.first.tested].append(row)
        couples = []
        for rows in by_data.values():
            if sum(map(len, by_data.values())) > MOST_ROWS_IN_PAIRS:
                best = max(rows, key=lambda row: row.score)
                couples += [(best, row) for row in rows if row is not best]
            else:
                couples += itertools.combinations(rows, 2)
        tests = [
            statistics.mcnemar(a.predictions.correct, b.predictions.correct) for a, b in couples
        ]
        adjusted = statistics.holm([p_value for _, _, p_value in tests])
        return [
            statistics.Pair(a.name, b.name, *test, p)
            for (a, b), test, p in zip(couples, tests, adjusted, strict=True)
        ]
