"""How long a search's workers wait: trials are sleeps of very different length.

    python -m tests.bench.workers    10 minutes, hardly any of them of the processor

One side is our workers: processes with a SQLite study, proposals, locks, records, and Hydra's
composition of each job, once as in a search, and twice as in one of earlier code. The other is the
loop of hydra-optuna-sweeper over batches, with threads in place of a launcher, which cost it
nothing. Points are random on all.
"""

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import optuna
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf
from optuna.distributions import FloatDistribution

from caltech.config import register
from caltech.settings import CONF
from caltech.sweeps.composed import ComposedOnce
from caltech.sweeps.study import storage
from caltech.sweeps.study.space import Space
from caltech.sweeps.study.workers import Worker
from tests.bench import plain

Spans = list[tuple[float, float]]  # of a worker's trials: begin and end
SAMPLER = {"_target_": "optuna.samplers.RandomSampler", "seed": 0}


def sleep(overrides: Sequence[str], longest: float) -> tuple[float, float]:
    """A trial, as long as its weight decay says: from a fifteenth of `longest` to it."""
    begin = time.monotonic()
    typed = dict(word.split("=") for word in overrides)
    time.sleep(longest * float(typed["weight_decay"]))
    return begin, time.monotonic()


def work(
    folder: Path, trials: int, longest: float, is_twice: bool, spans: multiprocessing.Queue
) -> None:
    """One of our workers; `is_twice` composes each job again to launch it."""
    study, own = storage.study("bench-01234567", f"sqlite:///{folder}/optuna.db"), []
    space = Space({"weight_decay": FloatDistribution(1 / 15, 1, log=True)}, {}, [])
    register()
    with initialize_config_dir(config_dir=str(CONF)):
        # Hydra's plugins and grammar, half a minute on a busy machine
        config = compose("train", return_hydra_config=True)
        loader = GlobalHydra.instance().config_loader()
        composed = ComposedOnce(loader, config, most=1)

        def launch(overrides: Sequence[str], number: int) -> JobReturn:
            launching = loader if is_twice else composed
            key = launching.load_sweep_config(config, [*overrides]).key
            own.append(sleep(overrides, longest))
            for trial in study.get_trials(deepcopy=False):
                if trial.user_attrs["key"] == key:
                    study.tell(trial.number, 1.0, skip_if_finished=True)
            return JobReturn(status=JobStatus.COMPLETED)

        before = time.process_time()
        Worker(
            study=study, space=space, sampler=OmegaConf.create(SAMPLER), total=trials,
            most_failed=1.0, folder=folder, describe=composed.describe, launch=launch,
        ).work()  # fmt: skip
        spans.put((own, time.process_time() - before))


def ours(
    workers: int, trials: int, longest: float, is_twice: bool = False
) -> tuple[list[Spans], float]:
    """And seconds of the processor that a trial takes beside its sleep, on a busy machine, too."""
    fork = multiprocessing.get_context("fork")
    spans = fork.Queue()
    with tempfile.TemporaryDirectory() as folder:
        creating = fork.Process(target=storage.study,
            args=("bench-01234567", f"sqlite:///{folder}/optuna.db"))  # fmt: skip
        creating.start()
        creating.join()
        each = [
            fork.Process(target=work, args=(Path(folder), trials, longest, is_twice, spans))
            for _ in range(workers)
        ]
        for process in each:
            process.start()
        found = [spans.get() for _ in each]
        for process in each:
            process.join()
    return [own for own, _ in found], sum(seconds for _, seconds in found) / trials


def official(workers: int, trials: int, longest: float) -> tuple[list[Spans], float]:
    from hydra_plugins.hydra_optuna_sweeper._impl import OptunaSweeperImpl

    spans: list[Spans] = [[] for _ in range(workers)]

    class Threads:
        """A launcher: each job of a batch is a thread's."""

        def launch(self, jobs: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
            with ThreadPoolExecutor(workers) as pool:
                ended = pool.map(sleep, jobs, [longest] * len(jobs))
            for own, span in zip(spans, ended, strict=False):
                own.append(span)
            done = JobReturn(status=JobStatus.COMPLETED)
            done.return_value = 1.0
            return [done] * len(jobs)

    sweeper = OptunaSweeperImpl(
        sampler=optuna.samplers.RandomSampler(seed=0), direction="maximize", storage=None,
        study_name=None, n_trials=trials, n_jobs=workers, max_failure_rate=0.0,
        custom_search_space=None, params=OmegaConf.create({}),
    )  # fmt: skip
    sweeper.launcher, sweeper.hydra_context = Threads(), object()
    sweeper.config = OmegaConf.create({"hydra": {"sweep": {"dir": tempfile.mkdtemp()}}})
    sweeper.sweep_dir = sweeper.config.hydra.sweep.dir
    before = time.process_time()
    sweeper.sweep(["weight_decay=tag(log, interval(0.06666666666666667, 1))"])
    return spans, (time.process_time() - before) / trials


def idle(spans: Sequence[Spans]) -> tuple[float, float, float]:
    """Seconds that the search took; idle share of a worker between its first trial and its last
    one's end; the same until the last trial of all has ended."""
    spans = [own for own in spans if own]
    begin, end = min(own[0][0] for own in spans), max(own[-1][1] for own in spans)
    busy = sum(b - a for own in spans for a, b in own)
    between = sum(own[-1][1] - own[0][0] for own in spans)
    return end - begin, 1 - busy / between, 1 - busy / (len(spans) * (end - begin))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--longest", type=float, default=60.0, help="seconds of the longest trial")
    given = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    plain.head(f"workers: {given.workers}, {given.trials} trials of {given.longest / 15:.0f} to "
               f"{given.longest:.0f} s; load of the machine {os.getloadavg()[0]:.1f}")  # fmt: skip
    rows = []
    sides = {
        "workers of one study": ours, "each job composed twice": partial(ours, is_twice=True),
        "batches, official": official,
    }  # fmt: skip
    for name, side in sides.items():
        spans, processor = side(given.workers, given.trials, given.longest)
        slept = [b - a for own in spans for a, b in own]
        seconds, between, whole = idle(spans)
        rows.append((name, seconds, sum(slept), 100 * between, 100 * whole, processor))
        assert len(slept) == given.trials
    plain.table(("", "seconds", "of trials", "idle %", "to the end %", "processor s a trial"), rows)
    plain.verdict("idle share of a worker, between trials", rows[0][3], "< 5 %", rows[0][3] < 5)


if __name__ == "__main__":
    main()
