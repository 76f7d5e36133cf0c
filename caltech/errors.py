"""Errors that are shown to a user as a sentence instead of a traceback."""

import os
import sys
import traceback
from collections.abc import Sequence
from types import TracebackType


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


def show_as_messages(begun: Sequence[object]) -> None:
    """Make uncaught errors one message without a traceback where a user can act on them.

    Args:
        begun: what the command has begun to work on. While it is empty, any error can only be of
            what was typed, in Hydra's words: a missing option, a value of another type.
    """
    wants_traceback = bool(os.environ.get("HYDRA_FULL_ERROR"))
    os.environ["HYDRA_FULL_ERROR"] = "1"  # else Hydra prints a traceback of its own

    def show(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        is_input = isinstance(error, CaltechError) or (not begun and isinstance(error, Exception))
        if is_input and not wants_traceback:
            print(f"error: {error}", file=sys.stderr)
        else:
            traceback.print_exception(kind, error, trace)

    sys.excepthook = show
