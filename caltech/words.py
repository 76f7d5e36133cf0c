"""A word of the command line: how it is read, and what is like it."""

import dataclasses
import difflib
import importlib
import inspect
import re
import shlex
import types
import typing
import unicodedata
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hydra._internal.utils import get_args_parser
from omegaconf import DictConfig, OmegaConf

from caltech.errors import InputError
from caltech.settings import CONF, KINDS, ROOT, kind, options

NOTHING = {"none", "nil", "nothing", "undefined"}  # other languages' words for null

PAIR = r"([\w./]+)\s*:\s*(?:[\"']([^\"']*)[\"']|([^,}]+))"  # of {name:value, name:value}
SWITCHES = {"yes", "no", "on", "off", "y", "n", "t", "f", "true", "false", "1", "0"}


@dataclasses.dataclass(frozen=True)
class Word:
    """PREFIX KEY = VALUE as typed; the value is None without a sign of equality."""

    prefix: str
    key: str
    value: str | None

    @classmethod
    def of(cls, text: str) -> "Word":
        prefix = re.match(r"\+\+|\+|~|", text)[0]
        key, equals, value = text[len(prefix) :].partition("=")
        return cls(prefix, key, value if equals else None)

    def __str__(self) -> str:
        return f"{self.prefix}{self.key}" + ("" if self.value is None else f"={self.value}")


def shell(word: str) -> str:
    """As it is typed into a shell."""
    plainly = re.fullmatch(r"[\w@%+=:,./-]+", word, re.ASCII)
    return word if plainly else shlex.quote(word) if set(word) & set('"$`\\!') else f'"{word}"'


def plain(text: str) -> str:
    """With the dashes, quotes and spaces of a keyboard in place of a text program's."""
    ascii_of = {"Pd": "-", "Pi": "'", "Pf": "'", "Zs": " ", "Cf": ""}
    text = unicodedata.normalize("NFKC", text).replace("\N{MINUS SIGN}", "-")
    return "".join(ascii_of.get(unicodedata.category(each), each) for each in text)


def require_flags(arguments: Sequence[str], parser: ArgumentParser | None = None) -> None:
    """Raise InputError for what begins with a dash and is no flag of the parser, or of Hydra's."""
    parser = parser or get_args_parser()

    def refuse(message: str) -> None:
        raise InputError(f"{message}. Type {_instead_of(message)}.")

    parser.error = refuse
    for argument in arguments:
        if plain(argument).startswith("-") and not argument.startswith("-"):
            raise InputError(
                f"{argument} begins with no dash of a keyboard. Type {plain(argument)}."
            )
    given, rest = parser.parse_known_args(arguments)
    known = [each for each in parser._option_string_actions if each.startswith("--")]
    for flag in rest:
        if flag.startswith("-"):
            after = [*arguments[list(arguments).index(flag) + 1 :], ""][0]
            raise InputError(
                f"{flag} is no flag; keys and groups are typed without dashes, as KEY=VALUE. "
                f"Type {_meant(flag, '' if after.startswith('-') else after, known)}."
            )
    package = getattr(given, "package", None)
    if package and not given.cfg:
        raise InputError(f"--package is of --cfg alone. Type --cfg job --package {package}.")
    if package and package.partition(".")[0] not in {*ROOT, "hydra", "_global_"}:
        near = difflib.get_close_matches(package, ROOT, n=1) or ["optimizer"]
        raise InputError(f"{package} is no key of the config. Type --package {near[0]}.")


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
    if not near and (like := difflib.get_close_matches(flag, flags, n=1, cutoff=0.7)):
        return like[0]
    if not near and (value or after):
        near = difflib.get_close_matches(name, keys, n=1, cutoff=0.65)
    for key in near:
        if key in ROOT and ROOT[key].type is bool:
            return f"{key}={truth(value if equals else after)}"
        return f"{key}={value or after or 'VALUE'}"
    return "--help"


