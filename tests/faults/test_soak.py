"""Two hundred tiny trials in one process: memory, objects, open files and time stay as they are.

Objects tell a leak of ours from an allocator, which wanders by megabytes.

OMP_NUM_THREADS=1 pytest -m slow -n 0 tests/faults/test_soak.py    prints the slopes
"""

import gc
import logging
import re
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from caltech import train as training
from caltech.train import train
from tests.faults.test_damage import SMALL
from tests.forks import TINY

TRIALS, WARM_UP = 200, 40
PAGE_MB = 4096 / 1e6


@pytest.mark.slow
@pytest.mark.parametrize("tracking", ["mlflow"])
def test_two_hundred_trials(configure, tmp_path, capsys, tracking):
    logging.getLogger("caltech").setLevel(logging.WARNING)
    own = [*SMALL, "num_epochs=2", f"tracking={tracking}"]
    own += [f"tracking.uri=sqlite:///{tmp_path}/mlflow.db", f"tracking.artifacts={tmp_path}/a"]
    measured = []
    for trial in range(TRIALS):
        cfg = configure(*own, f"lr={0.01 + trial / 1000}")
        start = time.perf_counter()
        train(cfg)
        seconds = time.perf_counter() - start
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        files = len(list(Path("/proc/self/fd").iterdir()))
        measured.append((pages * PAGE_MB, len(gc.get_objects()), files, seconds))
    table = np.array(measured[WARM_UP:])
    slopes = [np.polyfit(np.arange(len(table)), column, 1)[0] for column in table.T]
    memory, objects, files, seconds = slopes
    with capsys.disabled():
        print(
            f"\n{TRIALS} trials, slopes a trial after the first {WARM_UP}: memory {memory:+.3f} MB "
            f"of {table[-1, 0]:.0f}, objects {objects:+.1f} of {table[-1, 1]:.0f}, open files "
            f"{files:+.4f} of {table[-1, 2]:.0f}, time {1000 * seconds:+.2f} ms of "
            f"{1000 * np.median(table[:, 3]):.0f}"
        )
    assert memory < 0.25
    assert objects < 50
    assert abs(files) < 0.01
    assert seconds < 0.01 * np.median(table[:, 3])


@pytest.mark.slow
def test_a_sweep_of_which_every_third_job_diverges(monkeypatch, tmp_path, cache, capsys):
    """By Hydra in one process, which keeps what each job returned to the end of the sweep."""
    rates = [f"{n + 1}e30" if n % 3 == 0 else f"{0.01 + n / 1000:.3f}" for n in range(TRIALS)]
    places = [f"output={tmp_path}/multirun", f"cache={cache}", "tracking=none"]
    measured = []

    def measuring(*arguments):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        measured.append((pages * PAGE_MB, len(gc.get_objects())))
        return train(*arguments)

    monkeypatch.setattr(training, "train", measuring)
    own = [*TINY, *places, "freeze=none", "num_epochs=1", "batch_size=512"]
    monkeypatch.setattr(sys, "argv", ["caltech.train", *own, "--multirun", f"lr={','.join(rates)}"])
    with pytest.raises(SystemExit, match="1"):
        training.main()
    said = capsys.readouterr().out
    assert len(re.findall("^[0-9a-f]{10}  failed ", said, re.MULTILINE)) == len(rates[::3])
    assert len(measured) == TRIALS
    memory, objects = np.polyfit(np.arange(TRIALS - WARM_UP), measured[WARM_UP:], 1)[0]
    with capsys.disabled():
        print(
            f"\n{TRIALS} jobs, a third diverges: memory {memory:+.3f} MB a job of "
            f"{measured[-1][0]:.0f}, objects {objects:+.1f} of {measured[-1][1]}"
        )
    assert memory < 0.25
    assert objects < 100  # Hydra keeps what each job returned, and its error, to the end
