"""Transfer-learning studies as one command a run.

fit load                from Python: caltech.fit("data=digits", "lr=0.1") (interface)
completion  the Tab key
__main__    all commands under one word: `caltech train`
train predict export    what is typed; also `python -m caltech.report` and `... caltech.data audit`
sweeps/     what became of many runs
inference/  a finished run that answers
overview/   what runs are there, what room they take, where they are looked at
report/     a study's tables, page and pictures
training/   how weights change
tracking/   what MLflow is told
probes      whether a part of one's own does what is asked of it
runs/       one run's directory: what is in it, what it was made from, how it is found
data/       which images, in which split, as which pixels
models/     which network, where it is cut, what is frozen
config      what a config may name, and how an option is built
keys        what a run is: its key
composer    Hydra's loader of configs, with our checks
vocabulary  whether a word is right, and the nearest words that are
trust       what a config file may say of Hydra
flags       what begins with a dash
likeness    what is like what was typed
words       one word of a command line
plugins     code of one's own that a config may name
settings    what may be typed: each root key once
arguments   command lines that Hydra does not read
amounts     numbers of things as people read them
waiting     what a command waits for, said on a terminal or in its log
cache       a big array on disk, computed once
links       one place on the disk for what several files hold
files       whole, or not there, or found out
fetching    whether what is not on this machine may be fetched
passwords   addresses without them
errors      sentences instead of tracebacks
metrics     the names of all numbers

A file imports what stands below it in this list, and of the folders that stand together neither
sweeps, inference, report and overview, nor training and tracking, nor data and models, nor
vocabulary, trust and flags each other (pyproject.toml: importlinter).
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from caltech.interface import Model, Result, fit, load

__all__ = ["Model", "Result", "fit", "load"]


def __getattr__(name: str) -> Any:
    """Imported when it is first asked for: `import caltech` alone costs nothing."""
    if name not in __all__:
        raise AttributeError(f"module 'caltech' has no attribute '{name}'")
    from caltech import interface

    return getattr(interface, name)
