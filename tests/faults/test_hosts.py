"""Two hosts, one tracking store; with and without a shared disk, and locks that reach the other.

pytest -m slow -n 0 tests/faults/test_hosts.py
"""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest
from mlflow import MlflowClient

from caltech.locks import remove_leftovers
from caltech.runs.directory import RunDirectory
from tests.faults.hosts import SERVER, host, machine, network, reason
from tests.faults.test_outage import Server
from tests.observers import TINY

pytestmark = pytest.mark.skipif(reason() is not None, reason=str(reason()))

EPOCHS = 12
LONG = [*TINY, "freeze=none", "device=cpu"]


class Two:
    """Two hosts called the same, whose process numbers collide, and what they share."""

    def __init__(self, folder: Path, stack: ExitStack, data: Path) -> None:
        self.folder, self.stack, self.data = folder, stack, data
        self.pool = ThreadPoolExecutor(2)
        self.uri, self.database = f"sqlite:///{folder}/mlflow.db", f"sqlite:///{folder}/mlflow.db"

    def start(self, *details: dict) -> None:
        made = [{"folder": self.folder, "hostname": "node", **each} for each in details]
        self.hosts = [self.stack.enter_context(host(**each)) for each in made]

    def command(self, output: Path, *own: str) -> list[str]:
        places = [f"output={output}", f"cache={self.folder}/cache"]
        places += [f"data.root={self.data}", f"tracking.artifacts={self.folder}/files"]
        return [*LONG, *places, f"tracking.uri={self.uri}", f"num_epochs={EPOCHS}", *own]

    def begin(self, number: int, command: Sequence[str], **details):
        return self.pool.submit(lambda: self.hosts[number].run(command, **details)[0])

    @property
    def runs(self):
        client = MlflowClient(self.database)
        experiment = client.get_experiment_by_name("caltech")
        return client.search_runs([experiment.experiment_id]) if experiment else []

    def statuses(self) -> set[str]:
        """Of all runs now, asked in a millisecond."""
        with suppress(sqlite3.Error), closing(sqlite3.connect(self.database[10:])) as base:
            return {status for (status,) in base.execute("SELECT status FROM runs")}
        return set()

    def epochs(self, run) -> list[int]:
        points = MlflowClient(self.database).get_metric_history(run.info.run_id, "val/loss")
        return [point.step for point in points]


@pytest.fixture
def two(tree, tmp_path) -> Iterator[Two]:
    with ExitStack() as stack:
        yield Two(tmp_path, stack, tree)


def until(condition) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def held(output: Path) -> Path | None:
    """The directory of a run that has a checkpoint and is computed now."""
    found = [path.parent for path in output.glob("default/*/checkpoint.pt")]
    return next((path for path in found if (path / "holder.json").exists()), None)


def test_a_file_in_flight_on_a_machine_of_the_same_name_and_process_number_stays(tmp_path):
    """Both are process 1 of a machine called node."""
    writes = (
        "import os, sys, time; from pathlib import Path; from caltech.locks import held_partial\n"
        "with held_partial(Path(sys.argv[1])):\n"
        "    print(os.uname().nodename, os.getpid(), flush=True)\n"
        "    time.sleep(60)\n"
    )
    removes = (
        "import os, sys; from pathlib import Path; from caltech.locks import remove_leftovers\n"
        "print(os.uname().nodename, os.getpid())\n"
        "remove_leftovers(Path(sys.argv[1]))\n"
    )
    with machine("node") as begin:
        command = [*begin, sys.executable, "-c", writes, str(tmp_path / "x")]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert writer.stdout.readline() == "node 1\n"
        other = [*begin, sys.executable, "-c", removes, str(tmp_path)]
        assert subprocess.check_output(other, text=True) == "node 1\n"
    assert len(list(tmp_path.glob(".x.*.partial"))) == 1
    writer.kill(), writer.wait(), writer.stdout.close()
    until(lambda: remove_leftovers(tmp_path) or not list(tmp_path.iterdir()))


