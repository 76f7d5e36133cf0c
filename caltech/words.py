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
        raise InputError(f"{message}. Type --help to see what is possible.")

    parser.error = refuse
    for argument in arguments:
        if plain(argument).startswith("-") and not argument.startswith("-"):
            raise InputError(
                f"{argument} begins with no dash of a keyboard. Type {plain(argument)}."
            )
    known = [flag for flag in parser._option_string_actions if flag.startswith("--")]
    for flag in parser.parse_known_args(arguments)[1]:
        if not flag.startswith("-"):
            continue
        name, equals, value = flag.lstrip("-").replace("-", "_").partition("=")
        keys = [*ROOT, *(path.name for path in CONF.iterdir() if path.is_dir())]
        near = difflib.get_close_matches(flag.partition("=")[0], known, n=1, cutoff=0.7)
        if name.partition(".")[0] in keys and "." in name:
            near = [flag.lstrip("-") if equals else f"{name}=VALUE"]
        if not near and (key := difflib.get_close_matches(name, keys, n=1, cutoff=0.65)):
            after = arguments[list(arguments).index(flag) + 1 :]
            near = [f"{key[0]}={value if equals else (after or ['VALUE'])[0]}"]
        raise InputError(
            f"{flag} is no flag; keys and groups are typed without dashes, as KEY=VALUE. "
            f"Type {(near or ['--help'])[0]}."
        )


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
