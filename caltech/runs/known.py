"""Which runs there are, by their folders' names alone: a key that was mistyped is told at once,
before torch is loaded to read any."""

import difflib
import glob
import os
import re
import shlex
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from omegaconf import ListConfig

from caltech.arguments import nearest, nearest_place
from caltech.errors import DamagedError, InputError
from caltech.runs.directory import EXPORTED, RunDirectory
from caltech.settings import require_allowed

KEY = "[0-9a-f]{10}"
RUNS = "*/config.yaml"  # within a study
OTHER = {"run": "run=best for the run of highest validation accuracy", "start": "start=null"}


def is_directory(run: str) -> bool:
    """Whether it is the path of a run or of an export; what is too long for a path is none."""
    files = (RunDirectory(run).config, Path(run) / EXPORTED)
    return any(os.path.isfile(path) for path in files)  # noqa: PTH113


def _require_within(run: str, study: str, output: Path, word: str) -> None:
    """Raise InputError for a run that is there and in no such study; says in which it is."""
    own = Path(run).absolute().parent.name
    if is_directory(run):
        if own != study:
            raise InputError(
                f"{word}={run} is a directory in {own}, and study={study} is another place. "
                f"Leave study={study} out, or type {word}= with a key."
            )
        return
    paths = output.glob(f"*/{run}/config.yaml") if re.fullmatch(KEY, run) else ()
    studies = sorted(path.parent.parent.name for path in paths)
    if studies and study not in studies:
        raise InputError(
            f"{word}={run} is not in study {study} of {output}, and is in "
            f"{' and '.join(studies)}. Type {typed(studies[0])}."
        )


def candidates(run: str, study: str | None, output: Path, word: str = "run") -> list[RunDirectory]:
    """The directories that may be meant: one, all that have a key, or with "best" all there are.

    Args:
        run, study, output, word: as of find.

    Raises:
        InputError: there is none, or run is a directory of another study.
        DamagedError: a run of this key is there, and its config is not.
    """
    if study is not None:
        require_allowed("study", study)
        _require_within(run, study, output, word)
    if is_directory(run):
        return [RunDirectory(run)]
    studies = glob.escape(study) if study else "*"
    if re.fullmatch(KEY, run):
        for path in output.glob(f"{studies}/{run}"):
            if not RunDirectory(path).config.is_file() and RunDirectory(path).result.is_file():
                raise DamagedError(f"{path} has no config.yaml: what this run is cannot be told.")
    found = sorted(path.parent for path in output.glob(f"{studies}/*/config.yaml"))
    place = output / study if study else output
    if not found:
        raise _without_runs(run, study, output, word)
    named = found if run == "best" else [path for path in found if path.name == run]
    if not named and ("/" in run or os.path.isdir(run)):  # noqa: PTH112
        there = "is a file" if os.path.isfile(run) else "is not there"  # noqa: PTH113
        there = "has no config.yaml of a run" if os.path.isdir(run) else there  # noqa: PTH112
        raise InputError(
            f"{word}={run} {there}. Type {word}= with a run's directory, or with its key."
        )
    if not named:
        close = difflib.get_close_matches(run, {path.name for path in found}, n=5, cutoff=0.0)
        raise InputError(
            f"{word}={run} is neither in {place} nor a run's directory. The closest keys there are "
            f"{', '.join(close)}. Type {word}= with one of them, or {OTHER[word]}."
        )
    return [RunDirectory(path) for path in named]


def _without_runs(run: str, study: str | None, output: Path, word: str) -> InputError:
    told = f"{word}={run}: {output / study if study else output} has no runs."
    if study and any(output.glob("*/*/config.yaml")):
        return InputError(f"{told} {other_studies(study, output)}")
    if not output.is_dir() and (place := nearest_place(output)) is not None:
        return InputError(f"{told} Type output={place}.")
    return InputError(
        f"{told} Train one with python -m caltech.train, or type output= with the folder that "
        f"holds your studies, or {word}= with a run's directory."
    )


def tell_unread(output: Path) -> None:
    """Say which studies and runs another user keeps private: no search of folders finds those."""
    for folder in sorted([*output.glob("[!.]*/"), *output.glob("[!.]*/[!.]*/")]):
        if not os.access(folder, os.R_OK | os.X_OK):
            print(f"warning: you may not read {folder}: it is left out", file=sys.stderr)


def require_study(study: str, output: Path) -> None:
    """Raise InputError for a study without a run; names the nearest one."""
    if any((output / study).glob(RUNS)):
        return
    there = other_studies(study, output, takes_several=True)
    raise InputError(f"study={study} has no run in {output / study}. {there}")


def other_studies(
    study: str, output: Path, has: Sequence[str] = (RUNS,), takes_several: bool = False
) -> str:
    """The studies that there are, and which to type in place of one that is not there.

    Args:
        has: patterns of what makes a folder a study here; the folder of a joint report has no run.
        takes_several: whether study=ONE,TWO may be typed.
    """
    there = sorted(
        path.name for path in output.glob("[!.]*/") if any(any(path.glob(each)) for each in has)
    )
    if not there:
        return f"There is no study in {output}. Train a run first: caltech train data=digits."
    joined = study.split("+")
    is_joined = takes_several and len(joined) > 1 and set(joined) <= set(there)
    near = joined if is_joined else [nearest(study, [n for n in there if n != study])]
    instead = f"Type {typed(*near)}." if any(near) else "Type study= with one of them."
    return f"Studies in {output} are: {', '.join(there)}. {instead}"


def typed(*studies: str) -> str:
    """study= with its names, as Hydra and a shell both take it; no name has a backslash."""
    if all(re.fullmatch(r"\w[\w.+-]*", each, re.ASCII) for each in studies):
        return f"study={','.join(studies)}"
    names = ['"' + each.replace('"', '\\"') + '"' for each in studies]
    return "study=" + shlex.quote(f"[{','.join(names)}]" if len(names) > 1 else names[0])


def names(value: Any) -> tuple[str, ...]:
    """Studies or sweeps as typed, each once."""
    values: Iterable[Any] = value if isinstance(value, list | tuple | ListConfig) else [value]
    return tuple(dict.fromkeys(str(each) for each in values if each is not None))
