"""Eight processes at once, on an empty cache and an empty store; and one of them is killed."""

import json
from pathlib import Path

import pytest
from mlflow import MlflowClient

from tests.faults.test_kill import assert_nothing_left_over
from tests.forks import Driver, Ended, driver, places

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
    for one in ended:  # a job that another process computes is waited for
        assert one.code == 0, one.output
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
    """It builds the store or a cache, or computes: another that waits goes on, and so does it."""
    (alone,) = started.run([*SMALL, *places(tmp_path / "alone")])
    codes = set()
    for share in (0.2, 0.5, 0.8):
        command = [*SMALL, *places(tmp_path / f"{share}")]
        moment = share * alone.seconds
        killed, waiting = started.run(
            command, [*command, "seed=1"], kill_after=[moment, 300.0]
        )  # fmt: skip
        (again,) = started.run(command)
        codes.add(killed.code)
        assert killed.code in (-9, 0) and (waiting.code, again.code) == (0, 0), waiting.output
        # Both computed at the same time, so each may have had half of the machine.
        assert waiting.seconds < moment + 2 * alone.seconds + RELEASE_SECONDS
        assert again.seconds < alone.seconds + RELEASE_SECONDS
        assert statuses(tmp_path / f"{share}") == ["FINISHED"] * 2
        assert_nothing_left_over(tmp_path / f"{share}")
    assert -9 in codes  # one that had ended before was as fast as no other