def _instead_of(message: str) -> str:
    """What to type in place of what a parser of flags does not take, by what it says."""
    said = re.match(r"argument (--[\w-]+)(?:/(-\w+))?: (.*)", message, re.DOTALL)
    flag, short, reason = said.groups() if said else ("", "", "")
    values = {"--cfg": "job", "--info": "defaults", "--package": "optimizer"}
    if ignored := re.match(r"ignored explicit argument '(.*)'", reason, re.DOTALL):
        word = ignored[1]
        if word and short and (key := f"{short[1:]}{word}".partition("=")[0]) in ROOT:
            is_switch = ROOT[key].type is bool and "=" not in word
            return f"{key}=true" if is_switch else f"{short[1:]}{word}"
        return f"{flag} {shell(word)}" if Word.of(word).value is not None else "--help"
    if reason.startswith(("expected one argument", "invalid choice")) and flag in values:
        return f"{flag} {values[flag]}"
    if reason.startswith("expected one argument"):
        return f"{flag} VALUE"
    return "--help to see what is possible"


def truth(value: str) -> str:
    """The true or false that a word for it may have meant."""
    return "false" if value.casefold() in ("false", "no", "off", "n", "f", "0") else "true"


def unreadable(text: str) -> str:
    """Why Hydra cannot read a word, in our words."""
    value = Word.of(text).value or ""
    if odd := [each for each in text if each != plain(each)]:
        return f"{text} has characters of a text program: {' '.join(odd)}."
    for opening, closing in ("[]", "{}", "()"):
        if value.count(opening) != value.count(closing):
            return f"{text}: not every {opening} has its {closing}."
    for quote in "'\"":
        if value.count(quote) % 2:
            return f"{text}: a quotation mark is not closed."
    return f"{text} cannot be read: signs, spaces and letters beyond ASCII are put in quotes."


def values_like(value: str) -> list[str]:
    """Values like one that was typed: as it is, tidied, and as text."""
    tidy = plain(value).strip(" ,;=")
    bare = tidy.strip("'\"[](){} ,;")
    point = bare.replace(",", ".") if bare.count(",") == 1 else bare
    nothing = ["null"] if bare.casefold() in NOTHING else []
    number = re.fullmatch(r"[0-9]+(\.[0-9]*)?(e\+?[0-9])?", bare)
    whole = [str(int(float(bare)))] if number and float(bare).is_integer() else []
    text = value.strip().strip("'\"")
    quoted = ["'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"] if text else []
    spaced = bare.replace(" ", ",")
    switch = [truth(bare)] if bare.casefold() in SWITCHES else []
    return [value, *nothing, *switch, *quoted, tidy, point, *whole, bare, bare.casefold(), spaced]


def paths(node: Any, hydra: bool, path: str = "") -> Iterator[str]:
    """The keys within a config, with their paths; Hydra's own only if they are asked for."""
    for name in node if isinstance(node, DictConfig) and not node._is_none() else ():
        if name[0] != "_" and (path or (name == "hydra") == hydra):
            yield f"{path}.{name}".lstrip(".")
            yield from paths(node._get_node(name), hydra, f"{path}.{name}".lstrip("."))


def argument(cfg: DictConfig, key: str) -> inspect.Parameter | None:
    """The argument that a key within a group is, of what the group's option calls."""
    group, _, name = key.rpartition(".")
    node = OmegaConf.select(cfg, group, throw_on_resolution_failure=False) if group else None
    target = node.get("_target_") if isinstance(node, DictConfig) else None
    if target not in {option["_target_"] for _, option in options()}:
        return None
    module, _, leaf = target.rpartition(".")
    called = getattr(importlib.import_module(module), leaf)
    try:
        return inspect.signature(called, eval_str=True).parameters.get(name)
    except NameError:  # a type that is there for checkers alone
        return inspect.signature(called).parameters.get(name)


