"""How runs become rows, and rows tables: the study's own, and one of what a user varied."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from caltech.keys import ADDED, decisive, point_key
from caltech.report.rows import Published, Row, Table
from caltech.report.sources.asked import FROM
from caltech.report.sources.options import GROUPS
from caltech.report.trained import FINISHED, Run, flat
from caltech.runs.known import typed
from caltech.settings import CONF
from caltech.tracking.description import PLACES, chosen, hyperparameters

# Parameters that do not describe a row: seeds are together in it, others repeat, only name, or
# decide no result that counts.
NOT_SHOWN = ("seed", "split.seed", "log10_lr", "experiment", "sweep", "tracking", "pruner")
# Names in the experiments' files, and as metrics.
NUMBERS = {
    "train_loss": "train/loss_last_step",
    "val_accuracy": "val/accuracy",
    "test_accuracy": "test/accuracy",
    "test_accuracy_per_class": "test/accuracy_per_class",
}


def experiments(order: Sequence[str]) -> list[Published]:
    """Of every file in conf/experiment that names its table; first those of `order`, in it."""
    folder = CONF / "experiment"
    found = [str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml")]
    listed = [name for name in order if name in found]
    names = listed + sorted(set(found) - set(listed))
    # A command has initialised Hydra with conf/ already, and Hydra takes that once.
    is_ready = GlobalHydra.instance().is_initialized()
    with nullcontext() if is_ready else initialize_config_dir(config_dir=str(CONF)):
        composed = [_experiment(name) for name in names]
    return [experiment for experiment in composed if experiment is not None]


def _experiment(name: str) -> Published | None:
    cfg = compose("train", [f"experiment={name}"], return_hydra_config=True)
    if cfg.published is None:
        return None
    published = OmegaConf.to_container(cfg.published, resolve=True)
    # With those that it does not use: another schedule= makes a run use them.
    params = {name: cfg[name] for name in PLACES.values()}
    params |= hyperparameters(decisive(cfg)) | chosen(cfg.hydra.runtime.choices)
    errata = published.get("errata", ())
    return Published(
        experiment=name,
        point=point_key(cfg),
        study=cfg.study,
        table=published["table"],
        name=published["row"],
        numbers={NUMBERS[key]: value for key, value in published.items() if key in NUMBERS},
        protocol=published.get("protocol") or {},
        errata=tuple(NUMBERS[key] for key in errata),
        params={key: str(value) for key, value in params.items()},
        config=flat(decisive(cfg)),
        elsewhere=tuple(published.get("elsewhere", ())),
        seeds=published.get("seeds"),
    )


def arrange(runs: Iterable[Run], experiments: Sequence[Published], *studies: str) -> list[Table]:
    """The tables that a study or a run claims, in order, and of all other runs one a data set.

    An experiment with another model, or with other values, is a further row below the study's and
    is not compared with its numbers. Precision is how a row is computed and not what it is: in
    another one it is named so, and compared, and stands where the study's own row was not run.
    """
    rows = {each.experiment: [_experiment_row(each, studies)] for each in experiments}
    claimed = {each.table for each in experiments if each.study in studies}
    points, rest = defaultdict(list), []
    for run in runs:  # some of an experiment's are by code that had fewer keys
        own = next((each.experiment for each in experiments if _is_of(run, each)), run.point)
        points[own, run.params.get(FROM)].append(run)  # of two studies that differ, in two rows
    for number, seeds in (pair for each in points.values() for pair in enumerate(_rows_of(each))):
        same = [each for each in experiments if _is_of(seeds[0], each)]
        named = [each for each in experiments if each.experiment == seeds[0].experiment]
        if not same and not named:
            rest.append(seeds)
            continue
        experiment = (same or named)[0]
        claimed.add(experiment.table)
        group = rows[experiment.experiment]
        if same and number == 0:
            group += [_experiment_row(experiment, studies, seeds)]
            if not group[0].runs:  # the row that stood for what was not run
                del group[0]
            continue
        changed = {"split.seed": _split_of(seeds)} if same else _changes(seeds[0], experiment)
        name = f"{experiment.name} ({_in_words(changed)})"
        numbers = experiment if changed.keys() == {"precision"} else None
        group.append(Row(name, seeds, seeds[0].params, numbers))
    for group in rows.values():
        if not group[0].runs and any(row.published and row.finished for row in group[1:]):
            del group[0]
    tables = []
    for title in dict.fromkeys(each.table for each in experiments if each.table in claimed):
        groups = [rows[each.experiment] for each in experiments if each.table == title]
        ordered = [group[0] for group in groups] + [row for group in groups for row in group[1:]]
        tables.append(Table(title, tuple(_told_apart(ordered)), (), True))
    return tables + _own_tables(rest, "Further runs" if tables else "Runs")


def _one_per_seed(runs: Iterable[Run]) -> tuple[Run, ...]:
    """By seed and split, of each the newest finished run, or else the newest; keys may differ."""
    by_seed = {}
    for run in sorted(runs, key=lambda run: (run.status == FINISHED, run.started)):
        by_seed[run.seed, run.split_seed or 0] = run
    return tuple(by_seed[seeds] for seeds in sorted(by_seed))


def _rows_of(runs: Iterable[Run]) -> list[tuple[Run, ...]]:
    """Runs of one config in rows, in each of which seeds vary, or splits, or both as one.

    If some have a split for each seed and others one split for all, ± over both would be of
    neither: the first are a row, and so are those of each split.
    """
    kept, by_split = _one_per_seed(runs), defaultdict(list)
    for run in kept:
        by_split[run.split_seed].append(run)
    if len(by_split) in (1, len(kept)):
        return [kept]
    each_its_own = tuple(run for run in kept if run.seed == run.split_seed)
    of_one = [tuple(same) for split, same in by_split.items() if {r.seed for r in same} != {split}]
    is_crossed = len({tuple(run.seed for run in same) for same in by_split.values()}) == 1
    return of_one if is_crossed or len(each_its_own) < 2 else [each_its_own, *of_one]


def _origin(runs: Sequence[Run]) -> tuple[str, str | None]:
    """The point of a row, and of several studies those that it is from."""
    return runs[0].point, runs[0].params.get(FROM)


def _split_of(runs: Sequence[Run]) -> str:
    """The seed of a row's split as it is typed."""
    return str(runs[0].split_seed) if len({run.split_seed for run in runs}) == 1 else "${seed}"


