"""Command lines of the commands beside training: run=KEY as Hydra writes it, or --run KEY."""

import argparse
import difflib
import io
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from caltech import errors, plugins
from caltech.config import project_root
from caltech.inference.predictor import Predictor
from caltech.runs.directory import WEIGHTS
from caltech.runs.find import find


class Parser(argparse.ArgumentParser):
    """argparse with the options that say which run is meant, and errors of one line."""

    def __init__(self, usage: str, description: str) -> None:
        super().__init__(
            usage=usage,
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            epilog="Every --name VALUE can be written name=VALUE.",
            allow_abbrev=False,
        )
        add = self.add_argument_group("which run").add_argument
        add("--run", metavar="KEY", default="best",
            help="a run's key or directory; best (the default) is the finished run of highest "
            "validation accuracy")  # fmt: skip
        add("--study", metavar="NAME", help="only runs of this study")
        add("--data", metavar="NAME", help="with run=best, only runs on this data set")
        add("--weights", choices=WEIGHTS, default="best",
            help="of the epoch of best validation accuracy (the default) or the last")  # fmt: skip
        add("--output", metavar="FOLDER", default=f"{project_root()}/multirun",
            help="where the studies are (default: %(default)s)")  # fmt: skip
        add("--plugins", metavar="MODULES", default="",
            help="modules of your own that the run's config names, with commas")  # fmt: skip
        add("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default: auto")

    def read(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse, with name=VALUE as --name=VALUE for every option that takes a value."""
        names = {s for a in self._actions for s in a.option_strings if a.nargs != 0}
        for word in arguments:
            flag = f"--{word.partition('=')[0].lstrip('-')}"
            if "=" in word and flag in {*self._option_string_actions} - names:
                self.error(f"{word}: {flag} takes no value; type {flag}, or leave it out")
        self._refuse_misspelt(arguments, [name.removeprefix("--") for name in names])
        words = [f"--{a}" if "=" in a and f"--{a.split('=')[0]}" in names else a for a in arguments]
        return self.parse_intermixed_args(words)

    def _refuse_misspelt(self, arguments: Sequence[str], names: Sequence[str]) -> None:
        """A word that is no file and nearly an option is not taken for an image."""
        for position, word in enumerate(arguments):
            name, equals, value = word.partition("=")
            if equals and not name.strip():
                given = " ".join([*arguments[:position][-1:], *arguments[position:][:2]])
                joined = "".join(given.split())
                self.error(f"{given} is torn apart by spaces; type {joined}")
            close = difflib.get_close_matches(name.strip("-").casefold(), names, n=1, cutoff=0.6)
            if equals and name.lstrip("-") not in names and close and not Path(word).exists():
                self.error(f"{word} is no option; type {close[0]}={value}")

    def error(self, message: str) -> NoReturn:
        if unknown := re.match(r"unrecognized arguments: (--?[\w-]+)", message):
            near = difflib.get_close_matches(unknown[1], self._option_string_actions, 1, 0.7)
            message = f"{unknown[1]} is no option" + (f"; type {near[0]}" if near else "")
        self.exit(2, f"error: {message}. Type --help to see what is possible.\n")


def load(given: argparse.Namespace) -> Predictor:
    """The run that the command line names; says on stderr which one it is."""
    plugins.load(list(filter(None, given.plugins.strip("[]").split(","))))
    directory = find(given.run, given.study, given.data, Path(given.output).expanduser())
    predictor = Predictor.load(directory, given.weights, given.device)
    told = predictor.summary()
    print(
        f"run {told['key']} of study {told['study']}, {predictor.weights} weights: epoch "
        f"{told['epoch']}, validation accuracy {told['val/accuracy']:.4f}",
        file=sys.stderr,
    )
    return predictor


def start(command: Callable[[Sequence[str]], int]) -> NoReturn:
    """Run a command to its exit code."""
    for stream in (sys.stdout, sys.stderr):  # file names may be of any bytes
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="surrogateescape")
    code = 0  # also if what reads the output has seen enough
    with errors.shown_as_messages(composes=False):
        code = command(sys.argv[1:])
    sys.exit(code)
