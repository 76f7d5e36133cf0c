"""The default command from cold caches, by the code of now and by that of an earlier commit.

    git worktree add ../before d8c1e7e
    python -m tests.bench.cold --before ../before    15 minutes on 2 cores

Each side is a process with a cache folder of its own that is empty before: images are decoded,
features computed, 30 epochs trained. Wall time, and the processor's seconds of the process, which
count where the machine has other work. --every 8 takes each eighth image of a category.
"""

import argparse
import functools
import resource
import tempfile
from pathlib import Path

from tests.bench import plain

SIDES = {
    "before": None,
    "now": [],
    "now, features=folded": ["features=folded"],
    "now, in bfloat16, too": ["features=folded", "precision=bf16"],
}


def run(checkout: Path, root: Path, words: list[str], used: list[float]) -> float:
    """Seconds of the default command there; those of the processor are added to `used`."""
    with tempfile.TemporaryDirectory() as folder:
        own = [f"output={folder}/runs", "device=cpu", "tracking=none", f"data.root={root}"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = plain.typed(checkout, Path(folder, "cache"), *own, *words)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return seconds


def thinned(root: Path, every: int, folder: Path) -> Path:
    """A root that links each `every`th image of a category."""
    if every == 1:
        return root
    for category in sorted((root / "caltech101" / "101_ObjectCategories").iterdir()):
        own = folder / "caltech101" / "101_ObjectCategories" / category.name
        own.mkdir(parents=True)
        for image in sorted(category.glob("*.jpg"))[::every]:
            (own / image.name).symlink_to(image)
    return folder


def compare(before: Path, every: int, repeats: int, waits: bool) -> None:
    plain.head(f"cold: the default command, each {every}. image" if every > 1 else "cold")
    with tempfile.TemporaryDirectory() as folder:
        root = thinned(plain.images_root(), every, Path(folder))
        used: dict[str, list[float]] = {side: [] for side in SIDES}
        sides = {
            side: functools.partial(
                run, before if words is None else plain.REPOSITORY, root, words or [], used[side]
            )
            for side, words in SIDES.items()
        }
        seconds = plain.alternate(sides, repeats, waits)
    median, processor = plain.medians(seconds), plain.medians(used)
    plain.table(
        ("", "seconds", "of the processor", "n"),
        [(side, median[side], processor[side], repeats) for side in SIDES],
    )
    plain.others_line()
    for what, values in (("seconds", median), ("processor seconds", processor)):
        for side in list(SIDES)[1:]:
            ratio = values["before"] / values[side]
            plain.verdict(f"before / {side}, {what}", ratio, ">= 1.3", ratio >= 1.3)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path, required=True, help="a checkout of earlier code")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--busy", action="store_true", help="do not wait for a quiet machine")
    given = parser.parse_args()
    compare(given.before.resolve(), given.every, given.repeats, not given.busy)
