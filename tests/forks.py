"""A process that has imported everything forks a child for each command: 0.1 s instead of 5.

`python -m tests.forks` reads a line of JSON, a list of jobs that run at the same time, and
answers with how each ended. It computes nothing itself, so that its children start clean; it
composes one config, so that Hydra has found its plugins and read its grammar.
"""

import contextlib
import json
import os
import runpy
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent

SHARED = ["device=cpu", "data=digits", "data.resize=32", "data.crop=32", "batch_size=128"]
TINY = [*SHARED, "model=timm", "model.name=test_resnet", "model.weights=null"]


@dataclass(frozen=True)
class Job:
    """`python -m MODULE ARGUMENTS`, killed after so many seconds if it lives that long."""

    arguments: Sequence[str]
    log: str
    kill_after: float = 300.0
    signal_at: tuple[str, int] | None = None  # a text, and the signal to send once it is printed
    module: str = "caltech.train"
    environment: Mapping[str, str] = field(default_factory=dict)


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

    def run(
        self, *commands: Sequence[str], kill_after: Sequence[float] = (), **details: Any
    ) -> list[Ended]:
        """Run the commands at the same time to their ends; `details` are fields of Job."""
        jobs = []
        for number, arguments in enumerate(commands):
            self.count += 1
            job = Job([*arguments], str(self.folder / f"log-{self.count}.txt"), **details)
            jobs.append(replace(job, kill_after=kill_after[number]) if kill_after else job)
        self.process.stdin.write(json.dumps([asdict(job) for job in jobs]) + "\n")
        self.process.stdin.flush()
        answers = json.loads(self.process.stdout.readline())
        pairs = zip(jobs, answers, strict=True)
        return [Ended(*answer, Path(job.log).read_text()) for job, answer in pairs]


@contextlib.contextmanager
def driver(folder: Path, machine: Sequence[str] = (), **environment: str) -> Iterator[Driver]:
    """Start the warmed process; its children work in `folder`.

    Args:
        machine: begin of the command that starts it, elsewhere.
    """
    own = {"OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
    own["PYTHONPATH"] = str(REPOSITORY)
    process = subprocess.Popen(
        [*machine, sys.executable, "-m", "tests.forks"], cwd=folder, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | own | environment,
    )  # fmt: skip
    try:
        yield Driver(process, folder)
    finally:
        process.stdin.close()
        process.wait(timeout=300)  # a busy machine
        process.stdout.close()


def places(folder: Path, tracking: str = "mlflow") -> list[str]:
    """Overrides that keep all that a command writes in `folder`."""
    own = [f"output={folder}/multirun", f"cache={folder}/cache", f"tracking={tracking}"]
    if tracking == "mlflow":
        own += [f"tracking.uri=sqlite:///{folder}/mlflow.db"]
        own += [f"tracking.artifacts={folder}/artifacts"]
    return own


def _start(job: dict[str, Any]) -> int:
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    pid = os.fork()
    if pid:
        os.close(log)
        return pid
    code = 70
    try:
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.close(0)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
        sys.argv = [job["module"], *job["arguments"]]
        os.environ.update(job["environment"])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # it is imported already
            runpy.run_module(job["module"], run_name="__main__", alter_sys=True)
        code = 0
    except SystemExit as error:
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _wait(pids: Sequence[int], jobs: Sequence[dict[str, Any]]) -> list[tuple[int, float]]:
    start, ended = time.monotonic(), {}
    while len(ended) < len(pids):
        for pid, job in zip(pids, jobs, strict=True):
            if pid in ended:
                continue
            found, status = os.waitpid(pid, os.WNOHANG)
            seconds = time.monotonic() - start
            if found:
                ended[pid] = (os.waitstatus_to_exitcode(status), seconds)
            elif job["signal_at"] and job["signal_at"][0] in Path(job["log"]).read_text():
                os.kill(pid, job["signal_at"][1])
                job["signal_at"] = None
            elif seconds > job["kill_after"]:
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.002)
    return [ended[pid] for pid in pids]


def _serve() -> None:
    import hydra_plugins.hydra_optuna_sweeper._impl  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
    import optuna.importance  # noqa: F401
    import safetensors.torch  # noqa: F401
    import sklearn.datasets  # noqa: F401
    import timm  # noqa: F401
    import torch._inductor.standalone_compile  # noqa: F401  what each optimizer imports, 1.5 s
    import torchvision.transforms.v2  # noqa: F401
    from hydra import compose, initialize_config_dir

    import caltech.train  # noqa: F401
    from caltech.config import register
    from caltech.settings import CONF

    register()
    with initialize_config_dir(config_dir=str(CONF)):
        compose("train")
    for line in sys.stdin:
        jobs = json.loads(line)
        print(json.dumps(_wait([_start(job) for job in jobs], jobs)), flush=True)


if __name__ == "__main__":
    _serve()
