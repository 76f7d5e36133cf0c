"""Flags of a command line: --multirun, --cfg, and what was meant by one that is none."""

import difflib
import os
import re
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from caltech import arguments
from caltech.amounts import is_number
from caltech.errors import InputError
from caltech.overrides import quoted, unquoted
from caltech.settings import CONF, ROOT, options
from caltech.words import Word, plain, shell, truth

# Of groups, what is a path, a name or an address.
TEXTS = {"root", "name", "uri", "artifacts", "experiment", "train_files", "val_files", "test_files"}
SHOWN = {"cfg": "job", "info": "defaults", "package": "optimizer"}  # what people ask for most


def with_study(words: Sequence[str]) -> list[str]:
    """`caltech sync course` is `caltech sync study=course`, as it is with `caltech runs course`.

    Raises:
        InputError: another study is typed beside it.
    """
    bare = [word for word in words if "=" not in word]
    if len(bare) != 1 or words[0] != bare[0] or bare[0].startswith(("-", "+", "~")):
        return [*words]
    if named := [word for word in words if word.startswith("study=")]:
        both = ",".join([bare[0], *(word.removeprefix("study=") for word in named)])
        raise InputError(
            f"{bare[0]} and {named[0]} cannot both be. Type {shell(f'study={both}')} for both."
        )
    return [f"study={words[0]}", *words[1:]]


def listed(word: str) -> str:
    """`study=one,two` as Hydra takes a list; quoted or bracketed it is left as it is."""
    name, _, value = word.partition("=")
    is_list = name in ("study", "sweeps") and "," in value and not set(value) & set("[]{}'\"\\")
    return f"{name}=[{_readable(word).removeprefix(f'{name}=')}]" if is_list else word


def readable(words: Sequence[str]) -> list[str]:
    """With quotes around paths, names and addresses that Hydra cannot read without, as /my é, or
    would read as numbers, as 2026_11."""
    return [_readable(word) for word in words]


def _readable(text: str) -> str:
    word = Word.of(text)
    takes_text = word.key in ROOT and ROOT[word.key].type is str
    if not (takes_text or word.key.rpartition(".")[2] in TEXTS) or not word.value:
        return text
    is_there = os.path.exists(word.value)  # noqa: PTH110 (if too long)
    is_odd = not is_there and any(each != plain(each) for each in text)
    if word.value[0] in "'\"[$" or is_odd:
        return text  # quoted, a list or a reference; or of a text program, which is told
    name = f"{word.prefix}{word.key}="
    if "," in word.value:
        each = [_readable(f"{name}{one}").removeprefix(name) for one in word.value.split(",")]
        is_plain = not set(word.value) & set("()[]{}'\"\\")  # and no choice(a,b)
        return f"{name}{','.join(each)}" if is_plain and all(each) else text
    try:
        value = OverridesParser.create().parse_override(text).value()
    except HydraException:
        return f"{name}{quoted(word.value)}"
    return f"{name}{quoted(word.value)}" if is_number(value) and str(value) != word.value else text


def as_typed(text: str) -> str:
    """Without the quotes that `readable` puts around a value."""
    name, equals, value = text.partition("=")
    plainly = f"{name}{equals}{unquoted(value)}"
    return plainly if _readable(plainly) == text else text


def require_flags(
    typed: Sequence[str], parser: ArgumentParser | None = None, sweeps: bool = True
) -> None:
    """Raise InputError for what begins with a dash and is no flag of the parser, or of Hydra's.

    Args:
        sweeps: whether the command can be one of many.
    """
    parser = parser or get_args_parser()

    def refuse(message: str) -> None:
        instead = _instead_of(message)
        told = f"{message}. Type {instead}" if instead else arguments.told(message, parser, SHOWN)
        raise InputError(f"{told}.")

    parser.error = refuse
    for argument in typed:
        if plain(argument).startswith("-") and not argument.startswith("-"):
            raise InputError(
                f"{argument} begins with no dash of a keyboard. Type {plain(argument)}."
            )
    given, rest = parser.parse_known_args(typed)
    known = [each for each in parser._option_string_actions if each.startswith("--")]
    for left in rest:
        if left.startswith("-"):
            # Of -rerun, Python 3.13 takes its -r and leaves -erun.
            dashed = [each for each in typed if each.startswith("-") and each.endswith(left[1:])]
            flag = left if left in typed else [*dashed, left][0]
            after = [*typed[[*typed, flag].index(flag) + 1 :], ""][0]
            raise InputError(
                f"{flag} is no flag; keys and groups are typed without dashes, as KEY=VALUE. "
                f"Type {_meant(flag, '' if after.startswith('-') else after, known)}."
            )
    _require_one_command(given)
    if not sweeps and given.multirun:
        raise InputError(
            "--multirun is for trainings, and this command reads what they left. Leave it out: "
            "study=ONE,TWO is of several studies."
        )
    _require_folders(given)
    _require_package(given)


