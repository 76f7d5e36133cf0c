"""The words of the commands that look at runs: names, and NAME=VALUE."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from caltech.arguments import nearest
from caltech.config import project_root
from caltech.errors import InputError
from caltech.overrides import unquoted

SWITCHES = {"true": True, "false": False}


def read(
    words: Sequence[str], command: str, defaults: Mapping[str, str | bool]
) -> tuple[list[str], dict[str, str | bool]]:
    """Plain words, and the value of every name, as typed or by default; --NAME is NAME=true.

    Raises:
        InputError: a name is none of these, or has no value or two, or a switch is neither true
            nor false.
    """
    plain, values, typed = [], dict(defaults), {}
    for word in words:
        name, equals, value = word.removeprefix("--").partition("=")
        if not equals and not word.startswith("-"):
            if isinstance(values.get(word), bool):
                raise InputError(f"{word} has no value. Type {word}=true.")
            plain.append(word)
            continue
        value = unquoted(value) if equals else "true"
        if name not in values:
            near = nearest(name, values)
            rest = [each for each in words if each != word] + [f"{near}={value}"] * bool(near)
            known = ", ".join(f"{each}=" for each in values)
            raise InputError(
                f"{word} is not of this command, which takes {known}. "
                f"Type {' '.join([command, *map(shlex.quote, rest)])}"
            )
        is_switch = isinstance(values[name], bool)
        if not is_switch and not (equals and value):
            raise InputError(f"{name} has no value. Type {name}=FOLDER.")
        if typed.setdefault(name, value) != value:
            both = f"{name}={typed[name]} and {name}={value}"
            raise InputError(f"{both} cannot both be. Type one of them.")
        if is_switch and value not in SWITCHES:
            raise InputError(f"{word} is neither true nor false. Type {name}=true.")
        values[name] = SWITCHES[value] if is_switch else value
    return plain, values


def default_output() -> str:
    """Where studies are if nothing else is typed."""
    return f"{project_root()}/multirun"


def studies(output: Path, names: Sequence[str]) -> list[Path]:
    """Folders of the studies of these names, or of all.

    Raises:
        InputError: there is none of that name.
    """
    found = sorted({path.parent.parent for path in output.glob("*/*/config.yaml")})
    known = [path.name for path in found]
    for name in names:
        if name not in known:
            near = nearest(name, known, 0)
            instead = f"Type {near}" if near else "Train a run first: caltech train data=digits"
            raise InputError(
                f"There is no study {name} with runs in {output}. Studies there are: "
                f"{', '.join(known) or 'none'}. {instead}."
            )
    return [path for path in found if not names or path.name in names]
