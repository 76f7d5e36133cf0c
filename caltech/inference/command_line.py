"""Command lines of the commands beside training: run=KEY as Hydra writes it, or --run KEY."""

import argparse
import os
import sys
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from caltech import arguments, errors, plugins
from caltech.amounts import counted
from caltech.config import project_root
from caltech.errors import DamagedError, InputError
from caltech.runs import known
from caltech.runs.directory import WEIGHTS
from caltech.waiting import load_torch

if TYPE_CHECKING:
    from caltech.inference.ensemble import Ensemble
    from caltech.inference.predictor import Predictor

WIDTH = 80


class Parser(arguments.Parser):
    """With the options that say which run is meant."""

    def __init__(self, usage: str, description: str) -> None:
        super().__init__(usage, description)
        add = self.add_argument_group("which run").add_argument
        add("--run", metavar="KEY", default="best",
            help="a run's key or directory; best (the default) is the finished run of highest "
            "validation accuracy; several with commas are an ensemble, whose probabilities are "
            "the mean of theirs")  # fmt: skip
        add("--study", metavar="NAME", help="only runs of this study")
        add("--data", metavar="NAME", help="only runs on this data set")
        add("--weights", choices=WEIGHTS,
            help="of the epoch of best validation accuracy (the default) or the last")  # fmt: skip
        add("--calibrated", action="store_true",
            help="divide logits by the temperature that fits the validation images (Guo et al., "
            "2017): as sure as the run is right")  # fmt: skip
        add("--output", metavar="FOLDER", default=f"{project_root()}/multirun",
            help="where the studies are (default: %(default)s)")  # fmt: skip
        add("--plugins", metavar="MODULES", default="",
            help="modules of your own that the run's config names, with commas")  # fmt: skip
        add("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto",
            help="default: auto")  # fmt: skip


def require_there(given: argparse.Namespace) -> None:
    """Raise InputError for a run that is not there, by names alone, and then load torch."""
    for name in names_of(given.run):
        known.candidates(name, given.study, Path(given.output).expanduser())
    load_torch()


def load(given: argparse.Namespace) -> "Predictor | Ensemble":
    """The run or the runs that the command line names; says on stderr which.

    Raises:
        InputError: there is no such run, or it cannot answer.
        DamagedError: a file is not what its run wrote; says what to type.
    """
    try:
        predictor = _loaded(given)
    except DamagedError as error:
        raise DamagedError(
            f"{error} Type the run's training command again with rerun=true, or choose another "
            "with run=."
        ) from error
    _tell(predictor)
    return predictor


def _loaded(given: argparse.Namespace) -> "Predictor | Ensemble":
    from caltech.inference.ensemble import Ensemble
    from caltech.inference.ensemble import load as load_folder
    from caltech.runs.find import find

    plugins.load(list(filter(None, given.plugins.strip("[]").split(","))))
    names, output = names_of(given.run), Path(given.output).expanduser()
    folders = [find(name, given.study, given.data, output).path for name in names]
    _require_once(names, folders)
    if len(folders) == 1:
        return load_folder(folders[0], given.weights, given.device, given.calibrated)
    members = [load_folder(folder, given.weights, given.device) for folder in folders]
    for name, member in zip(names, members, strict=True):
        if isinstance(member, Ensemble):
            raise InputError(f"run={name} is an ensemble, which is no member of another one.")
    return Ensemble.of(members, given.calibrated)


def names_of(run: str) -> list[str]:
    """What run=KEY,KEY names; a folder may have commas in its name.

    Raises:
        InputError: there is nothing between two commas.
    """
    is_one = os.path.isdir(run)  # noqa: PTH112 (False of what is too long for a path)
    names = [run] if is_one else [name.strip() for name in run.strip("[]").split(",")]
    if not all(names):
        known = ",".join(filter(None, names)) or "best"
        raise InputError(f"run={run} has a comma with no run beside it. Type run={known}.")
    return names


def _require_once(names: Sequence[str], folders: Sequence[Path]) -> None:
    """Raise InputError for a run that is named twice, and would count twice in the mean."""
    places = [folder.resolve() for folder in folders]
    for number, name in enumerate(names):
        if places[number] in places[:number]:
            raise InputError(
                f"run={','.join(names)} has one run twice, which would count twice in the mean: "
                f"{name} is {folders[number]}. Name it once."
            )


def _tell(predictor: "Predictor | Ensemble") -> None:
    members = getattr(predictor, "members", (predictor,))
    for told in (member.summary() for member in members):
        line = (
            f"run {told['key']} of study {told['study']}: {told['weights']} epoch "
            f"{told['epoch']}, validation accuracy {told['val/accuracy']:.4f}"
        )
        print(textwrap.fill(line, WIDTH, subsequent_indent="  "), file=sys.stderr)
    if len(members) > 1:
        print(f"ensemble of {len(members)}: the mean of their probabilities", file=sys.stderr)
    if predictor.fitted_on is not None:
        print(
            f"calibrated: temperature {predictor.temperature:.3f}, fitted to "
            f"{counted(predictor.fitted_on, 'validation image')}",
            file=sys.stderr,
        )


def start(command: Callable[[Sequence[str]], int]) -> NoReturn:
    """Run a command to its exit code."""
    code = 0  # also if what reads the output has seen enough
    with errors.shown_as_messages(composes=False):
        code = command(sys.argv[1:])
    sys.exit(code)