def _require_one_command(given: Namespace) -> None:
    """Raise InputError for flags of Hydra's of which each asks for something else."""
    asked = [
        flag
        for flag, is_there in (
            ("--multirun", getattr(given, "multirun", False)),
            ("--run", getattr(given, "run", False) is True),
            (f"--cfg {getattr(given, 'cfg', None)}", getattr(given, "cfg", None) is not None),
            (f"--info {getattr(given, 'info', None)}", getattr(given, "info", None) is not None),
            ("--shell-completion", getattr(given, "shell_completion", False)),
        )
        if is_there
    ]
    if len(asked) > 1 and not getattr(given, "help", False):
        is_sweep = "--multirun" in asked and "--run" not in asked
        raise InputError(
            f"{' and '.join(asked)} cannot both be"
            + ": caltech sweep is --multirun, and a config that is shown is of one run" * is_sweep
            + f". Type {asked[-1]} alone"
            + ", with caltech train" * is_sweep
            + "."
        )
    if getattr(given, "resolve", False) and not (given.cfg or given.help):
        raise InputError("--resolve is of --cfg alone. Type --cfg job --resolve.")
    if getattr(given, "experimental_rerun", None) is not None:
        raise InputError(
            "--experimental-rerun needs files of Hydra's that are not kept here: a run goes on "
            "when its command is typed again. Type rerun=true to compute it once more."
        )


def _require_folders(given: Namespace) -> None:
    for name in ("config_dir", "config_path"):
        folder, flag = getattr(given, name, None), f"--{name.replace('_', '-')}"
        if folder and not Path(folder).is_dir():
            if (near := arguments.nearest_place(Path(folder))) is not None:
                raise InputError(f"{flag} {folder} is no folder that there is. Type {flag} {near}.")
            raise InputError(
                f"{flag} {folder} is no folder that there is. Type the path of one with configs of "
                f"your own (experiment/NAME.yaml, say), or leave {flag} out: ours are in {CONF}."
            )
        if folder and flag == "--config-dir":
            _require_no_group(Path(folder), given.overrides)
        if folder and flag == "--config-path" and not Path(folder).is_absolute():
            raise InputError(
                f"{flag} {folder} is looked for within the program. Type --config-dir {folder}, "
                f"which adds to our configs, or {flag} {Path(folder).absolute()}, which replaces "
                "them."
            )


def _require_no_group(folder: Path, words: Sequence[str]) -> None:
    """Raise InputError for a folder beside configs that makes a group of a key that is typed."""
    there = {path.name for path in folder.iterdir() if path.is_dir()}
    for word in map(Word.of, words):
        if word.key in there and word.key in ROOT and not (CONF / word.key).is_dir():
            raise InputError(
                f"{word} cannot be read: there is a folder {word.key} in --config-dir {folder}, "
                "and Hydra takes each folder there for a group of configs. Type --config-dir with "
                "a folder that has configs alone."
            )


def _require_package(given: Namespace) -> None:
    package = getattr(given, "package", None) or ""
    group, _, rest = package.partition(".")
    if package and not given.cfg:
        raise InputError(f"--package is of --cfg alone. Type --cfg job --package {package}.")
    if package and group not in {*ROOT, "hydra", "_global_"}:
        near = difflib.get_close_matches(group, ROOT, n=1) or ["optimizer"]
        raise InputError(f"{package} is no key of the config. Type --package {near[0]}.")
    there = {name for of, option in options() if of == group for name in option}
    if rest and group in ROOT and rest.partition(".")[0] not in there:
        raise InputError(f"{package} is no key of the config. Type --package {group}.")


def _meant(flag: str, after: str, known: Sequence[str]) -> str:
    """A key in place of what is no flag, or else a flag; never one that has a training start."""
    flag, equals, value = flag.partition("=")
    name = flag.lstrip("-").replace("-", "_")
    keys = [*ROOT, *(path.name for path in CONF.iterdir() if path.is_dir())]
    after = after if "=" not in after else ""
    if name.partition(".")[0] in keys and "." in name:
        return f"{name}={value or after or 'VALUE'}"
    if name == "sweep" and not value and not after and "--multirun" in known:
        return "--multirun"
    near = difflib.get_close_matches(name, keys, n=1, cutoff=0.75)
    flags = [each for each in known if each not in ("--run", "--experimental-rerun")]
    if not near and (like := difflib.get_close_matches(flag, flags, n=1, cutoff=0.75)):
        return like[0]
    if not near and (value or after):
        near = difflib.get_close_matches(name, keys, n=1, cutoff=0.65)
    for key in near:
        if key in ROOT and ROOT[key].type is bool:
            return f"{key}={truth(value if equals else after)}"
        return f"{key}={value or after or 'VALUE'}"
    return "--help"


def _instead_of(message: str) -> str:
    """What to type in place of a value at a flag that takes none; empty for any other mistake."""
    said = re.match(r"argument (--[\w-]+)(?:/(-\w+))?: (.*)", message, re.DOTALL)
    flag, short, reason = said.groups() if said else ("", "", "")
    if ignored := re.match(r"ignored explicit argument '(.*)'", reason, re.DOTALL):
        word = ignored[1]
        if word and short and (key := f"{short[1:]}{word}".partition("=")[0]) in ROOT:
            is_switch = ROOT[key].type is bool and "=" not in word
            return f"{key}=true" if is_switch else f"{short[1:]}{word}"
        return f"{flag} {shell(word)}" if Word.of(word).value is not None else "--help"
    return ""
