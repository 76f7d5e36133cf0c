"""Interrupted at any place and typed again, a run ends bitwise as if nothing had happened."""

from pathlib import Path

import pytest
import torch

from caltech.files import read_sealed_json
from caltech.runs import checkpoint
from caltech.runs.directory import RunDirectory
from caltech.train import train
from caltech.training import fit
from tests.observers import TINY, Doing, Stopped, assert_equal, outcome, stop, terminate

RUNS = {
    "full": ["freeze=none"],
    "augmented": ["freeze=none", "augment=trivial", "optimizer=adamw", "schedule=cosine"],
    "bf16": ["freeze=head", "augment=flip_crop", "precision=bf16"],
    "cached": ["freeze=backbone", "augment=flip"],
    "averaged": ["freeze=none", "average=ema"],
    "parts": ["freeze=none", "augment=flip_crop", "micro_batch=3", "clip_norm=0.1", "average=ema"],
    "patient": ["freeze=backbone", "augment=flip", "lr=1e-12", "num_epochs=9", "patience=1"],
    "mixed": ["freeze=none", "augment=recipe", "augment.hue=0.1", "mix=mixup_or_cutmix",
              "loss=balanced", "average=swa", "average.start=0"],
    "outputs mixed": ["freeze=backbone", "augment=flip_crop", "mix=mixup", "loss=focal"],
    "until": ["freeze=until", "freeze.at=layer3.0", "augment=flip", "average=ema"],
}  # fmt: skip
STOPS = {
    "after step 1": Doing(terminate, at_step=1),
    "mid-epoch": Doing(terminate, at_step=6),
    "last step": Doing(terminate, at_step=8),
    "between epochs": Doing(stop, at_epoch=1),
    "before the test": Doing(stop, at_epoch=2),
}


@pytest.fixture(scope="module")
def expected(compose_in, tmp_path_factory):
    """Outcomes of undisturbed runs, each computed once."""
    folder = tmp_path_factory.mktemp("undisturbed")
    outcomes = {}

    def of(run: str):
        if run not in outcomes:
            cfg = compose_in(folder, *TINY, *RUNS[run])
            train(cfg)
            outcomes[run] = outcome(cfg)
        return outcomes[run]

    return of


def matrix() -> list:
    """Every way of training and every place to stop; three of each by default, a third of all."""
    stops = [*STOPS, "while saving"]
    return [
        pytest.param(run, stop, marks=[] if (i + j) % 3 == 0 else pytest.mark.slow)
        for i, run in enumerate(RUNS)
        for j, stop in enumerate(stops)
    ]


@pytest.mark.parametrize(("run", "stopped"), matrix())
def test_resumed_is_bitwise_uninterrupted(configure, monkeypatch, expected, run, stopped):
    cfg = configure(*TINY, *RUNS[run])
    observer = STOPS.get(stopped, fit.NOBODY)
    observer.steps = 0
    with monkeypatch.context() as patched, pytest.raises((Stopped, SystemExit)):
        if stopped == "while saving":
            patched.setattr(checkpoint.torch, "save", failing_on_call(2, torch.save))
        train(cfg, observer=observer)
    assert not (Path(cfg.directory) / "result.json").exists()
    train(cfg)
    assert_equal(outcome(cfg), expected(run))
    assert not list(Path(cfg.directory).glob(".*partial"))


def failing_on_call(number: int, usual):
    calls = iter(range(1, 1000))

    def called(*arguments):
        if next(calls) == number:
            arguments[1].write(b"half of a checkpoint")
            raise Stopped
        return usual(*arguments)

    return called


def test_checkpoints_inside_an_epoch(configure, expected):
    """A process that ends without notice loses no more than the time since the last of them."""
    cfg = configure(*TINY, *RUNS["augmented"], "checkpoint_minutes=1e-9")
    with pytest.raises(Stopped):
        train(cfg, observer=Doing(stop, at_step=2))
    rest = Doing(stop)
    train(cfg, observer=rest)
    assert rest.steps == 7  # of 8: the first step is not made again
    assert_equal(outcome(cfg), expected("augmented"))


def test_a_signal_during_validation_waits_for_its_end(configure, monkeypatch):
    cfg = configure(*TINY, *RUNS["full"])

    def terminated(*given):
        terminate()
        return usual(*given)

    usual = fit.evaluate
    with monkeypatch.context() as patched, pytest.raises(SystemExit) as ended:
        patched.setattr(fit, "evaluate", terminated)
        train(cfg)
    assert ended.value.code == 143
    rest = Doing(stop)
    train(cfg, observer=rest)
    assert rest.steps == 4  # the first epoch is whole


def test_how_far_a_stopped_run_came_is_in_its_history(configure):
    """Also where an epoch takes less than the seconds between two times that it is written."""
    cfg = configure(*TINY, "freeze=none", "num_epochs=3")
    with pytest.raises(SystemExit):
        train(cfg, observer=Doing(terminate, at_step=11))
    told = read_sealed_json(RunDirectory(cfg.directory).history)
    assert [epoch["epoch"] for epoch in told["epochs"]] == [1, 2]


def test_more_parts_than_a_batch_has_are_none(configure, tmp_path):
    """micro_batch is not in the key then, and an evaluation has the same bits, too."""
    words = (*TINY, "freeze=none", "num_epochs=1")
    results = [
        train(configure(*words, f"output={tmp_path / name}", *more))
        for name, more in (("whole", ()), ("parts", ("micro_batch=1000",)))
    ]
    assert results[0].key == results[1].key
    assert results[0].last["test/loss"] == results[1].last["test/loss"]
    assert results[0].last["val/loss"] == results[1].last["val/loss"]


def test_an_observer_is_told_of_all_and_may_end_a_training(configure):
    told = []

    class Impatient(fit.Observer):
        prunes = True

        def step(self, totals):
            told.append(totals.images)

        def epoch(self, history):
            told.append([epoch["epoch"] for epoch in history])
            return len(history) == 1

    result = train(configure(*TINY, "freeze=none"), observer=Impatient())
    assert told == [[], 8, 16, 24, 30, [1]]
    assert (result.status, result.last["epoch"]) == ("pruned", 1)
