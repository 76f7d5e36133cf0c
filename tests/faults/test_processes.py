"""Eight processes at once, on an empty cache and an empty store; and one of them is killed."""

import json
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.faults.forks import Driver, Ended, driver, places
from tests.faults.test_kill import assert_nothing_left_over

SMALL = ["model=timm", "model.name=test_resnet", "model.weights=null", "device=cpu"]
SMALL += ["data.resize=40", "data.crop=32", "batch_size=16", "num_epochs=3"]
PROCESSES = 8
RELEASE_SECONDS = 10.0  # a killed holder blocks nobody for longer (it is the system that lets go)

pytestmark = pytest.mark.slow


@pytest.fixture
def started(tree, tmp_path):
    with driver(tmp_path, CALTECH101_ROOT=str(tree)) as process:
        yield process


def statuses(folder: Path) -> list[str]:
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    experiment = client.get_experiment_by_name("caltech")
    return [run.info.status for run in client.search_runs([experiment.experiment_id])]


def assert_once(folder: Path, ended: list[Ended], runs: int) -> None:
    """Every run was computed by one process, and every cache was built by one."""
    results = list((folder / "multirun").glob("*/*/result.json"))
    assert len(results) == runs
    for path in results:
        assert json.loads(path.read_text())["key"] == path.parent.name
    said = "".join(one.output for one in ended)
    assert said.count("decoding 60 images once") == 1
    assert said.count("computing the frozen part's outputs") == 1
    assert said.count("epoch 3/3") == runs
    assert statuses(folder) == ["FINISHED"] * runs
    assert_nothing_left_over(folder)


def test_the_same_run(started: Driver, tmp_path):
    command = [*SMALL, *places(tmp_path)]
    ended = started.run(*[command] * PROCESSES)
    for one in ended:
        assert one.code == 0 or "is being computed by another process" in one.output, one.output
        assert "Traceback" not in one.output
    assert sum(one.code == 0 for one in ended) >= 1
    assert_once(tmp_path, ended, runs=1)


def test_the_same_sweep(started: Driver, tmp_path):
    command = ["--multirun", *SMALL, *places(tmp_path), "lr=0.1,0.05,0.02"]
    ended = started.run(*[command] * PROCESSES)
    for one in ended:  # a job that another process computes is told and is not the end
        assert one.code in (0, 1), one.output
        assert "Traceback" not in one.output, one.output
    assert_once(tmp_path, ended, runs=3)
    (again,) = started.run(command)
    assert again.code == 0 and again.output.count("is finished already") == 3


def test_different_runs(started: Driver, tmp_path):
    commands = [[*SMALL, *places(tmp_path), f"seed={seed}", "freeze=backbone"] for seed in range(8)]
    # From scratch another seed is another frozen part: eight feature caches, one pixel cache.
    ended = started.run(*commands)
    for one in ended:
        assert one.code == 0, one.output
    said = "".join(one.output for one in ended)
    assert said.count("decoding 60 images once") == 1
    assert said.count("computing the frozen part's outputs") == PROCESSES
    assert statuses(tmp_path) == ["FINISHED"] * PROCESSES
    assert_nothing_left_over(tmp_path)


def test_a_killed_holder_blocks_nobody(started: Driver, tmp_path):
    """It holds the run, or builds a cache or the store: another process goes on at once."""
    command = [*SMALL, *places(tmp_path), "num_epochs=100000"]
    for moment in (0.5, 2.0, 6.0):
        start = time.monotonic()
        (killed,) = started.run(command, kill_after=[moment])
        assert killed.code == -9
        second = started.run([*command[:-1], "num_epochs=3", f"seed={int(10 * moment)}"])[0]
        assert second.code == 0, second.output
        assert time.monotonic() - start < moment + second.seconds + RELEASE_SECONDS
    (same,) = started.run(command, kill_after=[8.0])
    assert "is being computed by another process" not in same.output
