"""Errors that are shown to a user as a sentence instead of a traceback."""

import atexit
import codecs
import errno
import gc
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO


class CaltechError(Exception):
    """Base of what a user can act on; its text says what happened and what to do."""


class InputError(CaltechError):
    """Something given is wrong: the text has what was given, what is allowed, what to type."""


class HeldError(InputError):
    """Another process computes the same run: no failure of that run."""


class DivergedError(CaltechError):
    """Training left the finite numbers."""


class OutOfMemoryError(CaltechError):
    """A step does not fit into memory: names a micro_batch that was found to fit."""


class DiskError(CaltechError):
    """Something cannot be written for lack of room: names the file and how much it needs."""


class DamagedError(CaltechError):
    """A file is not what was written there: names it."""


class StoreError(CaltechError):
    """A tracking store cannot be used: the text says why, and what to do about it."""


# What a file that is whole raises if it holds other values than a run writes.
OF_ANOTHER_SHAPE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


class Ended(SystemExit):
    """The process was told to end, by a signal: its code is the shell's."""


def queued_again(error: BaseException) -> bool:
    """Whether a job ends by this because submitit has put it into the queue again."""
    return isinstance(error, SystemExit) and error.code == -1


class _PastHydra(BaseException):
    """Carries an error of a single run past Hydra, which would print a line of its own."""


@contextmanager
def told_once(is_single: bool) -> Iterator[None]:
    """What a user can act on leaves a single run as one message; a sweep goes to its next job."""
    try:
        yield
    except Exception as error:
        if is_single and _is_told(error):
            raise _PastHydra from error
        raise


@contextmanager
def without_exit() -> Iterator[None]:
    """Code of others that ends Python fails: its code, most often 0, would be the command's.

    Raises:
        CaltechError: instead.
    """
    try:
        yield
    except SystemExit as error:
        if isinstance(error, Ended) or queued_again(error):
            raise
        raise CaltechError(
            f"A part of the run called sys.exit({error.code}), and ended it. Nothing here does: "
            "look for it in plugins=, or in a library that they call."
        ) from error


# What the place is like where something is to be written or read, and no bug.
PLACE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG}


def _is_told(error: BaseException) -> bool:
    """Whether a user can act on an error."""
    if not isinstance(error, OSError):
        return isinstance(error, CaltechError)
    return _is_of_output(error) or (error.errno in PLACE and error.filename is not None)


def _is_of_output(error: OSError) -> bool:
    """Whether what is printed finds no room, or what a library writes to an open file."""
    return error.errno == errno.ENOSPC and error.filename is None


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
    # Else Python looks for garbage among all of the libraries' objects at its end: half a second.
    atexit.register(gc.freeze)
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        _require_open(number, name)
    for stream in (sys.stdout, sys.stderr):
        _take_any_text(stream)
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
    except Ended:
        print(interrupted, file=sys.stderr)
        raise
    except (Exception, _PastHydra) as raised:
        error = raised.__cause__ if isinstance(raised, _PastHydra) else raised
        if before or not (_is_told(error) or not _is_composed):
            raise error from error.__cause__
        print(f"error: {_told(error)}", file=sys.stderr)
        sys.exit(1)
    finally:
        os.environ["HYDRA_FULL_ERROR"] = before or ""


def _require_open(number: int, name: str) -> None:
    """Put nothing in place of a stream that was closed, as >&- does.

    Else the next file that is opened has its number, and all that a library prints.
    """
    try:
        os.fstat(number)
    except OSError:
        # Gets the first number that is free; processes of a sweep have it, too.
        os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if getattr(sys, name) is None:
        setattr(sys, name, open(os.devnull, "r+"))  # noqa: PTH123, SIM115 (to the end)


def _take_any_text(stream: TextIO) -> None:
    """File names may be of any bytes, and names of any letters where LC_ALL=C has ASCII alone."""
    if isinstance(stream, io.TextIOWrapper):
        is_all = codecs.lookup(stream.encoding).name == "utf-8"
        stream.reconfigure(errors="surrogateescape" if is_all else "backslashreplace")


def _told(error: Exception) -> str:
    """Our own errors as they are, others as one line that ends with what can be done."""
    if isinstance(error, CaltechError):
        return str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return (
            f"{error.filename} cannot be used: {error.strerror}. Type output=FOLDER and "
            "cache=FOLDER with folders that can be written."
        )
    if isinstance(error, OSError) and _is_of_output(error):
        return (
            "No space is left on a disk: of what is printed, or of output=. Make room, or print to "
            "another place, and type the command again."
        )
    said = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
    return f"{said}. Type --help to see what is possible, HYDRA_FULL_ERROR=1 before it for all."
