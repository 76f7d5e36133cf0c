"""All commands under one word: `caltech train lr=0.1` is `python -m caltech.train lr=0.1`.

Imports nothing of the package, so that the table is there at once: a command imports what it needs.
"""

import os
import runpy
import sys
from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """`python -m MODULE FIRST...`, and what it is for."""

    module: str
    says: str
    first: tuple[str, ...] = ()
    computes: bool = False  # with torch, which takes seconds to import, whatever is typed


COMMANDS = {
    "train": Command("caltech.train", "train one classifier, or go on with it", computes=True),
    "sweep": Command(
        "caltech.train", "train one for each combination of values", ("--multirun",), True
    ),
    "sweeps": Command("caltech.sweeps", "the newest sweep's table, also while it runs"),
    "runs": Command("caltech.overview.runs", "list runs: what differs, status, accuracy, size"),
    "predict": Command("caltech.predict", "ask a finished run what images show"),
    "export": Command("caltech.export", "take a finished run elsewhere"),
    "report": Command("caltech.report", "a study's tables, pictures and page"),
    "ui": Command("caltech.overview.ui", "open the runs in MLflow's page"),
    "sync": Command("caltech.tracking", "send MLflow the runs that it lacks"),
    "audit": Command("caltech.data", "damaged, duplicate and stray images", ("audit",), True),
    "verify": Command("caltech.data", "are the images what the caches are of?", ("verify",), True),
    "models": Command("caltech.models", "a network's blocks, to freeze until one", computes=True),
    "completion": Command("caltech.completion", 'the Tab key: eval "$(caltech completion)"'),
    "clean": Command("caltech.overview.clean", "say what disk can be freed; yes=true frees it"),
}
EXAMPLES = """\
  caltech train data=digits              a first run, nothing is downloaded
  caltech sweep lr=1e-1,1e-2,1e-3        three runs, and a table of them
  caltech predict cat.jpg run=best       ask the best of them

caltech COMMAND --help says what a command takes."""


def _require_here() -> None:
    """Libraries look for their parts from where a command is typed, also if that was removed."""
    try:
        os.getcwd()  # noqa: PTH109 (pathlib takes time to import)
    except OSError:
        sys.exit("error: The folder in which this is typed was removed. Type cd, and again.")


def main() -> None:
    """The console script."""
    name, *words = sys.argv[1:] or ["--help"]
    if name in ("--help", "-h", "help"):
        print(table())
    elif name not in COMMANDS:
        sys.exit(f"error: {name} is no command. {_instead_of(name, words)}")
    else:
        command = COMMANDS[name]
        sys.argv = [sys.argv[0], *command.first, *words]
        try:
            if command.computes:
                _require_here()
                from caltech.waiting import load_torch

                load_torch()
            runpy.run_module(command.module, run_name="__main__", alter_sys=True)
        except KeyboardInterrupt:  # before the command listens to it
            print("interrupted", file=sys.stderr)
            sys.exit(130)


def table() -> str:
    """What there is to type."""
    lines = [f"  {name:12}{command.says}" for name, command in COMMANDS.items()]
    return "\n".join(["usage: caltech COMMAND [WORDS]", "", *lines, "", EXAMPLES])


def _instead_of(name: str, words: list[str]) -> str:
    import difflib
    import shlex

    if name in ("--multirun", "-m"):
        return f"Type: {shlex.join(['caltech', 'sweep', *words])}"
    if "=" in name:
        return f"Type: {shlex.join(['caltech', 'train', name, *words])}"
    near = difflib.get_close_matches(name.lstrip("-").casefold(), COMMANDS, n=1, cutoff=0.5)
    return f"Type: {shlex.join(['caltech', *near, *words] if near else ['caltech', '--help'])}"


if __name__ == "__main__":
    main()
