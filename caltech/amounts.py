"""Numbers of things and names as people read them: `1 file`, `2 files`, `410 kB`."""

UNITS = ("B", "kB", "MB", "GB", "TB")


def counted(number: int, thing: str, things: str = "") -> str:
    """A number with its noun: `1 class`, `2 classes`.

    Args:
        things: the noun of several, if that is not `thing` with an s.
    """
    return f"{number} {thing if number == 1 else things or f'{thing}s'}"


def size_of(count: float) -> str:
    """Bytes in the unit that fits, in two digits or three: 72 B, 410 kB, 1.7 GB."""
    for unit in UNITS:
        # As it is shown: 999.6 kB are 1.0 MB.
        if round(count) < 1000 or unit == UNITS[-1]:
            break
        count /= 1000
    return f"{count:.1f} {unit}" if unit != "B" and round(count, 1) < 10 else f"{count:.0f} {unit}"


def short(word: str) -> str:
    """lr=0.1234567 as lr=0.123; a whole number, as a seed, has all its digits."""
    name, _, value = word.partition("=")
    if "." not in value:
        return word
    try:
        return f"{name}={float(value):.3g}"
    except ValueError:
        return word


def printable(text: object) -> str:
    """One line that a terminal shows as it is, whatever a file's name or content is."""
    line = " ".join(str(text).split())
    return "".join(each if each.isprintable() else "?" for each in line)


def is_number(value: object) -> bool:
    """Whether it is one, and no truth value, which Python counts among them."""
    return isinstance(value, int | float) and not isinstance(value, bool)
