"""How runs become rows, and rows tables: the study's own, and one of what a user varied."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from caltech.keys import ADDED
from caltech.report.rows import FINISHED, Published, Row, Run, Table

# Parameters that do not describe a row: seeds are together in it, others repeat, only name, or
# decide no result that counts.
NOT_SHOWN = ("seed", "log10_lr", "experiment", "sweep", "tracking", "pruner")


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
    """Whether a run's config is the experiment's.

    Keys that only newer code knows do not count; one that only the run has was added to it.
    """
    if run.point == experiment.point:
        return True
    if not run.config:  # its file is gone
        return run.experiment == experiment.experiment and not changes(run, experiment)
    return all(
        key in experiment.config and experiment.config[key] == value
        for key, value in run.config.items()
        if key != "seed"
    )


def study_tables(
    experiments: Sequence[Published], points: Sequence[tuple[Run, ...]], study: str
) -> tuple[list[Table], list[tuple[Run, ...]]]:
    """The tables that the study or a run claims, in their order, and the points of no table.

    An experiment with another model, or with other values, is a further row below the study's and
    is not compared with its numbers. Precision is how a row is computed and not what it is: in
    another one it is named so, and compared, and stands where the study's own row was not run.
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
            known = rows[experiment.experiment][0].runs  # by code that had fewer keys
            row = experiment_row(experiment, study, one_per_seed((*known, *runs)))
            rows[experiment.experiment][0] = row
            continue
        changed = changes(runs[0], experiment)
        name = f"{experiment.name} ({in_words(changed)})"
        numbers = experiment if changed.keys() == {"precision"} else None
        rows[experiment.experiment].append(Row(name, runs, runs[0].params, numbers))
    for group in rows.values():
        if not group[0].runs and any(row.published and row.finished for row in group[1:]):
            del group[0]
    tables = []
    for title in dict.fromkeys(e.table for e in experiments if e.table in claimed):
        own = [rows[e.experiment] for e in experiments if e.table == title]
        ordered = [group[0] for group in own] + [row for group in own for row in group[1:]]
        tables.append(Table(title, tuple(told_apart(ordered)), (), True))
    return tables, rest


def one_per_seed(runs: Iterable[Run]) -> tuple[Run, ...]:
    """The newest finished run of each seed, or else the newest."""
    by_seed: dict[int, Run] = {}
    for run in sorted(runs, key=lambda run: (run.status == FINISHED, run.started)):
        by_seed[run.seed] = run
    return tuple(by_seed[seed] for seed in sorted(by_seed))


def told_apart(rows: Sequence[Row]) -> list[Row]:
    """Rows of one name with the values behind it in which they differ."""
    alike = defaultdict(list)
    for row in rows:
        alike[row.name].append(row)
    names = {}
    for name, group in alike.items():
        if len(group) > 1 and all(row.runs for row in group):
            described = describe([row.runs for row in group])
            for row, values in zip(group, described, strict=True):
                names[id(row)] = f"{name}: {in_words(values)}"
    return [replace(row, name=names.get(id(row), row.name)) for row in rows]


def experiment_row(experiment: Published, study: str, runs: tuple[Run, ...] = ()) -> Row:
    """The row of the study itself, with the command that runs it."""
    command = f"python -m caltech.train experiment={experiment.experiment}"
    if study != experiment.study:
        command += f" study={quoted(study)}"
    return Row(experiment.name, runs, experiment.params, experiment, command)


def own_table(points: Sequence[tuple[Run, ...]], title: str) -> Table:
    """Rows named by the keys that differ, by validation accuracy; what does not count is last."""
    described = describe(points)
    columns = tuple(described[0]) if described else ()
    rows = []
    for runs, params in zip(points, described, strict=True):
        name = " ".join(f"{key}={value}" for key, value in params.items())
        name = name or runs[0].params.get("model", runs[0].key)
        rows.append(Row(name, runs, params or runs[0].params))
    rows.sort(key=lambda row: -(row.mean("val/best_accuracy") or -1.0))
    if columns:
        rows = [replace(row, name=f"{number}: {row.name}") for number, row in enumerate(rows, 1)]
    return Table(title, tuple(rows), columns, False)


def describe(points: Sequence[tuple[Run, ...]]) -> list[dict[str, str]]:
    """For each point the values that differ: parameters, and config keys that these do not tell."""
    flats = []
    for runs in points:
        params = {group: option for group, (option, _) in ADDED.items()} | runs[0].params
        params = {k: v for k, v in params.items() if k not in NOT_SHOWN}
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


def changes(run: Run, experiment: Published) -> dict[str, str]:
    """What a run changes of an experiment: parameters, and config keys that these do not tell."""
    changed = {
        name: value
        for name, value in run.params.items()
        if name not in NOT_SHOWN and experiment.params.get(name, value) != value
    }
    for name, value in run.config.items():
        group, _, leaf = name.partition(".")
        told = bool({"seed", *changed} & {group, leaf})  # model=resnet50 tells of model.name,
        if name == "model.name":  # but model=timm does not
            told = value == changed.get("model")
        if not told and (name not in experiment.config or experiment.config[name] != value):
            changed[name] = shown(value)
    return changed


def in_words(changed: Mapping[str, str]) -> str:
    """As few words as tell it, the model's name first."""
    words = [value if name == "model" else f"{name}={value}" for name, value in changed.items()]
    return ", ".join(sorted(words, key=lambda word: "=" in word))


def shown(value: Any) -> str:
    """A config's value as it is typed."""
    if isinstance(value, list):
        return "[" + ",".join(map(shown, value)) + "]"
    return (
        str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)
    )


def quoted(value: str) -> str:
    """A value as Hydra and a shell both take it."""
    plain = value.replace("_", "").replace("-", "").isalnum() and value.isascii()
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("'", "'\"'\"'")
    return value if plain else f"'\"{escaped}\"'"
