"""Command lines that Hydra does not read: NAME=VALUE or --NAME VALUE, and what was meant by a word
that is none of these."""

import argparse
import difflib
import os
import re
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from caltech.overrides import unquoted


def count(typed: str) -> int:
    """A number of things; its option's metavar is an example."""
    if not typed.isdecimal() or int(typed) < 1:
        raise ValueError(typed)
    return int(typed)


NUMBERS = {int: ("a whole number", "1"), float: ("a number", "1e-4"), count: ("from 1 on", None)}


def nearest(name: str, known: Iterable[str], cutoff: float = 0.5) -> str:
    """Of names that there are, the one most like what was typed; empty if none is like it."""
    by_case = {each.casefold(): each for each in known}
    like = difflib.get_close_matches(name.casefold(), by_case, n=1, cutoff=cutoff)
    return by_case[like[0]] if like else ""


def nearest_place(path: Path) -> Path | None:
    """A file or folder that is there and called almost so: photos for phtos, and below it."""
    for above in path.parents:
        if above.is_dir():
            first, *rest = path.relative_to(above).parts
            with suppress(OSError):
                near = nearest(first, [each.name for each in above.iterdir()], 0.7)
                found = above.joinpath(near, *rest)
                return found if near and found.exists() else None
            return None
    return None


def _option_like(name: str, known: Iterable[str]) -> str:
    """The option that is meant; three letters are another word unless they are its own, turned."""
    letters = sorted(name.casefold())
    turned = next((each for each in known if sorted(each) == letters), "")
    return turned or nearest(name, known, 0.6 if len(name) > 3 else 0.85)


def _as_typed(value: Any) -> Any:
    """Without the sign that was put before words after --."""
    if isinstance(value, list):
        return [each.removeprefix("\0") for each in value]
    return value.removeprefix("\0") if isinstance(value, str) else value


class _Once(argparse.Action):
    """Keeps a value, and refuses another one: which of two is meant cannot be told."""

    given: Any = None

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        if self.given is not None and self.given != values:
            both = f"{self.dest}={self.given} and {self.dest}={values}"
            parser.error(f"{both} cannot both be. Type one of them")
        self.given = values
        setattr(namespace, self.dest, values)


