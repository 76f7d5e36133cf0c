"""What becomes of a job; tests/test_command_line.py has whole sweeps and their tables."""

import logging
import weakref
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf

from caltech import train as training
from caltech.errors import DivergedError, InputError
from caltech.sweeps import jobs, records
from caltech.training.fit import NOBODY, Observer
from tests.observers import TINY

NUMBER = OmegaConf.create({"num": 0})


@pytest.fixture
def sweeping(tmp_path, monkeypatch):
    monkeypatch.setenv(jobs.VARIABLE, str(tmp_path / "sweep"))
    return tmp_path / "sweep"


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (ValueError("wrong"), "failed", "ValueError: wrong"),
        (KeyboardInterrupt(), "interrupted", ""),
        (SystemExit(143), "interrupted", ""),
        (SystemExit(-1), "waiting", ""),  # submitit's, once a job is in the queue again
    ],
)
def test_jobs_of_one_key_have_a_record_each_of_how_they_ended(sweeping, error, status, reason):
    cfg = OmegaConf.create({"key": "key", "directory": "nowhere", "dry_run": False})
    with jobs.recorded(cfg, ["lr=1"], NUMBER) as record:
        record.status = "finished"
    with pytest.raises(type(error)), jobs.recorded(cfg, ["lr=2"], OmegaConf.create({"num": 1})):
        raise error
    with records.launching(sweeping):
        first, second = records.rows(sweeping)
    assert (first.status, first.overrides) == ("finished", "lr=1")
    assert (second.status, second.reason, second.overrides) == (status, reason, "lr=2")


class Failing(Observer):
    """Ends a training as an error of CUDA's would."""

    def step(self, totals) -> None:
        try:
            raise torch.OutOfMemoryError("out of memory")
        except RuntimeError as error:
            raise RuntimeError("the one that is seen") from error


@pytest.mark.parametrize(
    ("typed", "observer"),
    [("lr=1e30", NOBODY), ("lr=0.1", Failing()), ("start=abcdef1234", NOBODY)],
    ids=["diverged", "out of memory", "refused"],
)
def test_a_failed_job_leaves_nothing_in_memory(configure, sweeping, monkeypatch, typed, observer):
    """Hydra keeps the error to the end of the sweep; its text and places stay, nothing else."""
    built = []

    def noting(function):
        def call(*args, **kwargs):
            result = function(*args, **kwargs)
            built.extend([] if result is None else [weakref.ref(result)])
            return result

        return call

    for name in ("build", "learner_of"):
        monkeypatch.setattr(training, name, noting(getattr(training, name)))
    kept = None
    try:
        with jobs.recorded(cfg := configure(*TINY, "freeze=none", typed), [], NUMBER):
            training.train(cfg, observer=observer)
    except (DivergedError, InputError, RuntimeError) as error:
        kept = error
    assert kept.__traceback__ is not None
    assert len(built) >= 3
    assert [each() for each in built if each() is not None] == []
    assert records.rows(sweeping)[0].status == "failed"


def test_what_called_the_function_that_caught_an_error_is_let_go_of_too():
    """As Hydra's: a wrapper that holds a job's config calls what catches the job's error."""

    class Config:
        pass

    held = []

    def catches() -> Exception:
        try:
            raise InputError("refused")
        except InputError as error:
            return error

    def wraps(config: Config) -> Exception:
        return catches()

    def launches() -> Exception:
        config = Config()
        held.append(weakref.ref(config))
        return wraps(config)

    kept = launches()
    assert held[0]() is not None  # else there is nothing to be mended
    jobs.let_go(kept)
    assert held[0]() is None and str(kept) == "refused"


def test_a_sweep_tells_how_far_it_is(sweeping, caplog):
    caplog.set_level(logging.INFO)
    planned = {n: records.Record(f"k{n}", "", "") for n in range(3)}
    with records.launching(sweeping):
        records.announce(sweeping, planned, 3)
        cfg = OmegaConf.create({"key": "k0", "directory": "nowhere", "dry_run": False})
        with jobs.recorded(cfg, [], NUMBER) as record:
            record.status, record.value = "finished", 0.95372
    assert caplog.messages[-1].startswith("job 1 of 3 · best 0.9537 · about 0 s left")


@pytest.mark.parametrize(("uri", "told"), [("sqlite:///x.db", True), ("http://host:5000", False)])
def test_a_link_to_mlflow_s_page_says_what_starts_it(monkeypatch, capsys, tmp_path, uri, told):
    monkeypatch.setattr(jobs.plots, "plot", lambda *_: [])
    monkeypatch.setattr(jobs, "build", lambda _: SimpleNamespace(charts="http://{}".format))
    config = OmegaConf.create({"storage": None, "tracking": {"uri": uri}})
    jobs._tell_where_drawn(tmp_path / "sweep", config)
    printed = capsys.readouterr().out
    assert printed.endswith(": http://sweep\n") and ("caltech ui" in printed) == told
