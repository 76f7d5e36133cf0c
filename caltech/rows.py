"""What a report is made of: runs, and rows, each of which is all seeds of one config."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from caltech import intervals

FINISHED = "finished"
# Metrics of an epoch that a report shows.
EPOCH_METRICS = (
    "train/loss",
    "train/loss_last_step",
    "train/accuracy",
    "val/loss",
    "val/accuracy",
    "lr",
)
# Parameters that do not describe a row: seeds are together in it, others repeat or only name.
NOT_SHOWN = ("seed", "log10_lr", "experiment", "sweep", "tracking")


@dataclass(frozen=True, eq=False)
class Predictions:
    """Answers on the test images, each (n,): the image, its label, last and best epoch's class."""

    indices: np.ndarray
    labels: np.ndarray
    last: np.ndarray
    best: np.ndarray
    confidences: np.ndarray  # probability of the last epoch's class, to four decimals

    @cached_property
    def correct(self) -> np.ndarray:
        """Whether the last epoch's answer is the label, (n,) bool."""
        return self.last == self.labels


@dataclass(frozen=True)
class Run:
    """One tracked training: one seed of a row."""

    key: str
    point: str  # the key without the seed
    status: str  # finished, pruned, running, failed, killed
    reason: str  # why it failed
    started: int  # ms since 1970
    params: dict[str, str]
    config: dict[str, Any]  # what decides the result, flat: optimizer.lr
    metrics: dict[str, float]
    history: dict[str, list[float]]  # by epoch
    seconds: float | None
    environment: dict[str, str]
    code: dict[str, str]  # git and sha256
    data: dict[str, Any]  # as run.describe_data gives, or less for runs of older code
    experiment: str | None
    predictions: Predictions | None = field(default=None, repr=False, compare=False)

    def plain(self) -> dict[str, Any]:
        """For JSON; predictions are kept apart."""
        return asdict(self) | {"predictions": None}

    @property
    def seed(self) -> int:
        return int(self.params["seed"])

    @property
    def epochs(self) -> int:
        """How many epochs were told of."""
        return len(self.history["val/accuracy"])

    def number(self, name: str) -> float | None:
        """A final metric, or the last epoch's value; None for what an older run did not tell."""
        if name in self.metrics:
            return self.metrics[name]
        values = self.history.get(name)
        return values[-1] if values else None


@dataclass(frozen=True)
class Published:
    """One experiment of conf/experiment: a row of the study, or a row of ours in its table."""

    experiment: str
    point: str
    study: str
    table: str
    name: str
    numbers: dict[str, float]  # train/loss_last_step, val/accuracy, test/accuracy
    errata: tuple[str, ...]
    params: dict[str, str]
    config: dict[str, Any]


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

    @cached_property
    def predictions(self) -> Predictions | None:
        return self.first.predictions if self.finished else None

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
    def mean_seconds(self) -> float | None:
        """Training time of a seed."""
        seconds = [run.seconds for run in self.finished if run.seconds is not None]
        return float(np.mean(seconds)) if seconds else None

    def interval(self, name: str) -> intervals.Interval | None:
        """Of an accuracy, from images and seeds; of a loss, from seeds alone."""
        values = self.values(name)
        if not values:
            return None
        if "accuracy" not in name:
            return intervals.over_seeds(values) if len(values) > 1 else None
        part = "test" if name.startswith("test/") else "validation"
        count = self.first.data.get("images", {}).get(part)
        return intervals.of_accuracy(values, count) if count else None


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
        """The finished row with the best validation accuracy of any epoch: the test has no say."""
        return max(self.finished, key=lambda row: row.mean("val/best_accuracy"))


def newest(runs: Iterable[Run]) -> list[Run]:
    """One run of each key: the newest finished one, or else the newest."""
    by_key: dict[str, Run] = {}
    for run in sorted(runs, key=lambda run: (run.status == FINISHED, run.started)):
        by_key[run.key] = run
    return list(by_key.values())


def by_point(runs: Iterable[Run]) -> list[tuple[Run, ...]]:
    """Runs that differ in their seed alone, together and by seed."""
    points = defaultdict(list)
    for run in sorted(runs, key=lambda run: (run.started, run.key)):
        points[run.point].append(run)
    return [tuple(sorted(runs, key=lambda run: run.seed)) for runs in points.values()]


def is_of(run: Run, experiment: Published) -> bool:
    """Whether a run's config is the experiment's; keys that only newer code knows do not count."""
    if run.point == experiment.point:
        return True
    if not run.config:  # its file is gone
        return run.experiment == experiment.experiment and not variation(run, experiment)
    shared = (run.config.keys() & experiment.config.keys()) - {"seed"}
    return all(run.config[key] == experiment.config[key] for key in shared)


