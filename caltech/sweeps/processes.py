"""One run, one process: what torchrun, srun or mpirun start several times is told so.

The processes of a parallel sweep end with the command that started them, and a command learns of
the end of its jobs. What a launcher raises of one that it lost becomes one sentence.
"""

import logging
import os
import re
import shlex
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra_plugins.hydra_joblib_launcher.joblib_launcher import JoblibLauncher
from hydra_plugins.hydra_submitit_launcher.submitit_launcher import SlurmLauncher
from tqdm import tqdm

from caltech.errors import CaltechError, HeldError, InputError

log = logging.getLogger(__name__)

# How many processes srun, Open MPI and MPICH started; each may have been given a run of its own.
TASKS = ("SLURM_STEP_NUM_TASKS", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")
MANY = (
    "A run takes one process. For many runs at a time type --multirun, the values to sweep over, "
    "and hydra/launcher=parallel (a run a GPU or core) or hydra/launcher=slurm (a run a job)."
)
# Of this user those alone that have not ended, also where they wait for a node to be switched on.
SQUEUE = f"squeue --user={os.getuid()} --array --format='%i|%T|%N'"
WATCH_SECONDS = 60  # between looks, at most
SQUEUE_HEAD, SACCT_HEAD = "JOBID|STATE|NODELIST", "JobID|State|NodeList"
KEPT = "What was computed is kept; the same command computes what is left."
# submitit's, of a job that SLURM does not have any more, and of one that raised an error; the rest
# names pickles and logs.
NO_ANSWER = re.compile(r"Job (\S+) .*has not produced any output \(state: (.+?)\)", re.DOTALL)
REFUSED = re.compile(r"sbatch: error: (.+)")
RAISED = re.compile(r"failed during processing with trace:\n-+\n(.*?)\n-+\n", re.DOTALL)

# What sbatch says, and what decides it: the first that fits.
KEYS = {
    "cpu count": "hydra.launcher.cpus_per_task=N, no more than a node has cores",
    "generic resource": "hydra.launcher.gpus_per_node=N, or null where nodes have no GPUs",
    "memory": "hydra.launcher.mem_gb=N, no more than a node has",
    "node configuration": "other hydra.launcher.cpus_per_task, gpus_per_node or mem_gb",
    "time limit": "hydra.launcher.timeout_min=N, no more than the partition allows",
    "account": "hydra.launcher.account=NAME",
    "partition": "hydra.launcher.partition=NAME, one of those that sinfo lists",
}


@contextmanager
def one_process(environment: Mapping[str, str]) -> Iterator[None]:
    """Refuse to be one of several processes that would compute the same run.

    Raises:
        InputError: torchrun, or what sets WORLD_SIZE as it does, started them.
        HeldError: another of them computes the run, and names what started them.
    """
    if (size := environment.get("WORLD_SIZE", "")) not in ("", "0", "1"):
        raise InputError(
            f"{size} processes of this command were started (WORLD_SIZE={size}, as torchrun sets "
            f"it). {MANY} If this is the only process, unset WORLD_SIZE."
        )
    try:
        yield
    except HeldError as error:
        for name in TASKS:
            if (size := environment.get(name, "1")) != "1":
                raise HeldError(
                    f"{error} {size} processes of this command were started ({name}={size}): type "
                    f"srun -n 1 or mpirun -n 1. {MANY}"
                ) from error
        raise


def tie(launcher: Launcher) -> None:
    """Have this command and the processes of its launcher learn of each other's end."""
    if isinstance(launcher, JoblibLauncher):
        launcher.joblib = ending_with_this(launcher.joblib)
    elif isinstance(launcher, SlurmLauncher):
        watch_slurm()


def watch_slurm() -> None:
    """Have submitit ask squeue where SLURM has no accounting, and wait for every job.

    By itself it asks sacct alone, and would wait for ever for a job that was cancelled; and it
    gives up at the first that is gone, while the others run. Such a job is a failed one.
    """
    from submitit.core.core import Job
    from submitit.core.utils import UncompletedJobError
    from submitit.slurm.slurm import SlurmInfoWatcher, SlurmJob

    class Watcher(SlurmInfoWatcher):
        def _make_command(self) -> list[str] | None:
            sacct = super()._make_command()
            return sacct and ["sh", "-c", f"{shlex.join(sacct)} 2>/dev/null || {SQUEUE}"]

        def read_info(self, string: bytes | str) -> dict[str, dict[str, str]]:
            told = string if isinstance(string, str) else string.decode()
            if not told.startswith(SQUEUE_HEAD):
                return super().read_info(told)
            queued = super().read_info(told.replace(SQUEUE_HEAD, SACCT_HEAD, 1))
            return {
                job: {"State": "RUNNING" if job in queued else "not in the queue any more"}
                for job in self._registered
            }

    def results(job: SlurmJob) -> list[Any]:
        try:
            return Job.results(job)
        except UncompletedJobError as error:
            log.warning("SLURM: %s. The other jobs are waited for.", said(error))
            told = CaltechError(f"SLURM: {said(error)}. {KEPT}")
            return [JobReturn(status=JobStatus.FAILED, _return_value=told)]

    SlurmJob.watcher, SlurmJob.results = Watcher(delay_s=WATCH_SECONDS), results


def ending_with_this(joblib: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of joblib's, with which its processes end when this one does, however it does.

    A command that is killed, by the system for want of memory for one, cannot end them. They would
    compute what nobody waits for, and then stay for ever with half a gigabyte each.
    """
    return {**joblib, "initializer": end_with, "initargs": (os.getpid(),)}


def end_with(parent: int) -> None:
    """End this process when its parent has ended; called as it starts."""
    tqdm.set_lock(threading.RLock())  # its own is among processes, and one that is killed leaves it
    threading.Thread(target=_end_after, args=(parent,), daemon=True).start()


def _end_after(parent: int) -> None:
    """As by SIGTERM: a training writes a checkpoint first (training/signals.py)."""
    is_sent = False
    while True:
        time.sleep(1)
        waits = is_sent and signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        if os.getppid() != parent and not waits:
            os.kill(os.getpid(), signal.SIGTERM)
            is_sent = True


def gave_up(error: Exception) -> CaltechError:
    """What a launcher raised, and what is to be done; of sbatch, what is to be typed."""
    if refused := REFUSED.search(str(error)):
        for words, key in KEYS.items():
            if words in refused[1].lower():
                return InputError(f"SLURM refused the jobs: {refused[1]}. Type {key}.")
    return CaltechError(f"The launcher gave up: {said(error)}. {KEPT}")


def said(error: Exception) -> str:
    """What a launcher raised, without the full stop; of a traceback the last line says it."""
    text = str(error)
    if lost := NO_ANSWER.search(text):
        return f"job {lost[1]} ended without an answer ({lost[2]})"
    text = raised[1] if (raised := RAISED.search(text)) else text
    lines = [line for line in text.splitlines() if line.strip()] or [""]
    is_traceback = any(line.lstrip().startswith("Traceback") for line in lines)
    told = lines[-1] if is_traceback else f"{type(error).__name__}: {lines[0]}"
    return told.strip().rstrip(".")
