"""Words of a command line: kept as one text, and as words again; with quotes, and without."""

import re
from collections.abc import Iterable

# What may hold a space: quoted, or within brackets of one or two kinds.
_WHOLE = re.compile(r"""(?:'[^']*'|"[^"]*"|\[[^\[\]]*\]|\{[^{}]*\}|\S)+""")
_BEGINS = re.compile(r"\+{0,2}[A-Za-z_][\w./@]*=|~[A-Za-z_]")


def apart(text: str) -> list[str]:
    """The words of a text that joined them with spaces; a value may have spaces, too."""
    words: list[str] = []
    for part in _WHOLE.finditer(text):
        if words and not _BEGINS.match(part[0]):  # it goes on: data.root=/my images
            words[-1] = f"{words[-1]} {part[0]}"
        else:
            words.append(part[0])
    return words


def name_of(word: str) -> str:
    """What a word sets: lr of lr=0.1, +lr=0.1 and ~lr."""
    return word.lstrip("+~").partition("=")[0]


def effective(words: Iterable[str]) -> list[str]:
    """Of words of one name the last, as Hydra takes it, where the first one stood."""
    return list({name_of(word): word for word in words}.values())


def quoted(text: str) -> str:
    """As Hydra takes a text of any characters: to it a backslash is itself but before a quote."""
    return "'" + re.sub(r"(\\*)('|$)", lambda m: 2 * m[1] + ("\\'" if m[2] else ""), text) + "'"


def unquoted(text: str) -> str:
    """Without quotes around it, which only Hydra needs."""
    if len(text) < 2 or text[0] not in "'\"" or text[0] != text[-1]:
        return text
    quote = text[0]
    return re.sub(rf"(\\+)({quote}|$)", lambda m: m[1][: len(m[1]) // 2] + m[2], text[1:-1])
