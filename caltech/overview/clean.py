"""Free disk: `caltech clean [KIND...] [yes=true] [output=FOLDER] [cache=FOLDER]`.

Never a result or what it needs, never anything of a run that a process computes just now.
"""

import os
import re
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from caltech.amounts import counted, size_of
from caltech.arguments import nearest, nearest_place
from caltech.errors import DamagedError, InputError, shown_as_messages
from caltech.files import read_sealed_json
from caltech.locks import leftovers, remove_leftovers
from caltech.overview import typed
from caltech.runs import manifest
from caltech.runs.directory import WEIGHTS, RunDirectory
from caltech.runs.known import tell_unread

DAYS = 30
# Of the caches' folder, which may be somebody's own with other things in it.
CACHES = ("pixels", "features", "readable", "digests")
NOTE = {"row_bytes": int, "shape": list, "dtype": str, "blocks": list}  # of caltech.cache
OF_A_RUN = re.compile(r"^key: .*^directory: ", re.MULTILINE | re.DOTALL)
KINDS = {
    "checkpoints": "of finished runs, which need none",
    "reruns": "weights that rerun=true set aside",
    "leftovers": "temporary files of killed processes",
    "caches": f"not read for {DAYS} days; made again if needed",
}
# What somebody may want to have: it goes only if it is typed.
ON_REQUEST = {
    "kept": "checkpoints that keep_checkpoint=true kept",
    "last": "weights of last epochs; the best ones stay",
}
ALL = KINDS | ON_REQUEST
HELP = f"""\
usage: caltech clean [KIND...] [yes=true] [output=FOLDER] [cache=FOLDER]

Say what can be deleted, and how much that frees; yes=true deletes it. A KIND is
{chr(10).join(f"  {name:13}{says}" for name, says in ALL.items())}
Without a KIND it is all but kept, from which more num_epochs go on, and last,
which predict weights=last would need.
Results, answers and the best weights of runs stay, and so does everything of a
run that a process computes just now."""


@dataclass(frozen=True)
class Found:
    """Files that can go, and whose."""

    kind: str
    paths: tuple[Path, ...]
    run: RunDirectory | None = None

    @property
    def bytes(self) -> int:
        """What deleting them frees: nothing of a file that has another name, too."""
        states = [path.lstat() for path in self.paths if os.path.lexists(path)]
        return sum(state.st_blocks * 512 for state in states if state.st_nlink == 1)


def main(words: Sequence[str]) -> None:
    """The command.

    Raises:
        InputError: a word is no kind of what can go.
    """
    if {"-h", "--help"} & set(words):
        print(HELP)
        return
    cache = os.environ.get("CALTECH_CACHE", "~/.cache/caltech")
    defaults = {"yes": False, "output": typed.default_output(), "cache": cache}
    kinds, values = typed.read(words, "caltech clean", defaults)
    for kind in kinds:
        if kind not in ALL:
            near = f"Type {nearest(kind, ALL)}." if nearest(kind, ALL) else "Type one of them."
            raise InputError(f"{kind} is no kind of what can go: they are {', '.join(ALL)}. {near}")
    output, cache = (_folder(name, values[name], defaults[name]) for name in ("output", "cache"))
    tell_unread(output)
    chosen = [kind for kind in ALL if kind in (kinds or KINDS)]
    found = [each for each in search(output, cache) if each.kind in chosen]
    for kind in chosen:
        of_kind = [each for each in found if each.kind == kind]
        count = sum(len(each.paths) for each in of_kind)
        size = size_of(sum(each.bytes for each in of_kind))
        print(f"{kind:12} {counted(count, 'file'):>11}  {size:>8}  {ALL[kind]}")
    if values["yes"]:
        print(f"freed {size_of(sum(map(free, found)))}")
    elif found:
        asked = [word for word in words if not word.startswith("yes=")]
        print("Nothing is deleted yet. To free it, type:")
        print(f"  {shlex.join(['caltech', 'clean', *asked])} yes=true")


