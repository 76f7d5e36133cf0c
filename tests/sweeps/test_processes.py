"""A run takes one process, and the processes of a sweep end with its command."""

import os
import pickle
import signal
import subprocess
import sys
import time

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import JobStatus
from hydra.types import HydraContext

from caltech.config import register
from caltech.errors import CaltechError, HeldError, InputError
from caltech.settings import CONF
from caltech.sweeps.processes import end_with, gave_up, one_process, watch_slurm
from caltech.sweeps.sweepers import Grid


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
import multiprocessing, os, sys, time
from tqdm import tqdm
from caltech.sweeps.processes import end_with
multiprocessing.set_start_method("spawn")  # as joblib's, whose locks have names
end_with(os.getppid())
tqdm(disable=None)
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
        [sys.executable, "-c", COMMAND, WORKER], capture_output=True, text=True, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert killed.stderr == ""  # of locks that tqdm makes and a process that is killed leaves
    worker, end = int(killed.stdout), time.monotonic() + 30
    with pytest.raises(ProcessLookupError):
        while time.monotonic() < end:
            os.kill(worker, 0)
            time.sleep(0.1)


def test_a_parallel_grid_s_processes_are_given_the_command_they_end_with(tmp_path):
    register()
    with initialize_config_dir(config_dir=str(CONF)):
        words = ["hydra/launcher=parallel", f"output={tmp_path}"]
        config = compose("train", words, return_hydra_config=True)
        context = HydraContext(GlobalHydra.instance().config_loader(), Callbacks())
        grid = Grid(max_batch_size=None)
        grid.setup(config=config, hydra_context=context, task_function=print)
    given = grid.launcher.launcher.joblib
    assert (given["initializer"], given["initargs"]) == (end_with, (os.getpid(),))


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Jobs of SLURM's in a queue that is a file, with its commands, of which sacct does this."""
    from submitit.core.core import Job
    from submitit.slurm.slurm import SlurmJob

    for name, kept in (("results", Job.results), ("watcher", SlurmJob.watcher)):
        monkeypatch.setattr(SlurmJob, name, kept)
    monkeypatch.setattr(SlurmJob, "_results_timeout_s", 0)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    def of(sacct: str, *jobs: str) -> list[SlurmJob]:
        for name, does in (("sacct", sacct), ("squeue", f"cat {tmp_path}/queue")):
            (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
            (tmp_path / name).chmod(0o700)
        watch_slurm()
        return [SlurmJob(tmp_path, job) for job in jobs]

    return of


def test_of_a_traceback_that_a_launcher_raises_the_last_line_is_told():
    """As Ray's, on a machine without this package."""
    error = RuntimeError("ray::_run_job() (pid=1)\n  Traceback (most recent call last):\n  x\n"
        "ModuleNotFoundError: No module named 'caltech'\n")  # fmt: skip
    said = str(gave_up(error))
    assert said.startswith("The launcher gave up: ModuleNotFoundError: No module named 'caltech'. ")


def test_of_a_job_that_slurm_has_lost_its_end_is_told_and_no_pickle():
    error = RuntimeError(
        "Job 22_1 (task: 0) with path /x/.submitit/22_1/22_1_0_result.pkl\n"
        "has not produced any output (state: CANCELLED by 0)\nError stream produced:\n--\nx"
    )
    said = str(gave_up(error))
    assert said.startswith(
        "The launcher gave up: job 22_1 ended without an answer (CANCELLED by 0). What was"
    )


def test_of_a_job_of_slurm_s_that_raised_an_error_its_last_line_is_told(tmp_path, slurm):
    (job,) = slurm("exit 1", "7")
    trace = "Traceback (most recent call last):\n  File x\nOSError: no such mount\n"
    job.paths.result_pickle.write_bytes(pickle.dumps(("error", trace)))
    (answer,) = job.results()
    assert str(answer._return_value).startswith("SLURM: OSError: no such mount. What was ")


@pytest.mark.parametrize(
    ("refusal", "key"),
    [
        ("CPU count per node can not be satisfied\nsbatch: error: Batch job submission failed: "
         "Requested node configuration is not available", "cpus_per_task=N"),
        ("Invalid generic resource (gres) specification", "gpus_per_node=N, or null"),
        ("invalid partition specified: x\nsbatch: error: Batch job", "partition=NAME"),
        ("Invalid account or account/partition combination specified", "account=NAME"),
    ],
)  # fmt: skip
def test_a_refusal_of_sbatch_s_names_the_key_to_type(refusal, key):
    """The same command would be refused again."""
    said = str(gave_up(RuntimeError(f"sbatch: error: {refusal}")))
    assert said.startswith(f"SLURM refused the jobs: {refusal.splitlines()[0]}. Type ")
    assert f"hydra.launcher.{key}" in said and "same command" not in said
    other = RuntimeError("sbatch: error: Unable to contact slurm controller")
    assert str(gave_up(other)).startswith("The launcher gave up: RuntimeError: sbatch: error: Un")


NO_ACCOUNTING = "echo 'Slurm accounting storage is disabled' >&2; exit 1"


@pytest.mark.parametrize("sacct", [NO_ACCOUNTING, "exit 127"])
def test_without_accounting_a_job_that_left_the_queue_has_ended(tmp_path, slurm, capfd, sacct):
    left, waits, starts, ended = slurm(sacct, "7_0", "7_1", "7_2", "7_4")
    (tmp_path / "queue").write_text("JOBID|STATE|NODELIST\n7_1|PENDING|\n7_2|CONFIGURING|n1\n")
    ended.paths.result_pickle.write_bytes(pickle.dumps(("success", 5)))
    assert [job.done(force_check=True) for job in (left, waits, starts, ended)] == [
        True, False, False, True
    ]  # fmt: skip
    assert ended.results() == [5]
    (tmp_path / "queue").write_text("JOBID|STATE|NODELIST\n")
    time.sleep(0.01)  # no two looks in a millisecond
    assert waits.done(force_check=True) and starts.done(force_check=True)
    (answer,) = left.results()  # and the launcher waits for the others
    assert answer.status is JobStatus.FAILED
    with pytest.raises(
        CaltechError, match=r"^SLURM: job 7_0 ended .*\(not in the queue any more\)"
    ):
        raise answer._return_value
    assert capfd.readouterr().err == ""


def test_accounting_is_believed_and_a_controller_that_is_away_ends_no_job(tmp_path, slurm):
    (job,) = slurm("echo 'JobID|State|NodeList'; echo '7|CANCELLED by 0|n1'", "7")
    assert job.done(force_check=True) and job.state == "CANCELLED by 0"
    (job,) = slurm(NO_ACCOUNTING, "8")  # and no file: squeue fails
    assert not job.done(force_check=True)