@pytest.mark.slow
@pytest.mark.parametrize("store", ["database", "server"])
def test_the_same_path_without_a_shared_disk_is_two_runs(two, tmp_path, store):
    """And none of them is KILLED while it trains, whatever the other host begins."""
    (place := tmp_path / "output").mkdir()
    disks = [tmp_path / name for name in ("disk0", "disk1")]
    for disk in disks:
        disk.mkdir()
    server, names = two.stack.enter_context(network(2))
    two.start(*(
        {"namespace": name, "mounts": [(disk, place)]}
        for name, disk in zip(names, disks, strict=True)
    ))  # fmt: skip
    if store == "server":
        started = Server(tmp_path, ["ip", "netns", "exec", server])
        started.start()
        two.stack.callback(started.kill)
        two.database = f"sqlite:///{tmp_path}/server.db"
    seen = set()
    both = []
    for number in range(2):
        if store == "server":
            two.uri = f"http://{SERVER.format(number)}:{started.port}"
        both.append(two.begin(number, two.command(place)))
    while not all(each.done() for each in both):
        seen |= two.statuses()
        time.sleep(0.1)
    for each in both:
        assert each.result().code == 0, each.result().output
    assert "KILLED" not in seen and "FAILED" not in seen and "RUNNING" in seen
    runs = two.runs
    assert [run.info.status for run in runs] == ["FINISHED"] * 2
    assert [two.epochs(run) for run in runs] == [list(range(1, EPOCHS + 1))] * 2
    ids = {RunDirectory(path.parent).id for path in tmp_path.glob("disk?/default/*/result.json")}
    assert {run.data.tags["run"] for run in runs} == ids and len(ids) == 2
    one, other = [path.read_bytes() for path in tmp_path.glob("disk?/default/*/result.json")]
    assert one == other


@pytest.mark.slow
def test_a_living_run_of_a_machine_of_the_same_name_and_process_number_goes_on(two, tmp_path):
    """The other begins, ends and is refused the same run meanwhile; the dead one it closes."""
    two.start({}, {})
    place = tmp_path / "output"
    command = two.command(place, "lr=0.05", "num_epochs=9999", "checkpoint_minutes=1e-6")
    first = two.begin(0, command)
    until(lambda: held(place))
    living = RunDirectory(held(place))
    short = two.command(place, "lr=0.02", "num_epochs=1")
    assert two.begin(1, short).result().code == 0
    refused = two.begin(1, command).result()
    assert refused.code == 1 and "is being computed by another process" in refused.output
    told = [run for run in two.runs if run.data.tags["run"] == living.id]
    assert [run.info.status for run in told] == ["RUNNING"] and not first.done()
    os.kill(_outside(living), signal.SIGKILL)
    assert first.result().code == -9
    assert two.begin(1, [*short, "rerun=true"]).result().code == 0
    (told,) = [run for run in two.runs if run.data.tags["run"] == living.id]
    assert told.info.status == "KILLED" and '"host": "node"' in told.data.tags["failure"]
    assert not [path for path in living.path.iterdir() if path.name.endswith(".partial")]


def _outside(directory: RunDirectory) -> int:
    """Number of the process that computes a run, here; its host counts from 1."""
    own = json.loads(directory.holder.read_bytes())["pid"]
    named = re.compile(rf"^NSpid:\t\d+\t{own}$", re.MULTILINE)
    found = [path for path in Path("/proc").glob("[0-9]*/status") if named.search(path.read_text())]
    (path,) = found
    return int(path.parent.name)


@pytest.mark.slow
def test_locks_that_do_not_reach_the_other_host(two, tmp_path):
    """Each host's locks are its own: the first stops at its next checkpoint, the second ends it."""
    two.start({"has_locks": False}, {"has_locks": False})
    place, alone = tmp_path / "output", tmp_path / "alone"
    command = two.command(alone, "num_epochs=60", f"tracking.uri={two.uri}0")
    assert two.begin(1, command).result().code == 0
    command = two.command(place, "num_epochs=60")
    first = two.begin(0, command)
    until(lambda: held(place))
    second = two.begin(1, command).result()
    first = first.result()
    assert second.code == 0, second.output
    assert first.code == 1 and "was taken over by another process" in first.output
    assert "Traceback" not in first.output
    (run,) = two.runs
    assert run.info.status == "FINISHED" and two.epochs(run) == list(range(1, 61))
    for name in ("result.json", "best.safetensors", "predictions_last.npz"):
        (one,), (other,) = place.glob(f"default/*/{name}"), alone.glob(f"default/*/{name}")
        assert one.read_bytes() == other.read_bytes()
    assert json.loads(next(place.glob("default/*/mlflow.json")).read_text())["stores"]
