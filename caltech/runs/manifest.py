"""Which files belong to a run's result: their SHA-256, written just before the result itself.

manifest.json is sealed: {"key": the run's, "files": {name: SHA-256}}. So the weights, answers,
config or provenance of another run, or edited ones, are told from the run's own. A run of earlier
code has none: of its config, the key is computed again.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from caltech.errors import DamagedError
from caltech.files import read_sealed_json, write_sealed_json
from caltech.runs.directory import WEIGHTS, RunDirectory


def write(directory: RunDirectory, key: str, result: bytes) -> None:
    """Of all files of a run that has ended, and of the result that is about to be written."""
    files = [directory.config, directory.provenance, directory.data, directory.timing]
    files += [directory.history, *map(directory.weights, WEIGHTS)]
    files += map(directory.predictions, WEIGHTS)
    sums = {path.name: _sha256(path) for path in files if path.is_file()}
    sums[directory.result.name] = hashlib.sha256(result).hexdigest()
    write_sealed_json(directory.manifest, {"key": key, "files": sums})


def verify(directory: RunDirectory, names: Iterable[str | Path]) -> None:
    """Compare files of a run that has ended with what it wrote.

    Args:
        names: of files in the directory. What the run did not write is not its file, either.

    Raises:
        DamagedError: names the first file that does not belong to the run.
    """
    if not directory.manifest.is_file():
        return
    kept = read_sealed_json(directory.manifest)
    for name in (Path(name).name for name in names):
        path = directory.path / name
        if not path.is_file() or kept["files"].get(name) != _sha256(path):
            raise DamagedError(
                f"{path} is not the file that run {kept['key']} wrote there ({directory.manifest})."
            )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
