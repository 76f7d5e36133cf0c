"""A word of the command line: how it is read, and what is like it."""

import dataclasses
import difflib
import re
import shlex
import unicodedata
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from typing import Any

from hydra._internal.utils import get_args_parser
from omegaconf import DictConfig

from caltech.errors import InputError
from caltech.settings import CONF, ROOT

NOTHING = {"none", "nil", "nothing", "undefined"}  # other languages' words for null


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
    return [value, *nothing, *quoted, tidy, point, *whole, bare, bare.casefold(), spaced]


def paths(node: Any, hydra: bool, path: str = "") -> Iterator[str]:
    """The keys within a config, with their paths; Hydra's own only if they are asked for."""
    for name in node if isinstance(node, DictConfig) and not node._is_none() else ():
        if name[0] != "_" and (path or (name == "hydra") == hydra):
            yield f"{path}.{name}".lstrip(".")
            yield from paths(node._get_node(name), hydra, f"{path}.{name}".lstrip("."))
