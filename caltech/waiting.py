"""What a command waits for: said where somebody looks on, and in a log now and then."""

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

log = logging.getLogger(__name__)

TELL_SECONDS = 10.0  # between two lines of progress where there is no bar
Item = TypeVar("Item")


def load_torch() -> None:
    """Import what a command takes seconds to import anyway, and say so on a terminal meanwhile."""
    with said("loading torch"):
        import torch  # noqa: F401


@contextmanager
def said(what: str) -> Iterator[None]:
    """On a terminal, what is done now, in a line that is gone once it is done."""
    if sys.stderr is None or not sys.stderr.isatty():  # None if closed, by 2>&-
        yield
        return
    print(f"{what} ...", end="", file=sys.stderr, flush=True)
    try:
        yield
    finally:
        print("\r\033[K", end="", file=sys.stderr, flush=True)


class Progress:
    """In the log, where no terminal shows a bar: how many are done and about how long it takes.

    Args:
        what: is computed, or nothing if there is a bar.
        things: what they are called, as `images`.
        done: of `total`, before anything is computed.
    """

    def __init__(self, what: str = "", things: str = "", done: int = 0, total: int = 0) -> None:
        self.what, self.things, self.first, self.total = what, things, done, total
        self.begun = self.told = time.monotonic()

    def tell(self, done: int) -> None:
        """Log a line if the last one was long ago."""
        now = time.monotonic()
        if self.what and self.first < done < self.total and now - self.told >= TELL_SECONDS:
            left = (self.total - done) * (now - self.begun) / (done - self.first)
            shown = f"{left / 60:.0f} min" if left > 90 else f"{left:.0f} s"
            many = f"{done} of {self.total} {self.things}"
            log.info("%s: %s, about %s left", self.what, many, shown)
            self.told = now


def counting(items: Iterable[Item], total: int, what: str, things: str) -> Iterator[Item]:
    """The items, and how far they are: a bar on a terminal, if they take long, or else the log.

    Args:
        total: how many items there are.
        what: is done with them, as `reading images`.
        things: what they are called, as `images`.
    """
    from tqdm import tqdm

    bar = tqdm(items, total=total, desc=what, unit=f" {things}", delay=1, leave=False, disable=None)
    progress = Progress() if not bar.disable else Progress(what, things, 0, total)
    for done, item in enumerate(bar, 1):
        yield item
        progress.tell(done)
