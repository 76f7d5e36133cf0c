"""seeds=N: one point over several seeds, a run each, and their mean ± deviation."""

import statistics
from collections.abc import Sequence

from omegaconf import DictConfig, OmegaConf

from caltech.runs.directory import RunDirectory
from caltech.runs.result import Result, state_of
from caltech.sweeps.table import accuracy, aligned


def repeated(cfg: DictConfig) -> list[DictConfig]:
    """The config once for each of its seeds, each with its own key and directory."""
    if cfg.seeds is None:
        return [cfg]
    return [OmegaConf.merge(cfg, {"seed": seed, "seeds": None}) for seed in range(cfg.seeds)]


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float | None]:
    """Over seeds; the deviation is the sample's, and one value has none."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def tested(results: Sequence[Result]) -> float | None:
    """Mean test accuracy of the best epochs; None if a run was not tested, as a pruned one."""
    found = [result.best.get("test/accuracy") for result in results]
    return None if None in found else statistics.fmean(found)


def table(runs: Sequence[DictConfig], results: Sequence[Result]) -> str:
    """Accuracies: a line a seed, then the mean."""
    measured = {
        "validation (best)": [result.best["val/accuracy"] for result in results],
        "test (best)": [result.best["test/accuracy"] for result in results],
        "test (last)": [result.last["test/accuracy"] for result in results],
    }
    lines = [["seed", *measured, "key"]]
    for run, *values in zip(runs, *measured.values(), strict=True):
        lines.append([str(run.seed), *(f"{value:.4f}" for value in values), run.key])
    told = (accuracy(*mean_and_deviation(values)) for values in measured.values())
    return aligned([*lines, ["mean", *told, ""]])


def states(runs: Sequence[DictConfig]) -> str:
    """A line a seed: the run's key, whether it is new, resumable or finished, its directory."""
    lines = []
    for run in runs:
        seed = [f"seed={run.seed}"] if len(runs) > 1 else []
        lines.append([run.key, state_of([RunDirectory(run.directory)]), *seed, run.directory])
    return aligned(lines)
