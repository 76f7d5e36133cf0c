"""SIGINT and SIGTERM wait for the end of a step, and none of them is lost."""

import os
import signal

import pytest

from caltech.training import signals


def test_a_second_signal_is_not_deferred():
    with signals.deferred() as interrupted, pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        assert isinstance(interrupted(), KeyboardInterrupt)
        os.kill(os.getpid(), signal.SIGINT)


def test_a_signal_that_nobody_asked_for_is_not_lost():
    """It came after the last step: the process still ends, with the handlers as they were."""
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended, signals.deferred():
        os.kill(os.getpid(), signal.SIGTERM)
    assert ended.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before
