"""seeds=N is a table: a line a seed, mean and deviation."""

import statistics

import pytest
from omegaconf import OmegaConf

from caltech.runs.result import Result
from caltech.sweeps import seeds

VALUES = (0.95, 0.91, 0.93)


def test_mean_and_deviation_are_the_sample_s():
    runs = [OmegaConf.create({"seed": n, "key": f"key{n}"}) for n in range(3)]
    measured = [{"val/accuracy": v, "test/accuracy": v - 0.01} for v in VALUES]
    results = [Result("", "finished", last=one, best=one) for one in measured]
    *lines, mean = seeds.table(runs, results).splitlines()
    assert [line.split()[0] for line in lines] == ["seed", "0", "1", "2"]
    assert lines[2].split() == ["1", "0.9100", "0.9000", "0.9000", "key1"]
    assert mean.split()[:4] == ["mean", "0.9300", "±", f"{statistics.stdev(VALUES):.4f}"]


def test_one_seed_has_no_deviation():
    assert seeds.mean_and_deviation([0.5]) == (0.5, None)
    assert seeds.mean_and_deviation(VALUES) == (pytest.approx(0.93), statistics.stdev(VALUES))


def test_a_dry_run_has_a_line_a_seed(configure):
    lines = seeds.states(seeds.repeated(configure("seeds=2", "data=digits"))).splitlines()
    assert [line.split()[1:3] for line in lines] == [["new", "seed=0"], ["new", "seed=1"]]
    assert len(seeds.states([configure("data=digits")]).split()) == 3
