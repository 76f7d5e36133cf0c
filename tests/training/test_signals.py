"""Signals wait for the end of a step, do then what they would have done, and none is lost."""

import os
import signal

import pytest

from caltech.errors import queued_again
from caltech.train import train
from caltech.training import signals
from tests.observers import TINY, Doing, assert_equal, outcome


@pytest.fixture(autouse=True)
def interruptible():
    """A background job of a shell, as a test run may be, ignores SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_second_signal_is_not_deferred():
    with signals.deferred() as noted, pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        assert noted
        os.kill(os.getpid(), signal.SIGINT)


def test_a_signal_that_nobody_asked_for_is_not_lost():
    """It came after the last step: the process still ends, with the handlers as they were."""
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended, signals.deferred():
        os.kill(os.getpid(), signal.SIGTERM)
    assert ended.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before


def test_every_signal_is_deferred_and_an_ignored_one_stays_ignored():
    before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    try:
        with pytest.raises(SystemExit) as ended, signals.deferred() as noted:
            os.kill(os.getpid(), signal.SIGUSR1)
            assert not noted
            os.kill(os.getpid(), signal.SIGUSR2)
            assert noted
        assert ended.value.code == 128 + signal.SIGUSR2
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_signal_is_not_lost_where_an_error_ends_the_step():
    with pytest.raises(KeyboardInterrupt), signals.deferred():
        os.kill(os.getpid(), signal.SIGINT)
        raise ValueError


@pytest.fixture
def submitted(tmp_path, monkeypatch):
    """This process as submitit starts a job of SLURM's, without SLURM; what it would queue."""
    from submitit.core.utils import DelayedSubmission, JobPaths
    from submitit.helpers import Checkpointable
    from submitit.slurm.slurm import SlurmJobEnvironment

    class Job(Checkpointable):
        def __call__(self):
            pass

    queued = []
    monkeypatch.setattr(SlurmJobEnvironment, "_requeue", lambda self, left: queued.append(left))
    for name in ("SLURM_JOB_ID", "SLURM_NTASKS"):
        monkeypatch.setenv(name, "1")
    handlers = {number: signal.getsignal(number) for number in (*signals.SIGNALS, signal.SIGCONT)}
    delayed = DelayedSubmission(Job())
    delayed.set_timeout(60, 3)
    SlurmJobEnvironment()._handle_signals(JobPaths(tmp_path, "1"), delayed)
    yield queued
    for number, handler in handlers.items():
        signal.signal(number, handler)


def test_slurm_s_warning_queues_a_job_again_after_its_checkpoint(configure, submitted):
    """SIGTERM comes before it and means nothing to submitit: the job trains on."""

    def warn():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGUSR2)
        assert submitted == []  # the step goes on to its end

    cfg, alone = configure(*TINY), configure(*TINY, "study=alone")
    with pytest.raises(SystemExit) as ended:
        train(cfg, observer=Doing(warn, at_step=2))
    assert queued_again(ended.value) and submitted == [3]
    steps = Doing(lambda: None)
    train(cfg, observer=steps)
    assert steps.steps == 6  # of 8: the two before the warning were kept
    train(alone, observer=Doing(lambda: os.kill(os.getpid(), signal.SIGTERM), at_step=3))
    assert_equal(outcome(cfg), outcome(alone))
