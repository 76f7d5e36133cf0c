"""A tracking server that dies in the middle of a training, and comes back or not.

OMP_NUM_THREADS=1 pytest -m slow -n 0 tests/faults/test_outage.py    prints what an outage costs
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from mlflow import MlflowClient

from caltech.errors import StoreError
from caltech.runs.directory import RunDirectory
from caltech.tracking.line import Line
from caltech.train import train
from tests.observers import TINY, Doing

EPOCHS = 400


class Server:
    """`mlflow server` on a port of its own, which may be killed, stopped and started again.

    Args:
        machine: begin of the command that starts it elsewhere, for whoever has its address.
    """

    def __init__(self, folder: Path, machine: Sequence[str] = ()) -> None:
        self.machine = [*machine]
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.folder, self.uri, self.process = folder, f"http://127.0.0.1:{self.port}", None

    def start(self) -> None:
        address = "0.0.0.0" if self.machine else "127.0.0.1"
        command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", address]
        command += ["--allowed-hosts", "*"] if self.machine else []
        command += ["--port", str(self.port), "--artifacts-destination"]
        command += [str(self.folder / "files"), "--backend-store-uri"]
        command += [f"sqlite:///{self.folder}/server.db"]
        quiet = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self.machine, *command], env=quiet, stdout=log, stderr=log, start_new_session=True
            )
        for _ in range(600):
            try:
                ask = f"import urllib.request as r; r.urlopen('{self.uri}/health', timeout=1)"
                subprocess.run([*self.machine, sys.executable, "-c", ask], check=True, stderr=-3)
                return
            except subprocess.CalledProcessError:
                time.sleep(0.1)
        raise TimeoutError((self.folder / "server.log").read_text())

    def signal(self, number: int) -> None:
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def server(tmp_path):
    made = Server(tmp_path)
    made.start()
    yield made
    made.kill()


@pytest.mark.slow
@pytest.mark.parametrize("harm", ["killed", "hanging"])
def test_a_server_dies_in_the_middle_and_comes_back(
    configure, server, tmp_path, capsys, caplog, monkeypatch, harm
):
    own = [*TINY, f"num_epochs={EPOCHS}", "tracking=mlflow", f"tracking.uri={server.uri}"]
    alone = configure(*TINY, f"num_epochs={EPOCHS}", "study=alone")
    start = time.monotonic()
    train(alone)
    undisturbed = time.monotonic() - start
    cfg = configure(*own)

    cost, use = [], Line.use

    def timed(line: Line, action) -> None:
        begun = time.monotonic()
        try:
            return use(line, action)
        except StoreError:
            cost.append(time.monotonic() - begun)
            raise

    monkeypatch.setattr(Line, "use", timed)

    def dies() -> None:
        server.kill() if harm == "killed" else server.signal(signal.SIGSTOP)

    start = time.monotonic()
    train(cfg, observer=Doing(dies, at_epoch=EPOCHS // 10))
    disturbed = time.monotonic() - start
    assert caplog.text.count("Nothing is lost") == 1
    server.start() if harm == "killed" else server.signal(signal.SIGCONT)
    train(cfg)
    client = MlflowClient(server.uri)
    experiment = client.get_experiment_by_name("caltech")
    (run,) = client.search_runs([experiment.experiment_id])
    assert experiment.artifact_location.startswith("mlflow-artifacts:")
    assert run.info.status == "FINISHED"
    points = client.get_metric_history(run.info.run_id, "val/loss")
    assert [point.step for point in points] == list(range(1, EPOCHS + 1))
    told = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert told == {path.name for path in RunDirectory(cfg.directory).artifacts()} != set()
    for name in ("result.json", "best.safetensors"):
        found = Path(cfg.directory, name).read_bytes()
        assert found == Path(alone.directory, name).read_bytes()
    with capsys.disabled():
        print(
            f"\n{EPOCHS} epochs: {undisturbed:.1f} s without a tracker, {disturbed:.1f} s with one "
            f"that is {harm} after a tenth of them; {len(cost)} tries in vain: {sum(cost):.2f} s"
        )
    assert sum(cost) < 15
    assert disturbed < undisturbed * 2 + 40
