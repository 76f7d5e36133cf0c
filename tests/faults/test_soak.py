"""Two hundred tiny trials in one process: memory, open files and time stay as they are.

OMP_NUM_THREADS=1 pytest -m slow -n 0 tests/faults/test_soak.py    prints the slopes
"""

import gc
import logging
import time
from pathlib import Path

import numpy as np
import pytest

from caltech.train import train
from tests.faults.test_damage import SMALL

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
        measured.append((pages * PAGE_MB, files, seconds))
    table = np.array(measured[WARM_UP:])
    slopes = [np.polyfit(np.arange(len(table)), column, 1)[0] for column in table.T]
    memory, files, seconds = slopes
    with capsys.disabled():
        print(
            f"\n{TRIALS} trials, slopes a trial after the first {WARM_UP}: memory {memory:+.3f} MB "
            f"of {table[-1, 0]:.0f}, open files {files:+.4f} of {table[-1, 1]:.0f}, time "
            f"{1000 * seconds:+.2f} ms of {1000 * np.median(table[:, 2]):.0f}"
        )
    assert memory < 0.25
    assert abs(files) < 0.01
    assert seconds < 0.01 * np.median(table[:, 2])