def _folder(name: str, value: str, default: str) -> Path:
    """Of a folder that was typed and is not there, nothing to free would be a wrong answer."""
    path = Path(value).expanduser()
    if value != default and not path.is_dir():
        near = nearest_place(path)
        instead = f"Type {name}={near}" if near else f"Type {name}=FOLDER, or leave it out"
        raise InputError(f"{name}={value} is no folder here. {instead}.")
    return path


def search(output: Path, cache: Path) -> Iterator[Found]:
    """All that can go; nothing is locked or changed."""
    configs = sorted(output.glob("*/*/config.yaml"))
    runs = [RunDirectory(path.parent) for path in configs if _is_of_a_run(path)]
    for run in runs:
        if not run.is_held():
            for kind in ("checkpoints", "reruns", *ON_REQUEST):
                if paths := _of_run(run, kind):
                    yield Found(kind, paths, run)
    folders = {run.path.parent for run in runs} | {run.path for run in runs}
    for folder in [*sorted(folders), *(cache / name for name in CACHES)]:
        if paths := tuple(leftovers(folder)):
            yield Found("leftovers", paths)
    for path in sorted(path for name in CACHES for path in cache.glob(f"{name}/*.bin")):
        status = path.stat()
        is_old = time.time() - max(status.st_atime, status.st_mtime) > DAYS * 24 * 3600
        if is_old and _is_noted(path.with_suffix(".json")):
            yield Found("caches", (path, path.with_suffix(".json")))


def _is_of_a_run(config: Path) -> bool:
    """Whether a config.yaml is a run's: many programs call theirs so."""
    with suppress(OSError):
        is_file = config.is_file()  # and no pipe, which is read without an end
        return is_file and OF_A_RUN.search(config.read_text(errors="replace")) is not None
    return False


def _is_noted(note: Path) -> bool:
    """Whether it is the note that stands beside an array of ours."""
    with suppress(DamagedError):
        return note.is_file() and bool(read_sealed_json(note, NOTE))
    return False


def free(found: Found) -> int:
    """Delete it, unless a process has taken it meanwhile; the bytes that are free by that."""
    count = found.bytes
    if found.kind == "leftovers":
        for folder in {path.parent for path in found.paths}:
            remove_leftovers(folder)
        return count - found.bytes
    lock = found.run.lock if found.run else found.paths[0].with_suffix(".lock")
    stays = found.run is not None and lock.exists()
    try:
        with FileLock(lock, timeout=0):
            paths = _of_run(found.run, found.kind) if found.run else found.paths
            for path in reversed(paths):  # a cache's note first: without it nothing is read
                path.unlink(missing_ok=True)
            if not stays:  # who waits for it takes a new one
                lock.unlink()
    except (Timeout, NotImplementedError):
        print(f"left: {found.paths[0].parent} is in use just now")
    except OSError as error:
        print(f"left: {error.filename or lock}: {error.strerror}")
    return count - found.bytes


def _of_run(run: RunDirectory, kind: str) -> tuple[Path, ...]:
    """What a finished run needs no more. Of earlier code its curves are in its checkpoint alone."""
    with suppress(DamagedError):
        if not run.result.is_file() or read_sealed_json(run.result).get("status") != "finished":
            return ()
        if kind == "reruns":
            aside = run.path.glob("earlier-*/*")
            return tuple(p for p in sorted(aside) if p.suffix in (".safetensors", ".pt"))
        last, best = map(run.weights, WEIGHTS)
        if kind == "last":
            is_other = last.is_file() and best.is_file() and not last.samefile(best)
            return (last,) if is_other else ()
        is_asked_for = "\nkeep_checkpoint: true\n" in run.config.read_text(errors="replace")
        is_last_there = last.is_file() or kind == "kept" or not manifest.wrote(run, last)
        if not (is_last_there and best.is_file()) or is_asked_for != (kind == "kept"):
            return ()
        if run.history.is_file() and read_sealed_json(run.history).get("epochs"):
            return tuple(path for path in run.checkpoints if path.is_file())
    return ()


if __name__ == "__main__":
    with shown_as_messages(composes=False):
        main(sys.argv[1:])
