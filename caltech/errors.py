"""Errors that are shown to a user as a sentence instead of a traceback."""


class CaltechError(Exception):
    """Base of what a user can act on; its text says what happened and what to do."""


class InputError(CaltechError):
    """Something given is wrong: the text has what was given, what is allowed, what to type."""


class DivergedError(CaltechError):
    """Training left the finite numbers."""


class DiskError(CaltechError):
    """Something cannot be written for lack of room: names the file and how much it needs."""


class DamagedError(CaltechError):
    """A file is not what was written there: names it."""
