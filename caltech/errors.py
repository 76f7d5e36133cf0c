"""Errors that are shown to a user as a sentence instead of a traceback."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


class CaltechError(Exception):
    """Base of what a user can act on; its text says what happened and what to do."""


class InputError(CaltechError):
    """Something given is wrong: the text has what was given, what is allowed, what to type."""


class HeldError(InputError):
    """Another process computes the same run: no failure of that run."""


class DivergedError(CaltechError):
    """Training left the finite numbers."""


class DiskError(CaltechError):
    """Something cannot be written for lack of room: names the file and how much it needs."""


class DamagedError(CaltechError):
    """A file is not what was written there: names it."""


_is_composed = False  # whether what was typed has become a config


def composed() -> None:
    """Called when what was typed has become a config: other errors than ours are bugs from now."""
    global _is_composed
    _is_composed = True


@contextmanager
def shown_as_messages(interrupted: str = "interrupted", composes: bool = True) -> Iterator[None]:
    """A command from what was typed to its exit code; what a user can act on is one message.

    Args:
        interrupted: what is said after Ctrl-C.
        composes: a config is made of what was typed, by Hydra. Until it is (composed), any error
            can only be of that, in Hydra's words: a missing option, a value of another type.
    """
    global _is_composed
    _is_composed = not composes
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints a traceback of its own
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        # Another user's file is no bug, wherever it is found.
        is_told = isinstance(error, CaltechError | PermissionError)
        if before or not (is_told or not _is_composed):
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    finally:
        os.environ["HYDRA_FULL_ERROR"] = before or ""
