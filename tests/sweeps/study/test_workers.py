"""Workers of one study: exact after any interruption, no key twice, nothing of the dead is lost."""

import hashlib
import logging
import multiprocessing
import os
import signal
import time
from contextlib import suppress

import optuna
import pytest
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from caltech.errors import CaltechError, DiskError
from caltech.sweeps import records
from caltech.sweeps.study import proposals, storage, workers
from caltech.sweeps.study.space import Space
from caltech.sweeps.study.workers import Worker

LR = FloatDistribution(1e-3, 1, log=True)
SPACE = {"lr": LR, "step_size": IntDistribution(5, 25, step=5)}
FINITE = {"lr": CategoricalDistribution([0.1, 0.2, 0.3]), "size": IntDistribution(1, 2)}
SAMPLERS = {
    "TPESampler": {"n_startup_trials": 3, "constant_liar": True}, "RandomSampler": {},
    "NSGAIISampler": {"population_size": 4}, "QMCSampler": {"scramble": True},
}  # fmt: skip
QUIET = pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
TPE = {"_target_": "optuna.samplers.TPESampler", "seed": 0, **SAMPLERS["TPESampler"]}


class Jobs:
    """What a worker launches: a formula in place of a training."""

    def __init__(self, study, ignored=(), before=lambda number: None, after=lambda number: None):
        self.study, self.ignored, self.before, self.after = study, ignored, before, after
        self.launched: list[int] = []

    def describe(self, overrides):
        decisive = sorted(each for each in overrides if each.split("=")[0] not in self.ignored)
        key = hashlib.sha256(repr(decisive).encode()).hexdigest()[:10]
        return records.Record(key, f"/runs/{key}", " ".join(overrides))

    def launch(self, overrides, number):
        self.launched.append(number)
        self.before(number)
        key, answer = self.describe(overrides).key, JobReturn(status=JobStatus.COMPLETED)
        for trial in storage.patiently(self.study.get_trials, deepcopy=False):
            if trial.user_attrs["key"] == key and trial.state == TrialState.RUNNING:
                if trial.number % 5 == 4:  # as a training that diverges
                    answer.status, answer.return_value = JobStatus.FAILED, ValueError("diverged")
                else:
                    value = sum(float(v) for k, v in trial.params.items() if k not in self.ignored)
                    value = -abs(value - 10)
                    again = {"skip_if_finished": True}
                    storage.patiently(self.study.tell, trial.number, value, **again)
        self.after(number)
        return answer


def new_study():
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(study_name="mine-01234567", direction="maximize")


def worker(study, folder, jobs, total=12, sampler=TPE, space=SPACE, **details) -> Worker:
    return Worker(
        study=study, space=Space(space, {}, []), sampler=OmegaConf.create(sampler), total=total,
        most_failed=details.pop("most_failed", 1.0), folder=folder, describe=jobs.describe,
        launch=jobs.launch,
    )  # fmt: skip


def told(study) -> list[tuple]:
    return [(t.number, t.state.name, t.value, t.params, t.user_attrs) for t in study.get_trials()]


@QUIET
@pytest.mark.parametrize("name", SAMPLERS)
def test_a_search_interrupted_everywhere_has_the_same_trials(tmp_path, monkeypatch, name):
    """Before and after each training, and while each trial is put into the study."""
    sampler = {"_target_": f"optuna.samplers.{name}", "seed": 0, **SAMPLERS[name]}
    undisturbed, disturbed = new_study(), new_study()
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
    worker(undisturbed, tmp_path / "one", Jobs(undisturbed), sampler=sampler).work()
    interrupted = set()

    def interrupting(where):
        def interrupt(number):
            if (where, number) not in interrupted:
                interrupted.add((where, number))
                raise KeyboardInterrupt

        return interrupt

    begin = proposals.begin

    def beginning(study, *args):
        interrupting("before")(len(study.trials))
        begin(study, *args)
        interrupting("after")(len(study.trials))

    monkeypatch.setattr(proposals, "begin", beginning)
    jobs = Jobs(disturbed, before=interrupting("start"), after=interrupting("end"))
    for _ in range(100):
        with suppress(KeyboardInterrupt):
            worker(disturbed, tmp_path / "other", jobs, sampler=sampler).work()
            break
    assert len(interrupted) == 4 * 12
    assert told(disturbed) == told(undisturbed)
    assert records.plan(tmp_path / "other").jobs == records.plan(tmp_path / "one").jobs
    assert not [*tmp_path.rglob("*.trial.lock")]


def test_a_total_is_the_study_s_and_can_be_raised(tmp_path):
    study, whole = new_study(), new_study()
    for total in (5, 5, 12):
        worker(study, tmp_path, Jobs(study), total=total).work()
        assert len(study.trials) == total
    worker(whole, tmp_path, Jobs(whole)).work()
    assert told(study) == told(whole)


