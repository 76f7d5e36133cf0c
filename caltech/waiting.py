"""What a command waits for before it does anything: said where somebody looks on."""

import sys


def load_torch() -> None:
    """Import what a command takes seconds to import anyway, and say so on a terminal meanwhile."""
    if sys.stderr.isatty():
        print("loading torch ...", end="", file=sys.stderr, flush=True)
    try:
        import torch  # noqa: F401
    finally:
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)
