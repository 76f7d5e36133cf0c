"""What torchrun, srun or mpirun start several times is told that a run takes one process."""

import os
import signal
import subprocess
import sys
import time

import pytest

from caltech.errors import HeldError, InputError
from caltech.sweeps.processes import one_process


def test_torchrun_is_told_before_any_work():
    told = pytest.raises(InputError, match=r"2 processes .* torchrun .* takes one process")
    with told, one_process({"WORLD_SIZE": "2", "RANK": "1"}):
        raise AssertionError("work was done")


@pytest.mark.parametrize("environment", [{}, {"WORLD_SIZE": "1"}, {"SLURM_STEP_NUM_TASKS": "4"}])
def test_one_process_or_runs_of_their_own_go_on(environment):
    with one_process(environment):
        pass


def test_srun_of_one_run_is_told():
    """`srun -n 4 bash -c 'python ... seed=$SLURM_PROCID'` computes four; of one run it is held."""
    told = pytest.raises(HeldError, match=r"by host 1.* type srun -n 1")
    with told, one_process({"SLURM_STEP_NUM_TASKS": "4"}):
        raise HeldError("is being computed by host 1.")
    with pytest.raises(HeldError, match=r"^held$"), one_process({"SLURM_STEP_NUM_TASKS": "1"}):
        raise HeldError("held")


WORKER = """
import os, sys, time
from caltech.sweeps.processes import end_with
end_with(os.getppid())
print(os.getpid(), flush=True)
time.sleep(60)
"""
COMMAND = """
import os, signal, subprocess, sys
worker = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=subprocess.PIPE, text=True)
print(worker.stdout.readline(), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_worker_ends_when_its_command_is_killed():
    killed = subprocess.run(
        [sys.executable, "-c", COMMAND, WORKER], stdout=subprocess.PIPE, text=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    worker, end = int(killed.stdout), time.monotonic() + 30
    with pytest.raises(ProcessLookupError):
        while time.monotonic() < end:
            os.kill(worker, 0)
            time.sleep(0.1)