class Parser(argparse.ArgumentParser):
    """argparse that also takes name=VALUE, and whose errors are one line in our words."""

    def __init__(self, usage: str, description: str) -> None:
        super().__init__(
            usage=usage,
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            epilog="Every --name VALUE can be written name=VALUE.",
            allow_abbrev=False,
        )
        self.register("action", None, _Once)

    def read(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse, with name=VALUE as --name=VALUE for every option that takes a value.

        A word that need not be there, STUDY, can be typed as study=VALUE, too. What stands after --
        is taken as it is, since a file's name may begin with a dash.
        """
        end = arguments.index("--") if "--" in arguments else len(arguments)
        before, after = arguments[:end], arguments[end + 1 :]
        flags = {s for a in self._actions for s in a.option_strings if a.nargs == 0}
        names = {s[2:] for s in self._option_string_actions if s.startswith("--")} - {
            flag[2:] for flag in flags
        }
        places = {a.dest for a in self._actions if a.nargs == "?" and not a.option_strings}
        self._refuse_misspelt(before, names | places, flags)
        self._refuse_late(after, names | places, flags)
        words, typed = [], {}
        for word in before:
            name, equals, value = word.removeprefix("--").partition("=")
            value = unquoted(value)
            if equals and name in names | places and not value:
                self.error(f"argument --{name}: expected one argument")
            if equals and name in places:
                self._require_one(name, typed.setdefault(name, value), value)
            else:
                words.append(f"--{name}={value}" if equals and name in names else word)
        # argparse of Python 3.11 loses what stands after its own --: a sign that no word has says
        # that it is no option.
        given = self.parse_intermixed_args([*words, *(f"\0{word}" for word in after)])
        for action in self._actions:
            if after and not action.option_strings:
                setattr(given, action.dest, _as_typed(getattr(given, action.dest)))
        for name, value in typed.items():
            if (bare := getattr(given, name)) != self.get_default(name):
                self._require_one(name, bare, value)
        vars(given).update(typed)
        return given

    def _require_one(self, name: str, first: Any, second: Any) -> None:
        """Refuse another value of what has one: which of two is meant cannot be told."""
        if first != second:
            self.error(f"{name}={first} and {name}={second} cannot both be. Type one of them")

    def _refuse_misspelt(
        self, arguments: Sequence[str], names: Collection[str], flags: Collection[str]
    ) -> None:
        """A word that is no file and nearly an option is not taken for an image."""
        for position, word in enumerate(arguments):
            name, equals, value = word.partition("=")
            if equals and not name.strip():
                self._refuse_torn(arguments, position, names)
            self._refuse_dashed(word, [*arguments[:position][-1:], ""][0])
            name = name.strip("- ")
            if equals and f"--{name}" in flags:
                self.error(f"{word}: --{name} takes no value. Type --{name}, or leave it out")
            if not equals or name in names or os.path.exists(word):  # noqa: PTH110 (if too long)
                continue
            if close := _option_like(name, names):
                self.error(f"{word} is no option. Type {close}={value}")
            if re.fullmatch(r"\w+", name) and not re.search(r"[/*?]|\.[A-Za-z]\w*$", value):
                known = ", ".join(f"{each}=" for each in sorted(names))
                self.error(f"{word} is no option. Options are {known}")

    def _refuse_torn(
        self, arguments: Sequence[str], position: int, names: Collection[str]
    ) -> NoReturn:
        """`run =KEY` and `run = KEY`; what follows these is another word."""
        word = arguments[position]
        first = arguments[position - 1] if position else ""
        after = arguments[position + 1 : position + 2] if not word.partition("=")[2] else []
        if first.removeprefix("--") not in names:
            self.error(f"{word} has no name before it. Type {min(names)}{word} for example")
        if not word.partition("=")[2] and (
            not after or after[0].partition("=")[0].removeprefix("--") in names
        ):
            self.error(f"argument --{first.removeprefix('--')}: expected one argument")
        torn = [first, word, *after]
        joined = shlex.quote("".join(each.strip() for each in torn))
        self.error(f"{' '.join(torn)} is torn apart by spaces. Type {joined}")

    def _refuse_dashed(self, word: str, before: str) -> None:
        """A file whose name begins with a dash is typed after --."""
        place = next((a for a in reversed(self._actions) if not a.option_strings), None)
        is_value = before.startswith("--") and "=" not in before  # --tolerance -1
        is_dashed = re.match("-[^-]", word) and word not in self._option_string_actions
        if place is None or is_value or not is_dashed:
            return
        flags = {flag[2:] for flag in self._option_string_actions}
        if (near := _option_like(word[1:], flags)) and not os.path.exists(word):  # noqa: PTH110
            self.error(f"{word} is no option. Type --{near}")
        named = place.metavar or place.dest
        self.error(f"{word} is no option. Type -- {word} at the end if it is the {named}")

    def _refuse_late(
        self, words: Sequence[str], names: Collection[str], flags: Collection[str]
    ) -> None:
        """After -- an option would be taken for a file."""
        for word in words:
            name = word.partition("=")[0].removeprefix("--")
            is_option = word in flags or ("=" in word and name in names)
            if is_option and not os.path.exists(word):  # noqa: PTH110
                self.error(f"{word} stands after --, where no options are. Type {word} before --")

    def error(self, message: str) -> NoReturn:
        said = told(message, self)
        self.exit(2, f"error: {said}.{' Type --help to see more.' * ('Type ' not in said)}\n")


def told(
    message: str, parser: argparse.ArgumentParser, examples: Mapping[str, str] | None = None
) -> str:
    """What argparse says, in our words: what was given, what is allowed, what to type.

    Args:
        examples: of options' values, where the first choice is not the best one.
    """
    if unknown := re.match(r"unrecognized arguments: (\S+)", message):
        word = unknown[1]
        known = {flag.lstrip("-") for flag in parser._option_string_actions}
        near = _option_like(word.strip("-"), known) if word.startswith("-") else ""
        what = "is no option" if word.startswith("-") else "is one word too many"
        return f"{word} {what}. Type --{near}" if near else f"{word} {what}"
    if lacking := re.match("the following arguments are required: (.*)", message):
        first = lacking[1].split(", ")[0].split("/")[0]
        return f"{first.removeprefix('--')} is missing{_advice(first, '', parser, examples or {})}"
    said = re.match(r"argument ([^:/]+)[^:]*: (.*)", message, re.DOTALL)
    if not said or not (action := _action(said[1], parser)):
        return message.rstrip(".")
    advice = _advice(said[1], "", parser, examples or {})
    if said[2].startswith("expected"):
        return f"{_typed(action, '', parser).rstrip('= ')} has no value{advice}"
    wrong = re.match(r"invalid (?:choice|\w+ value): '(.*?)'( \(choose|$)", said[2], re.DOTALL)
    if not wrong:
        return f"{_typed(action, '', parser).rstrip('= ')}: {said[2].rstrip('.')}"
    advice = _advice(said[1], wrong[1], parser, examples or {})
    return f"{_typed(action, wrong[1], parser)} is not allowed{advice}"


def _action(name: str, parser: argparse.ArgumentParser) -> argparse.Action | None:
    named = {each.metavar or each.dest: each for each in parser._actions}
    return parser._option_string_actions.get(name) or named.get(name)


def _typed(action: argparse.Action, value: str, parser: argparse.ArgumentParser) -> str:
    """As it is typed: --cfg job to Hydra, format=onnx to us."""
    long = [each for each in action.option_strings if each.startswith("--")]
    if not long:
        return value or action.metavar or action.dest
    return f"{long[0][2:]}={value}" if isinstance(parser, Parser) else f"{long[0]} {value}"


def _advice(
    name: str, given: str, parser: argparse.ArgumentParser, examples: Mapping[str, str]
) -> str:
    """What an option takes, and one value that it takes: the nearest, or else an example."""
    action = _action(name, parser)
    if action is None:
        return ""
    if not action.option_strings and not action.choices:
        return f": {action.help}" if action.help else ""
    rule, example = NUMBERS.get(action.type, ("", None))
    example = example or action.metavar or "VALUE"
    if action.choices:
        rule = f"one of {', '.join(action.choices)}"
        example = nearest(given, action.choices) or next(iter(action.choices))
    if not nearest(given, action.choices or ()):
        example = examples.get(action.dest, example)
    return f"{f': it is {rule}' * bool(rule)}. Type {_typed(action, example, parser)}"