def study_tables(
    experiments: Sequence[Published], points: Sequence[tuple[Run, ...]], study: str
) -> tuple[list[Table], list[tuple[Run, ...]]]:
    """The tables that the study or a run claims, in their order, and the points of no table.

    An experiment with another model, or with other values, is a further row below the study's and
    is not compared with its numbers.
    """
    rows = {
        experiment.experiment: [experiment_row(experiment, study)] for experiment in experiments
    }
    claimed = {experiment.table for experiment in experiments if experiment.study == study}
    rest = []
    for runs in points:
        same = [e for e in experiments if is_of(runs[0], e)]
        named = [e for e in experiments if e.experiment == runs[0].experiment]
        if not same and not named:
            rest.append(runs)
            continue
        experiment = (same or named)[0]
        claimed.add(experiment.table)
        if same:
            row = experiment_row(experiment, study, runs)
            rows[experiment.experiment][0] = row
        else:
            name = f"{experiment.name} ({variation(runs[0], experiment)})"
            rows[experiment.experiment].append(Row(name, runs, runs[0].params))
    tables = []
    for title in dict.fromkeys(e.table for e in experiments if e.table in claimed):
        own = [rows[e.experiment] for e in experiments if e.table == title]
        ordered = [group[0] for group in own] + [row for group in own for row in group[1:]]
        tables.append(Table(title, tuple(ordered), (), True))
    return tables, rest


def experiment_row(experiment: Published, study: str, runs: tuple[Run, ...] = ()) -> Row:
    """The row of the study itself, with the command that runs it."""
    command = f"python -m caltech.train experiment={experiment.experiment}"
    if study != experiment.study:
        command += f" study={quoted(study)}"
    return Row(experiment.name, runs, experiment.params, experiment, command)


def quoted(value: str) -> str:
    """A value as Hydra and a shell both take it."""
    plain = value.replace("_", "").replace("-", "").isalnum() and value.isascii()
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("'", "'\"'\"'")
    return value if plain else f"'\"{escaped}\"'"


def variation(run: Run, experiment: Published) -> str:
    """What a run changes of an experiment, in as few words as tell it."""
    changed = [
        value if name == "model" else f"{name}={value}"
        for name, value in run.params.items()
        if name not in NOT_SHOWN and experiment.params.get(name, value) != value
    ]
    deeper = [
        f"{name}={shown(value)}"
        for name, value in run.config.items()
        if name != "seed" and experiment.config.get(name, value) != value
    ]
    return ", ".join(sorted(changed, key=lambda word: "=" in word) or deeper)


def shown(value: Any) -> str:
    """A config's value as it is typed."""
    if isinstance(value, list):
        return "[" + ",".join(map(shown, value)) + "]"
    return (
        str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)
    )


def own_table(points: Sequence[tuple[Run, ...]], title: str) -> Table:
    """Rows named by the keys that differ, by validation accuracy; what does not count is last."""
    described = describe(points)
    columns = tuple(described[0]) if described else ()
    rows = []
    for runs, params in zip(points, described, strict=True):
        name = " ".join(f"{key}={value}" for key, value in params.items())
        rows.append(Row(name or runs[0].params.get("model", runs[0].key), runs, params))
    rows.sort(key=lambda row: -(row.mean("val/best_accuracy") or -1.0))
    return Table(title, tuple(rows), columns, False)


def describe(points: Sequence[tuple[Run, ...]]) -> list[dict[str, str]]:
    """For each point the values that differ: parameters, and config keys that these do not tell."""
    flats = []
    for runs in points:
        params = {k: v for k, v in runs[0].params.items() if k not in NOT_SHOWN}
        deeper = {k: shown(v) for k, v in runs[0].config.items() if k != "seed"}
        flats.append(params | {k: v for k, v in deeper.items() if k not in params})
    names = list(dict.fromkeys(name for flat in flats for name in flat))
    parameters = {name for runs in points for name in runs[0].params}
    chosen: list[str] = []

    def distinct(keys: Sequence[str]) -> int:
        return len({tuple(flat.get(key) for key in keys) for flat in flats})

    for name in names:
        differs = distinct([name]) > 1
        if differs and (name in parameters or distinct([*chosen, name]) > distinct(chosen)):
            chosen.append(name)
    return [{name: flat.get(name, "") for name in chosen} for flat in flats]


def flat(config: Mapping[str, Any]) -> dict[str, Any]:
    """Nested keys joined by dots; lists are values."""
    leaves: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            leaves |= {f"{name}.{inner}": leaf for inner, leaf in flat(value).items()}
        else:
            leaves[name] = value
    return leaves
