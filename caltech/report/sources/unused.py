"""What was found and is not what it should be: named, and not used."""

import zlib
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from caltech.amounts import printable
from caltech.errors import OF_ANOTHER_SHAPE, DamagedError
from caltech.files import require_no_pipe

# What reading a file can raise, whatever has become of its bytes.
UNREADABLE = (
    DamagedError, OSError, EOFError, RecursionError, *OF_ANOTHER_SHAPE, BadZipFile, zlib.error,
    YAMLError, OmegaConfBaseException,
)  # fmt: skip
LONGEST = 300  # characters of a reason


@dataclass(frozen=True)
class Unused:
    """A file, a run's directory or a tracked run that does not count, and why."""

    name: str
    why: str

    @classmethod
    def of(cls, path: Path, folder: Path, error: BaseException) -> "Unused":
        """In words that are the same wherever the folder lies."""
        why = str(error)
        if isinstance(error, OSError) and error.strerror:
            file = Path(str(error.filename or path))
            why = f"{file.name}: {error.strerror}" if file != path else error.strerror
        elif not isinstance(error, DamagedError):
            why = f"it cannot be read ({type(error).__name__}: {why})"
        name = path.relative_to(folder) if path.is_relative_to(folder) else path
        return cls(printable(name), printable(why.replace(f"{folder}/", ""))[:LONGEST].rstrip("."))

    def __str__(self) -> str:
        return f"{self.name} is not used: {self.why}."


def entries(folder: Path) -> tuple[list[Path], list[Unused]]:
    """What a folder has, by name; nothing if there is none, and told if it cannot be read."""
    try:
        return sorted(folder.iterdir()), []
    except FileNotFoundError:
        return [], []
    except OSError as error:
        return [], [Unused.of(folder, folder.parent, error)]


def text_of(path: Path) -> str:
    """What a file says, as UTF-8."""
    require_no_pipe(path)
    return path.read_text("utf-8")
