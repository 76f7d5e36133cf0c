"""What a command waits for before it does anything: said where somebody looks on."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


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
