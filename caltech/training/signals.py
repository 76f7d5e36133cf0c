"""Signals that end a process: during training they wait for the end of a step and its checkpoint.

Then each does what it would have done without us. Under submitit that is its own handler: SIGUSR2,
SLURM's warning before a job is out of time, puts the job into the queue again, and SIGTERM, which
SLURM sends before it, does nothing.
"""

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

from caltech.errors import Ended

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


def raise_at_once(number: int, frame: FrameType | None) -> None:
    """A signal handler: KeyboardInterrupt, or an exit with the shell's code (SIGTERM: 143)."""
    raise KeyboardInterrupt if number == signal.SIGINT else Ended(128 + number)


def end_by_exceptions() -> None:
    """Have every signal that would end this process without a word raise an exception instead."""
    for number in SIGNALS:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, raise_at_once)


class Noted:
    """Signals that came and wait; false while there is none."""

    def __init__(self, handlers: Mapping[int, Callable | int]) -> None:
        self.handlers, self.numbers = handlers, []  # what was installed before; in order of arrival

    def __bool__(self) -> bool:
        return bool(self.numbers)

    def note(self, number: int, frame: FrameType | None) -> None:
        """The handler meanwhile: a signal that comes a second time does not wait."""
        if number in self.numbers:
            self.numbers.remove(number)
            self._act(number)
        self.numbers.append(number)

    def deliver(self) -> None:
        """Do what each of them does without us, in the order in which they came."""
        while self.numbers:
            self._act(self.numbers.pop(0))

    def _act(self, number: int) -> None:
        handler = self.handlers[number]
        (handler if callable(handler) else raise_at_once)(number, None)


@contextmanager
def deferred() -> Iterator[Noted]:
    """Note signals instead of handling them; what nobody delivered is delivered at the end.

    Ignored ones (nohup, a shell's background jobs) stay so. Only a process's main thread can
    handle signals: in another one, nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield Noted({})
        return
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    ours = {n: each for n, each in handlers.items() if each not in (None, signal.SIG_IGN)}
    noted = Noted(ours)
    for number in noted.handlers:
        signal.signal(number, noted.note)
    try:
        yield noted
    finally:
        for number, handler in noted.handlers.items():
            signal.signal(number, handler)
        noted.deliver()
