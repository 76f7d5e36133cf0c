"""Killed at random moments and typed again: the same results, byte for byte, and nothing left over.

pytest -m slow -n 0 tests/faults/test_kill.py    60 kills and more
"""

import json
import re
import shutil
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from mlflow import MlflowClient

from caltech.runs.directory import RunDirectory
from tests.forks import Driver, places

SWEEP = ["--multirun", "num_epochs=3", "batch_size=16", "device=cpu", "checkpoint_minutes=1e-6"]
SWEEP += ["model=timm", "model.name=test_resnet", "model.weights=null"]
SWEEP += ["data.resize=40", "data.crop=32"]
GRID = ["freeze=none,backbone", "lr=0.05,0.02"]
SEARCH = ["hydra/sweeper=optuna", "lr=tag(log, interval(0.001, 0.5))", "hydra.sweeper.n_trials=6"]
SEARCH += ["freeze=none", "pruner=median", "pruner.n_startup_trials=1", "pruner.n_warmup_steps=0"]
PARALLEL = [*GRID, "hydra/launcher=parallel", "hydra.launcher.n_jobs=2"]
LONG = [3600.0]  # seconds that the undisturbed may take: a busy machine is no failure
FILES = ("result.json", "last.safetensors", "best.safetensors", "predictions_last.npz")


@pytest.mark.parametrize(
    ("kind", "kills", "seed", "tracking"),
    [
        (["freeze=none", "lr=0.05,0.02"], 1, 0, "none"),
        pytest.param(GRID, 25, 1, "mlflow", marks=pytest.mark.slow, id="grid"),
        pytest.param(SEARCH, 15, 2, "mlflow", marks=pytest.mark.slow, id="search"),
        pytest.param(PARALLEL, 5, 3, "mlflow", marks=pytest.mark.slow, id="parallel"),
    ],
)
def test_kill_anywhere(forks, tree, tmp_path, capsys, kind, kills, seed, tracking):
    random = np.random.default_rng(seed)
    for name in ("undisturbed", "killed"):
        (tmp_path / name).mkdir()
    sweep = [*SWEEP, *kind, f"data.root={tree}"]
    command = [*sweep, *places(tmp_path / "undisturbed", tracking)]
    cold, warm = (forks.run([*command, f"study={i}"], kill_after=LONG)[0] for i in ("0", "1"))
    assert (cold.code, warm.code) == (0, 0), cold.output + warm.output
    survived = sweeps = attempts = 0
    runs = len(outcomes(cold.output))
    while survived < kills:
        # The first sweep also makes the store and the caches, which takes most of its time.
        longest = (warm if sweeps else cold).seconds
        command = [*sweep, *places(tmp_path / "killed", tracking), f"study={sweeps}"]
        moments = random.uniform(0.1, longest, 1000).tolist()
        killed, last = until_it_ends(forks, command, moments)
        survived, sweeps, attempts = survived + killed, sweeps + 1, attempts + killed + 1
        assert outcomes(last.output) == outcomes(cold.output)
        one, other = (tmp_path / "undisturbed" / "multirun" / "0", tmp_path / "killed")
        assert_same_runs(other / "multirun" / str(sweeps - 1), one)
    assert_nothing_left_over(tmp_path / "killed")
    if tracking == "mlflow":
        assert_mlflow_agrees(tmp_path / "killed", runs=runs * sweeps)
    with capsys.disabled():
        print(f"\n{survived} kills in {attempts} attempts at {sweeps} sweeps of {runs} runs")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["report", "safetensors", "onnx"])
