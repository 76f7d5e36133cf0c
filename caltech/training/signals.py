"""SIGINT and SIGTERM: during training they wait for the end of a step, where a run can go on."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def raise_at_once(number: int, frame: FrameType | None) -> None:
    """A signal handler: KeyboardInterrupt, or for SIGTERM an exit with the shell's code 143."""
    raise exception_for(number)


def exception_for(number: int) -> BaseException:
    """What a signal means to the code it interrupts."""
    return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number)


@contextmanager
def deferred() -> Iterator[Callable[[], BaseException | None]]:
    """Note the first signal instead of raising it; the function given tells what to raise, if any.

    A signal that nobody raised is raised at the end, and a second one at once. Only a process's
    main thread can handle signals: in another one, nothing is changed.
    """
    noted: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        if noted:
            noted.clear()
            raise_at_once(number, frame)
        noted.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: None
        return
    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield lambda: exception_for(noted[0]) if noted else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if noted:
        raise exception_for(noted[0])