def is_of_its_type(cfg: DictConfig, key: str) -> bool:
    """Whether the value at a key within a group is plainly what its argument takes: a text where no
    truth or number is taken, a truth or null. A number's range is more to ask (misfit)."""
    parameter = argument(cfg, key)
    if parameter is None:
        return False
    taken = _taken(parameter.annotation)
    value = OmegaConf.select(cfg, key, throw_on_resolution_failure=False)
    if isinstance(value, str):
        return taken <= {str, type(None)}
    return taken <= {str, bool, type(None)} and type(value) in taken - {str}


def misfit(cfg: DictConfig, key: str, value: Any) -> str | None:
    """Why a key within a group does not take a value, by what is there; None if it does.

    What is called would take any text for true, or fail at it late.
    """
    parameter = argument(cfg, key)
    if parameter is None or (isinstance(value, str) and "${" in value):
        return None
    group, _, name = key.rpartition(".")
    node = OmegaConf.select(cfg, group)._get_node(name, validate_access=False)
    present = None if node is None else node._value()
    taken = _taken(parameter.annotation)
    if isinstance(present, bool) or taken == {inspect.Parameter.empty}:
        like = present if isinstance(present, (bool, int, float)) else parameter.default
        taken = {type(like) if isinstance(like, bool) else float if present is like else str}
    if taken == {bool, str} and str(value).casefold() in SWITCHES and not isinstance(value, bool):
        return f"it is {KINDS[bool]}, or {present}"
    if not taken <= {bool, int, float, type(None)} or (value is None and type(None) in taken):
        return None
    if bool in taken:
        is_number = isinstance(value, int) and value in (0, 1)  # of that truth, by another key
        is_taken = is_number or len(taken - {bool, type(None)}) > 0
        return None if is_taken else f"it is {KINDS[bool]}"
    if float in taken and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    root = re.fullmatch(r"\$\{(\w+)\}", str(present))
    if root and root[1] in ROOT and ROOT[root[1]].type in (int, float):
        of_root = ROOT[root[1]]
        if type(value) is float and value.is_integer():  # 5.0 for 5 is the same run
            value = of_root.type(value)
        is_taken = type(value) in (int, of_root.type) and of_root.allowed(value)
        return None if is_taken else kind(root[1])
    number = float if float in taken else int
    return None if type(value) is number else f"it is {KINDS[number]}"


def _taken(said: Any) -> set[Any]:
    """The types of an annotation, without tensors, which no file has."""
    is_union = isinstance(said, types.UnionType) or typing.get_origin(said) is typing.Union
    taken = {*typing.get_args(said)} if is_union else {said}
    return {each for each in taken if getattr(each, "__name__", "") != "Tensor"}


def elsewhere(word: Word, cutoff: float) -> str:
    """The option of a word's group that has its key, or one like it; empty if none has.

    One that needs a value there goes before one that has its own.
    """
    group, _, name = word.key.rpartition(".")
    found: dict[bool, str] = {}
    for path in sorted((CONF / group).glob("*.yaml")) if group in ROOT else ():
        option = OmegaConf.to_container(OmegaConf.load(path))
        for close in difflib.get_close_matches(name, option, n=1, cutoff=cutoff):
            needs = option[close] in (None, "???")
            found[needs] = f"{group}={path.stem} {shell(f'{group}.{close}={word.value}')}"
    return found.get(True) or found.get(False) or ""


def swept(word: Word) -> str:
    """The words of a sweep that were given as one, {lr:"0.1,0.2"}; empty if that is none."""
    pairs = re.findall(PAIR, word.value or "") if word.key == "hydra.sweeper.params" else ()
    return " ".join(shell(f"{key}={quoted or bare}") for key, quoted, bare in pairs)


def near_names(name: str, named: Mapping[str, str]) -> list[str]:
    """Of keys in one place by their names, those like a name."""
    mixed = [each for each in named if sorted(each) == sorted(name)]
    near = difflib.get_close_matches(name, named, n=3, cutoff=0.7)
    longer = [each for each in named if len(name) > 3 and (name in each or each in name)]
    return [named[each] for each in dict.fromkeys([*mixed, *near, *longer])][:3]
