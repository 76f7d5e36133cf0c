"""Whether there can be anything to report, before it is read: a mistyped name is told at once."""

import re
import sqlite3
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import quote

from omegaconf import DictConfig

from caltech.errors import InputError
from caltech.passwords import without_passwords
from caltech.runs.known import RUNS, other_studies
from caltech.settings import CONF

NAMED = re.compile(r"^study: *['\"]?([^'\"#\n]*?)['\"]? *(#.*)?$", re.MULTILINE)


def require_known(tracking: DictConfig, output: Path, studies: Sequence[str]) -> None:
    """Raise InputError for a study of which there is neither a run nor a row that is published.

    A store that is a server is asked later, since that takes seconds.
    """
    for study in studies:
        folder = output / study
        if any(folder.glob(RUNS)) or any(folder.glob("kept/*")):
            continue
        if not _is_of_an_experiment(study) and not _may_be_tracked(tracking, study):
            raise nothing_of(study, output, tracking)


def nothing_of(study: str, output: Path, tracking: DictConfig, wrong: str = "") -> InputError:
    """What to type in place of a study that is not there.

    Args:
        wrong: what is there and cannot be read, in sentences.
    """
    store = without_passwords(tracking.get("uri") or "a tracking store (tracking=none)")
    return InputError(
        f"study={study} has no run in {output / study}, {output / study / 'kept'} or {store}. "
        f"{wrong}{' ' * bool(wrong)}{other_studies(study, output, (RUNS, 'kept/*'), True)}"
    )


def _is_of_an_experiment(study: str) -> bool:
    files = (CONF / "experiment").rglob("*.yaml")
    return any(study in (found[1] for found in NAMED.finditer(path.read_text())) for path in files)


def _may_be_tracked(tracking: DictConfig, study: str) -> bool:
    """Whether the store has a run of the study; True where that is not told in a moment."""
    uri = tracking.get("uri")
    if not uri or not uri.startswith("sqlite"):
        return bool(uri)
    from sqlalchemy.engine import make_url

    with suppress(Exception):  # what is wrong with a store is told by who reads it
        path = Path(make_url(uri).database or "")
        if not path.exists():
            return False
        address = f"file:{quote(str(path.absolute()))}?mode=ro"
        with closing(sqlite3.connect(address, uri=True)) as store:
            told = "SELECT 1 FROM tags WHERE key = 'study' AND value = ? LIMIT 1"
            return store.execute(told, (study,)).fetchone() is not None
    return True
