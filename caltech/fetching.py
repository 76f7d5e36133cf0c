"""Whether what is not on this machine may be fetched: a dry run fetches nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from caltech.errors import InputError

_is_forbidden = ContextVar("fetching is forbidden", default=False)


class NotHereError(InputError):
    """It would be fetched now: what it is."""


@contextmanager
def forbidden() -> Iterator[None]:
    """Nothing is fetched within: it is told by a NotHereError."""
    token = _is_forbidden.set(True)
    try:
        yield
    finally:
        _is_forbidden.reset(token)


def begin(what: str) -> None:
    """To be called before anything is fetched.

    Raises:
        NotHereError: it is not to be.
    """
    if _is_forbidden.get():
        raise NotHereError(what)