@pytest.mark.parametrize("sampler", ["TPESampler", "GridSampler"])
def test_a_key_is_computed_once(tmp_path, caplog, sampler):
    """A space of fewer points than trials are asked for, one of whose names decides nothing."""
    config = {"_target_": f"optuna.samplers.{sampler}", "seed": 0}
    config |= {"_partial_": True} if sampler == "GridSampler" else {}
    study = new_study()
    jobs = Jobs(study, ignored=["size"])
    worker(study, tmp_path, jobs, sampler=config, space=FINITE).work()
    assert sorted(trial.params["lr"] for trial in study.trials) == [0.1, 0.2, 0.3]
    assert len({trial.user_attrs["key"] for trial in study.trials}) == 3 == len(jobs.launched)
    assert "no point left" in caplog.text


def test_the_trials_of_earlier_code_are_history(tmp_path):
    """They were put into the study when they had ended, in any order."""
    study, jobs = new_study(), Jobs(new_study())
    for lr in (0.3, 0.1):
        point = {"lr": lr, "step_size": 5}
        key = jobs.describe([f"{name}={value}" for name, value in point.items()]).key
        study.add_trial(create_trial(
            params=point, distributions=SPACE, value=lr, user_attrs={"key": key},
        ))  # fmt: skip
    before, jobs = told(study), Jobs(study)
    worker(study, tmp_path, jobs, total=4).work()
    assert told(study)[:2] == before and len(study.trials) == 4
    assert jobs.launched == [0, 1, 2, 3]  # the first two are asked again, and answered
    assert records.rows(tmp_path)[0].overrides == "lr=0.3 step_size=5"


def test_too_many_failures_end_a_search(tmp_path):
    study = new_study()
    with pytest.raises(CaltechError, match="1 of 5 trials failed"):
        worker(study, tmp_path, Jobs(study), most_failed=0.1).work()
    assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 4 + ["FAIL"]


@pytest.mark.parametrize("kind", [storage.OutageError, DiskError])
def test_what_the_machine_lacks_ends_a_worker_and_fails_no_trial(tmp_path, kind):
    study = new_study()
    jobs, out = Jobs(study), JobReturn(status=JobStatus.FAILED)
    out.return_value = kind("no answer, or no room")
    lost = Jobs(study)
    lost.launch = lambda overrides, number: out
    with pytest.raises(kind):
        worker(study, tmp_path, lost).work()
    assert [trial.state for trial in study.trials] == [TrialState.RUNNING]
    worker(study, tmp_path, jobs, total=1).work()
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE]


def test_a_storage_that_does_not_answer_is_waited_for(monkeypatch, caplog):
    monkeypatch.setattr(storage, "PATIENCE", (0.001, 0.001))
    answers = iter([OSError("down"), optuna.exceptions.StorageInternalError("down"), 7])

    def call():
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert storage.patiently(call) == 7
    assert caplog.text.count("does not answer") == 2
    answers = iter([OSError("down")] * 3)
    with pytest.raises(storage.OutageError, match="the same command goes on"):
        storage.patiently(call)


def work(url, folder, dies_at, log, seconds=0.02):
    """A process of its own, which may be killed in the middle of a trial."""

    def training(number):
        with log.open("a") as file:
            file.write(f"{number}\n")
        time.sleep(seconds * (1 + number % 3))
        if dies_at is not None and number >= dies_at:
            os.kill(os.getpid(), signal.SIGKILL)

    logging.disable()
    study = storage.study("mine-01234567", url)
    worker(study, folder, Jobs(study, before=training), total=20).work()


def test_workers_share_a_study_and_what_a_killed_one_began_is_taken_up(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "POLL_SECONDS", 0.05)
    url, log = f"journal://{tmp_path}/study.log", tmp_path / "begun.txt"
    storage.study("mine-01234567", url)
    fork = multiprocessing.get_context("fork")
    arguments = [(url, tmp_path, dies_at, log) for dies_at in (None, 3, 6, None)]
    started = [fork.Process(target=work, args=each) for each in arguments]
    for process in started:
        process.start()
    for process in started:
        process.join(60)
    assert sorted(process.exitcode for process in started) == [-9, -9, 0, 0]
    trials = storage.study("mine-01234567", url).trials
    assert [t.state.name for t in trials].count("RUNNING") == 0
    assert len({trial.user_attrs["key"] for trial in trials}) == 20 == len(trials)
    begun = log.read_text().split()
    assert len(begun) == 22 and len(set(begun)) == 20  # two were gone on with


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_who_waits_for_the_others_learns_of_their_end(tmp_path, monkeypatch, is_cancelled):
    monkeypatch.setattr(workers, "POLL_SECONDS", 0.05)
    url, log = f"journal://{tmp_path}/study.log", tmp_path / "begun.txt"
    study = storage.study("mine-01234567", url)
    fork = multiprocessing.get_context("fork")
    other = fork.Process(target=work, args=(url, tmp_path, 9 if is_cancelled else None, log))
    other.start()
    while not log.exists():
        time.sleep(0.01)
    waiting = worker(study, tmp_path, Jobs(study), total=20)
    assert waiting.is_completed_by_others() is not is_cancelled
    other.join(60)
    assert len(study.trials) == (10 if is_cancelled else 20)
