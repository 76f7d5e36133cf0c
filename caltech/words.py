"""A word of the command line: how it is read, and what is like it."""

import dataclasses
import importlib
import inspect
import re
import shlex
import types
import typing
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from hydra.core.override_parser.types import IntervalSweep
from omegaconf import DictConfig, OmegaConf

from caltech.settings import KINDS, ROOT, kind, options

NOTHING = {"none", "nil", "nothing", "undefined"}  # other languages' words for null

SWITCHES = {"yes", "no", "on", "off", "y", "n", "t", "f", "true", "false", "1", "0"}
# What Hydra takes for several values, and Optuna for a space.
FUNCTIONS = ("choice", "range", "interval", "glob", "sort", "shuffle", "tag", "int", "float")


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
    keeps = not re.search(r"""["$`!]|\\(\\|$)""", word)  # what double quotes would change
    return word if plainly else f'"{word}"' if keeps else shlex.quote(word)


def is_nothing(value: str | None) -> bool:
    """Whether a value means none: null, in any case, or another language's word for it."""
    return (value or "").strip("'\"").casefold() in {"null", *NOTHING}


def plain(text: str) -> str:
    """With the dashes, quotes and spaces of a keyboard in place of a text program's."""
    ascii_of = {"Pd": "-", "Pi": "'", "Pf": "'", "Zs": " ", "Cf": ""}
    text = unicodedata.normalize("NFKC", text).replace("\N{MINUS SIGN}", "-")
    return "".join(ascii_of.get(unicodedata.category(each), each) for each in text)


def truth(value: str) -> str:
    """The true or false that a word for it may have meant."""
    return "false" if value.casefold() in ("false", "no", "off", "n", "f", "0") else "true"


def unreadable(text: str) -> str:
    """Why Hydra cannot read a word, in our words."""
    value = Word.of(text).value or ""
    if odd := [each for each in text if each != plain(each)]:
        return f"{text} has characters of a text program: {' '.join(odd)}."
    if re.search(r"^\s*,|,\s*,|,\s*$", value):
        return f"{text} has nothing beside a comma."
    name, called, _ = value.partition("(")
    if called and re.fullmatch(r"\w+", name) and name not in FUNCTIONS:
        return f"{text}: {name} is none of {', '.join(FUNCTIONS)}."
    for opening, closing in ("[]", "{}", "()"):
        if value.count(opening) != value.count(closing):
            return f"{text}: not every {opening} has its {closing}."
    for quote in "'\"":
        if value.count(quote) % 2:
            return f"{text}: a quotation mark is not closed."
    if called and name in FUNCTIONS:
        inside = value[len(name) :][1:-1]
        return f"{text}: {name}() " + (f"does not take {inside}." if inside else "is empty.")
    return f"{text} cannot be read: signs, spaces and letters beyond ASCII are put in quotes."


def paths(node: Any, hydra: bool, path: str = "") -> Iterator[str]:
    """The keys within a config, with their paths; Hydra's own only if they are asked for."""
    for name in node if isinstance(node, DictConfig) and not node._is_none() else ():
        if name[0] != "_" and (path or (name == "hydra") == hydra):
            yield f"{path}.{name}".lstrip(".")
            yield from paths(node._get_node(name), hydra, f"{path}.{name}".lstrip("."))


LISTS = (Sequence, Iterable)  # as an annotation says it


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
    if parameter is None or parameter.name == "group":  # which is a regular expression
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
    if parameter.name == "group" and isinstance(value, str):  # of file names (data/split.py)
        try:
            re.compile(value)
        except re.error as error:
            return f"it is a regular expression, and {error}"
    if reason := _not_taken(cfg, group, name, value):
        return reason
    node = OmegaConf.select(cfg, group)._get_node(name, validate_access=False)
    present = None if node is None else node._value()
    taken = _taken(parameter.annotation)
    is_told_there = key == "tracking.uri"  # tracking/address.py tells of tracking=none
    is_needed = parameter.default is inspect.Parameter.empty and not is_told_there
    if value is None and is_needed and not taken & {type(None), inspect.Parameter.empty, Any}:
        return "it needs a value"
    is_listed = str not in taken and {typing.get_origin(each) for each in taken} & {*LISTS}
    if is_listed and not isinstance(value, (list, type(None))):
        return "it is a list"
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


def _not_taken(cfg: DictConfig, group: str, name: str, value: Any) -> str | None:
    """Why an optimizer does not take an argument, by what torch says; by itself and with others."""
    node = OmegaConf.select(cfg, group)
    said = argument(cfg, f"{group}.{name}").annotation
    length = len(typing.get_args(said)) if typing.get_origin(said) is tuple else None
    given = value if isinstance(value, list) else [value]
    texts = [each for each in given if isinstance(each, str)]
    is_list = isinstance(value, list) and len(value) == length
    if length and (not is_list or any("${" not in each for each in texts)):
        return f"it is a list of {length} numbers"
    if texts:
        return None
    if isinstance(value, list):  # 0 is 0.0 to a key
        value = [float(each) if isinstance(each, int) else each for each in value]
    if not node._target_.startswith("torch.optim.") or group != "optimizer":
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float, list)):
        return None
    import torch

    taken = inspect.signature(getattr(torch.optim, node._target_.rpartition(".")[2])).parameters
    others = {each: node[each] for each in node if each in taken and each != name}
    errors = []
    for arguments in ({}, others):
        try:
            getattr(torch.optim, node._target_.rpartition(".")[2])(
                [torch.zeros(1, requires_grad=True)], **{**arguments, name: value}
            )
        except (TypeError, ValueError) as error:
            errors.append(str(error).splitlines()[0].rstrip("."))
    return errors[0] if len(errors) == 2 else None


def empty_space(space: IntervalSweep) -> str | None:
    """Why there is no number in a space; None if there is."""
    if not space.start < space.end:
        return "has nothing in it: its first end is to be below the second"
    is_log = "log" in space.tags and space.start <= 0
    return "is not allowed: with log its ends are above 0" if is_log else None


def deepest(cfg: DictConfig, key: str) -> tuple[Any, str, str | None]:
    """How far a key leads: the node there, its path, and the name that it does not have."""
    node, path = cfg, ""
    for name in key.split("."):
        if not isinstance(node, DictConfig) or node._is_none() or name not in node:
            return node, path, name
        node, path = node._get_node(name), f"{path}.{name}".lstrip(".")
    return node, path, None


def is_open(cfg: DictConfig, key: str) -> bool:
    """Whether a key that is not there can be added, as to hydra.job.env_set."""
    node, path, missing = deepest(cfg, key)
    is_open = isinstance(node, DictConfig) and not node._is_none() and not node._is_typed()
    is_open &= not path.startswith(("hydra.sweeper", "hydra.launcher"))
    return is_open and path.startswith("hydra.") and f"{path}.{missing}" == key
