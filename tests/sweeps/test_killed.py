"""Of jobs side by side one ends its process: the others are computed, and it alone has failed."""

import json
import os
import re
import subprocess
import sys
from dataclasses import asdict

import pytest
from hydra.core.utils import JobReturn, JobStatus

from caltech.errors import CaltechError
from caltech.sweeps import killed, records
from caltech.sweeps.records import Record
from tests.forks import REPOSITORY, TINY, places


class TerminatedWorkerError(Exception):
    """joblib's, by its name."""


class Pool:
    """Two jobs at a time; those in `dying` end the pool, with what runs beside them."""

    def __init__(self, folder, dying, ended_first=()):
        self.folder, self.dying, self.ended_first = folder, dying, ended_first
        self.launches, self.computed = [], []

    def path(self, number):
        return self.folder / f"key{number}-{number}.json"

    def write(self, number, status):
        record = Record(f"key{number}", f"/x/{number}", f"lr={number}", status)
        self.path(number).write_text(json.dumps(asdict(record)))

    def __call__(self, jobs, first):
        numbers = [*range(first, first + len(jobs))]
        assert [job[0] for job in jobs] == [f"lr={number}" for number in numbers]
        self.launches.append(numbers)
        for pair in (numbers[place : place + 2] for place in range(0, len(numbers), 2)):
            for number in pair:
                self.write(number, records.RUNNING)
            if dead := {*pair} & {*self.dying}:
                for number in {*pair} - dead & {*self.ended_first}:
                    self.write(number, "finished")
                raise TerminatedWorkerError(
                    "gone.\n\nThe exit codes of the workers are {SIGKILL(-9)}"
                )
            for number in pair:
                self.write(number, "finished")
                self.computed.append(number)
        return [JobReturn(status=JobStatus.COMPLETED, overrides=job) for job in jobs]


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    """Six jobs that were written down, and a command that launches them."""
    monkeypatch.setattr(killed, "sweep", lambda: tmp_path)
    records.announce(tmp_path, {n: Record(f"key{n}", "", f"lr={n}") for n in range(6)}, 6)
    with records.launching(tmp_path):
        yield tmp_path


JOBS = [[f"lr={number}"] for number in range(6)]


@pytest.mark.parametrize("dying", [[0], [3], [0, 1], [1, 4], [0, 2, 5], [*range(6)]])
def test_the_others_are_computed_once_and_it_has_failed(sweep, caplog, dying):
    pool = Pool(sweep, dying)
    found = killed.launched(pool, JOBS, 0)
    assert sorted(pool.computed) == [n for n in range(6) if n not in dying]
    statuses = [JobStatus.FAILED if n in dying else JobStatus.COMPLETED for n in range(6)]
    assert [each.status for each in found] == statuses
    assert [each.overrides for each in found] == JOBS
    told = records.numbered(sweep)
    assert [n for n in told if told[n].status == "failed"] == dying
    assert all("was killed (SIGKILL(-9))" in told[n].reason for n in dying)
    assert caplog.text.count("FAILED lr=") == len(dying)
    with pytest.raises(CaltechError, match="its process was killed"):
        _ = found[dying[0]].return_value


def test_what_had_ended_beside_it_is_not_computed_again(sweep):
    pool = Pool(sweep, [3], ended_first=[2])
    assert [each.status for each in killed.launched(pool, JOBS, 0)].count(JobStatus.FAILED) == 1
    assert pool.launches == [[*range(6)], [4, 5], [3]]


def test_a_batch_keeps_the_numbers_of_its_jobs(sweep):
    pool = Pool(sweep, [4])
    killed.launched(pool, JOBS[2:], 2)
    assert pool.launches == [[2, 3, 4, 5], [4], [5]]


def test_other_errors_and_a_death_that_was_no_job_s_are_not_held(sweep):
    def failing(jobs, first):
        raise error

    for error in (CaltechError("no"), TerminatedWorkerError("before any began")):
        with pytest.raises(type(error)):
            killed.launched(failing, JOBS, 0)


PLUGIN = """
import os
from torch import nn
class Dying(nn.CrossEntropyLoss):
    def __init__(self, dies):
        super().__init__()
        self.dies = dies
    def forward(self, logits, targets):
        if self.dies:
            os._exit(9)
        return super().forward(logits, targets)
"""


@pytest.mark.slow
def test_a_job_that_ends_its_process_under_joblib(tmp_path):
    (tmp_path / "dying_plugin.py").write_text(PLUGIN)
    conf = tmp_path / "conf"
    (conf / "loss").mkdir(parents=True)
    (conf / "loss" / "dying.yaml").write_text("_target_: dying_plugin.Dying\ndies: false\n")
    typed = ["--multirun", f"--config-dir={conf}", "plugins=[dying_plugin]", "loss=dying"]
    typed += [
        *TINY,
        *places(tmp_path, "none"),
        "num_epochs=1",
        "loss.dies=false,true",
        "lr=0.1,0.2",
    ]
    typed += ["hydra/launcher=parallel", "hydra.launcher.n_jobs=2"]
    command = [sys.executable, "-m", "caltech.train", *typed]
    own = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    ended = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=own)
    assert ended.returncode == 1
    found = re.findall(r"^[0-9a-f]{10}  (\w+) .*loss.dies=(\w+)", ended.stdout, re.MULTILINE)
    expected = [("failed", "True")] * 2 + [("finished", "False")] * 2
    assert sorted(found) == expected, ended.stdout
    assert "its process was killed (EXIT(9))" in ended.stderr
