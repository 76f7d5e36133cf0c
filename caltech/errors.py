"""Errors that are shown to a user as a sentence instead of a traceback."""

import os
import sys
import traceback
from types import TracebackType


class CaltechError(Exception):
    """Base of what a user can act on; its text says what happened and what to do."""


class InputError(CaltechError):
    """Something given is wrong: the text has what was given, what is allowed, what to type."""


class DivergedError(CaltechError):
    """Training left the finite numbers."""


def show(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None = None
) -> None:
    """sys.excepthook of the commands: one message for what a user can act on."""
    if isinstance(error, CaltechError) and not os.environ.get("HYDRA_FULL_ERROR"):
        print(f"error: {error}", file=sys.stderr)
    else:
        traceback.print_exception(kind, error, trace)
