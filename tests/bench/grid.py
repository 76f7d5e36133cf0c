"""A typed grid of heads on warm caches, by the code of now and by that of an earlier commit.

    git worktree add ../before d8c1e7e
    python -m tests.bench.grid --before ../before    10 minutes on 2 cores

Each side is the command `--multirun lr=...` of 20 learning rates, with MLflow, as users type it:
all that a job costs beside its training is in it. A command before has filled the side's cache.
"""

import argparse
import functools
import tempfile
from pathlib import Path

from tests.bench import plain

JOBS = 20


def run(checkout: Path, cache: Path, jobs: int = JOBS) -> float:
    """Seconds of the command."""
    rates = ",".join(f"{0.01 * number:g}" for number in range(1, jobs + 1))
    with tempfile.TemporaryDirectory() as folder:
        own = [f"output={folder}", f"data.root={plain.images_root()}", "device=cpu"]
        return plain.typed(checkout, cache, "--multirun", f"lr={rates}", *own)


def compare(before: Path, repeats: int, waits: bool) -> None:
    plain.head(f"grid: {JOBS} learning rates of a head, warm, a whole command")
    checkouts = {"before": before, "now": plain.REPOSITORY}
    with tempfile.TemporaryDirectory() as folder:
        sides = {side: functools.partial(run, checkout, Path(folder, side))
                 for side, checkout in checkouts.items()}  # fmt: skip
        for side in sides.values():
            side(jobs=1)
        seconds = plain.medians(plain.alternate(sides, repeats, waits))
    plain.table(
        ("", "seconds", "a job", "n"),
        [(side, seconds[side], seconds[side] / JOBS, repeats) for side in sides],
    )
    plain.others_line()
    ratio = seconds["before"] / seconds["now"]
    plain.verdict("before / now", ratio, "> 1", ratio > 1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--before", type=Path, required=True, help="a checkout of earlier code")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--busy", action="store_true", help="do not wait for a quiet machine")
    given = parser.parse_args()
    compare(given.before.resolve(), given.repeats, not given.busy)