def test_a_report_or_export_that_is_killed_leaves_nothing_behind(
    forks, finished, tmp_path, capsys, kind
):
    """And the next one is, byte for byte, what an undisturbed one is."""
    undisturbed, killed = (tmp_path / name for name in ("undisturbed", "killed"))
    for folder in (undisturbed, killed):
        shutil.copytree(finished.parent, folder / "default")

    def command(folder: Path) -> list[str]:
        if kind == "report":
            return [f"output={folder}", "study=default", "tracking=none"]
        to = f"to={folder}/exported"
        return [f"run={folder}/default/{finished.name}", f"format={kind}", "device=cpu", to]

    module = "caltech.report" if kind == "report" else "caltech.export"
    (expected,) = forks.run(command(undisturbed), module=module, kill_after=LONG)
    assert expected.code == 0, expected.output
    moments = np.random.default_rng(4).uniform(0.05, expected.seconds, 1000).tolist()
    survived = 0
    while survived < 10:
        now, _ = until_it_ends(forks, command(killed), moments[survived:], module=module)
        survived += now
        assert contents(killed) == contents(undisturbed)
        shutil.rmtree(killed / "exported", ignore_errors=True)
    with capsys.disabled():
        print(f"\n{survived} kills of {kind}")


def contents(folder: Path) -> dict[str, bytes]:
    """All files but the locks and logs of runs, without the folder's own name."""
    found = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
    own = str(folder).encode()
    return {
        str(path.relative_to(folder)): path.read_bytes().replace(own, b"FOLDER") for path in found
    }


def until_it_ends(started: Driver, command: list[str], moments: list[float], **details: str):
    """Type the command until it is not killed any more; how often it was, and its end."""
    for killed, moment in enumerate(moments):
        (ended,) = started.run(command, kill_after=[moment], **details)
        if ended.code != -9:
            assert ended.code == 0, ended.output
            return killed, ended
    raise AssertionError("it never ends")


def outcomes(output: str) -> list[tuple[str, ...]]:
    """The final table without its seconds and places."""
    lines = output[output.rindex("key  ") :].splitlines()[1:]
    found = [re.match(r"(\w+)  (\w+) +([\d.]+(?: best)?) +[\d.]+  ", line) for line in lines]
    return [match.groups() for match in found if match]


def assert_same_runs(found: Path, expected: Path) -> None:
    keys = {path.parent.name for path in expected.glob("*/result.json")}
    assert keys
    assert {path.parent.name for path in found.glob("*/result.json")} == keys
    for key in keys:
        names = {path.name for path in (expected / key).iterdir()}
        assert {path.name for path in (found / key).iterdir()} == names
        for name in names & set(FILES):
            assert (found / key / name).read_bytes() == (expected / key / name).read_bytes(), name


def processes_of(folder: Path) -> list[str]:
    """What runs still and was given this folder, as workers of a sweep are."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if str(folder).encode() in path.read_bytes():
                found.append(path.with_name("cmdline").read_text().replace("\0", " "))
    return found


def assert_nothing_left_over(folder: Path) -> None:
    end = time.monotonic() + 60
    while (left := processes_of(folder)) and time.monotonic() < end:
        time.sleep(1)
    assert not left
    assert not [path for path in folder.rglob("*") if path.name.endswith(".partial")]
    assert not list(folder.rglob("holder.json"))
    for path in folder.rglob("*.lock"):
        with FileLock(path, timeout=0):
            pass


def assert_mlflow_agrees(folder: Path, runs: int) -> None:
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("caltech")
    found = client.search_runs([experiment.experiment_id], max_results=1000)
    own = {}
    for run in found:
        directory = Path(run.data.tags["directory"])
        if RunDirectory(directory).id == run.data.tags["run"]:
            own[directory] = run
    states = [run.info.status for run in found]
    assert "RUNNING" not in states, states
    assert len(own) == runs
    for directory, run in own.items():
        assert run.info.status == "FINISHED"
        result = json.loads((directory / "result.json").read_text())
        if result["status"] == "finished":
            assert run.data.metrics["test/accuracy"] == result["last"]["test/accuracy"]
        history = client.get_metric_history(run.info.run_id, "val/loss")
        assert sorted(metric.step for metric in history) == [*range(1, result["last"]["epoch"] + 1)]