def _is_of(run: Run, experiment: Published) -> bool:
    """Whether a run's config is the experiment's.

    Keys that only newer code knows do not count; one that only the run has was added to it.
    """
    if run.point == experiment.point:
        return True
    if not run.config:  # its file is not here
        return run.experiment == experiment.experiment and not _changes(run, experiment)
    return all(
        key in experiment.config and experiment.config[key] == value
        for key, value in run.config.items()
        if key not in ("seed", "split.seed")
    )


def _experiment_row(
    experiment: Published, studies: Sequence[str], runs: tuple[Run, ...] = ()
) -> Row:
    """The row of the study itself, with the command that runs it."""
    command = f"python -m caltech.train experiment={experiment.experiment}"
    if experiment.seeds is not None:
        command += f" seeds={experiment.seeds}"
    if experiment.study not in studies:
        command += f" {typed(studies[0])}"
    return Row(experiment.name, runs, experiment.params, experiment, command)


def _told_apart(rows: Sequence[Row]) -> Iterator[Row]:
    """Rows of one name with the values behind it in which they differ."""
    alike = defaultdict(list)
    for row in rows:
        alike[row.name].append(row.runs)
    told = {
        name: iter(_described(points) if len(points) > 1 and all(points) else ())
        for name, points in alike.items()
    }
    for row in rows:
        values = next(told[row.name], None)
        yield replace(row, name=f"{row.name}: {_in_words(values)}") if values else row


def _own_tables(points: Sequence[tuple[Run, ...]], title: str) -> list[Table]:
    """A table for each data set: an accuracy on digits says nothing beside one on photographs."""
    by_data = defaultdict(list)
    for runs in points:
        by_data[(runs[0].data or {}).get("name", "")].append(runs)
    if len(by_data) == 1:
        return [_own_table(points, title)]
    return [
        _own_table(same, f"{title} on {name or 'unknown data'}") for name, same in by_data.items()
    ]


def _own_table(points: Sequence[tuple[Run, ...]], title: str) -> Table:
    """Rows named by the keys that differ, by validation accuracy; what does not count is last."""
    described = _described(points)
    columns = tuple(described[0]) if described else ()
    rows = []
    for runs, params in zip(points, described, strict=True):
        name = " ".join(f"{key}={value}" for key, value in params.items())
        name = name or runs[0].params.get("model", runs[0].key)
        rows.append(Row(name, runs, params or runs[0].params))
    rows.sort(key=lambda row: -(row.score or -1.0))
    if columns:
        rows = [replace(row, name=f"{number}: {row.name}") for number, row in enumerate(rows, 1)]
    return Table(title, tuple(rows), columns, False)


def _described(points: Sequence[tuple[Run, ...]]) -> list[dict[str, str]]:
    """For each point the values that differ: parameters, and config keys that these do not tell."""
    flats, rows_of = [], Counter(map(_origin, points))
    for runs in points:
        added = {name: option for name, (option, _) in ADDED.items()}
        params = {name: added.pop(name) for name in ADDED if name in GROUPS} | runs[0].params
        params = {k: v for k, v in params.items() if k not in NOT_SHOWN}
        deeper = {k: shown(v) for k, v in runs[0].config.items() if k not in NOT_SHOWN}
        if rows_of[_origin(runs)] > 1:
            deeper["split.seed"] = _split_of(runs)
        flats.append(params | {k: v for k, v in (added | deeper).items() if k not in params})
    names = list(dict.fromkeys(name for flat in flats for name in flat))
    parameters = {name for runs in points for name in runs[0].params}
    chosen: list[str] = []

    def distinct(keys: Sequence[str]) -> int:
        return len({tuple(flat.get(key) for key in keys) for flat in flats})

    for name in names:
        # What an optimizer or a schedule does not have is no difference of its own.
        own = [flat for flat in flats if name in flat or name not in PLACES.values()]
        differs = len({flat.get(name) for flat in own}) > 1
        # A key is told by others of its group, or by the parameter that it takes its value from;
        # not by what happens to differ with it.
        group, leaf = name.partition(".")[0], name.rpartition(".")[2]
        related = [each for each in chosen if each == leaf or each.partition(".")[0] == group]
        if differs and (name in parameters or distinct([*related, name]) > distinct(related)):
            chosen.append(name)
    return [{name: flat.get(name, "") for name in chosen} for flat in flats]


def _changes(run: Run, experiment: Published) -> dict[str, str]:
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


def _in_words(changed: Mapping[str, str]) -> str:
    """As few words as tell it, the model's name first."""
    words = [value if name == "model" else f"{name}={value}" for name, value in changed.items()]
    return ", ".join(sorted(words, key=lambda word: "=" in word))


def shown(value: Any) -> str:
    """A config's value as it is typed."""
    if isinstance(value, list):
        return f"[{','.join(map(shown, value))}]"
    return value if isinstance(value, str) else json.dumps(value)
