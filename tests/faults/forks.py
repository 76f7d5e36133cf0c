"""A process that has imported everything forks a child for each command: 0.1 s instead of 5.

`python -m tests.faults.forks` reads a line of JSON, a list of jobs that run at the same time, and
answers with how each ended. It computes nothing itself, so that its children start clean.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.conftest import REPOSITORY

SHARED = ["device=cpu", "data=digits", "data.resize=32", "data.crop=32", "batch_size=128"]
TINY = [*SHARED, "model=timm", "model.name=test_resnet", "model.weights=null"]


@dataclass(frozen=True)
class Job:
    """`python -m caltech.train ARGUMENTS`, killed after so many seconds if it lives that long."""

    arguments: Sequence[str]
    log: str
    kill_after: float = 300.0


@dataclass(frozen=True)
class Ended:
    """Exit code as subprocess gives it (-9: killed), seconds it lived, what it printed."""

    code: int
    seconds: float
    output: str


class Driver:
    """The warmed process, as seen by a test."""

    def __init__(self, process: subprocess.Popen, folder: Path) -> None:
        self.process, self.folder, self.count = process, folder, 0

    def run(self, *commands: Sequence[str], kill_after: Sequence[float] = ()) -> list[Ended]:
        """Run the commands at the same time to their ends."""
        jobs = []
        for number, arguments in enumerate(commands):
            self.count += 1
            job = Job([*arguments], str(self.folder / f"log-{self.count}.txt"))
            if kill_after:
                job = Job(job.arguments, job.log, kill_after[number])
            jobs.append(job)
        self.process.stdin.write(json.dumps([asdict(job) for job in jobs]) + "\n")
        self.process.stdin.flush()
        answers = json.loads(self.process.stdout.readline())
        pairs = zip(jobs, answers, strict=True)
        return [Ended(*answer, Path(job.log).read_text()) for job, answer in pairs]


@contextlib.contextmanager
def driver(folder: Path, **environment: str) -> Iterator[Driver]:
    """Start the warmed process; its children work in `folder`."""
    own = {"OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
    own["PYTHONPATH"] = str(REPOSITORY)
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.forks"], cwd=folder, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | own | environment,
    )  # fmt: skip
    try:
        yield Driver(process, folder)
    finally:
        process.stdin.close()
        process.wait(timeout=30)
        process.stdout.close()


def places(folder: Path, tracking: str = "mlflow") -> list[str]:
    """Overrides that keep all that a command writes in `folder`."""
    own = [f"output={folder}/multirun", f"cache={folder}/cache", f"tracking={tracking}"]
    if tracking == "mlflow":
        own += [f"tracking.uri=sqlite:///{folder}/mlflow.db"]
        own += [f"tracking.artifacts={folder}/artifacts"]
    return own


def _start(job: Mapping[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(0)
        sys.argv = ["caltech.train", *job["arguments"]]
        from caltech.train import main

        main()
        code = 0
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _wait(pids: Sequence[int], jobs: Sequence[Mapping[str, Any]]) -> list[tuple[int, float]]:
    start, ended = time.monotonic(), {}
    while len(ended) < len(pids):
        for pid, job in zip(pids, jobs, strict=True):
            if pid in ended:
                continue
            found, status = os.waitpid(pid, os.WNOHANG)
            seconds = time.monotonic() - start
            if found:
                ended[pid] = (os.waitstatus_to_exitcode(status), seconds)
            elif seconds > job["kill_after"]:
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.002)
    return [ended[pid] for pid in pids]


def _serve() -> None:
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
    import safetensors.torch  # noqa: F401
    import sklearn.datasets  # noqa: F401
    import timm  # noqa: F401
    import torchvision.transforms.v2  # noqa: F401

    import caltech.train  # noqa: F401

    for line in sys.stdin:
        jobs = json.loads(line)
        print(json.dumps(_wait([_start(job) for job in jobs], jobs)), flush=True)


if __name__ == "__main__":
    _serve()
