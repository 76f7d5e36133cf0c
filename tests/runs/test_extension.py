"""num_epochs=3 after 1: it goes on bitwise as 3 at once, or begins anew and says why."""

import json
import shutil

import pytest
import torch
from torch.optim import SGD
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, StepLR

from caltech.runs.directory import RunDirectory
from caltech.train import train, unseen
from caltech.training.schedule import constant, first_difference
from tests.observers import TINY, Doing, Stopped, assert_equal, outcome, stop

CONSTANT = [*TINY, "freeze=backbone", "augment=flip", "schedule=constant", "average=ema"]
KEPT = [*CONSTANT, "keep_checkpoint=true", "num_epochs=1"]
LONGER = [*CONSTANT, "num_epochs=3"]


def files(directory) -> dict:
    return {p.name: p.read_bytes() for p in directory.path.iterdir() if p.is_file()}


@pytest.fixture
def said(caplog):
    caplog.set_level("INFO")
    return lambda: [r.message for r in caplog.records if "num_epochs=" in r.message]


@pytest.mark.parametrize("schedule", ["constant", "step"])
def test_it_goes_on_bitwise_and_leaves_the_shorter_run_as_it_is(configure, said, schedule):
    own = [f"schedule={schedule}", "step_size=2"]
    train(short := configure(*KEPT, *own))
    before = files(RunDirectory(short.directory))
    assert "checkpoint.pt" in before and "previous_checkpoint.pt" not in before
    train(long := configure(*LONGER, *own), observer=(rest := Doing(stop)))
    assert rest.steps == 8  # of 12
    assert said() == [
        f"goes on after epoch 1 of run {short.key} of num_epochs=1, which stays as it is"
    ]
    train(at_once := configure(*LONGER, *own, "study=at_once"))
    assert_equal(outcome(long), outcome(at_once))
    assert files(RunDirectory(short.directory)) == before
    noted = json.loads(RunDirectory(long.directory).provenance.read_text())
    assert noted["began_as"] == {"key": short.key, "epochs": 1} and noted["key"] == long.key
    assert not RunDirectory(long.directory).checkpoint.exists()


def test_interrupted_while_it_goes_on_it_ends_bitwise(configure):
    train(configure(*KEPT))
    cfg = configure(*LONGER)
    with pytest.raises(Stopped):
        train(cfg, observer=Doing(stop, at_step=2))
    train(cfg)
    train(at_once := configure(*LONGER, "study=at_once"))
    assert_equal(outcome(cfg), outcome(at_once))


def test_with_nothing_kept_or_other_rates_it_begins_anew_and_says_why(configure, said):
    train(configure(*CONSTANT, "num_epochs=1"))
    assert unseen(configure(*LONGER)) is None  # dry_run=true
    assert "it ended without keep_checkpoint=true" in said()[-1]
    cosine = ["schedule=cosine", "schedule.warmup_epochs=0"]
    train(configure(*KEPT, "num_epochs=2", *cosine))
    train(configure(*LONGER, *cosine), observer=(rest := Doing(stop)))
    assert rest.steps == 12
    assert "learning rate of epoch 2: 0.005 if it went on, 0.0075 from the start" in said()[-1]


@pytest.mark.parametrize("what", ["data", "weights"])
def test_what_was_made_from_others_is_passed_over(configure, said, what):
    """For a shorter one that was not, if there is one; a dry run says the same."""
    train(shortest := configure(*KEPT))
    train(other := configure(*KEPT, "num_epochs=2"))
    path = RunDirectory(other.directory).provenance
    made_from = json.loads(path.read_text())
    made_from[what]["sha256"] = "0" * 16
    del made_from["crc32"]
    path.write_text(json.dumps(made_from))
    unseen(configure(*LONGER))
    train(configure(*LONGER), observer=(rest := Doing(stop)))
    assert rest.steps == 8
    goes_on = f"goes on after epoch 1 of run {shortest.key} of num_epochs=1, which stays as it is"
    assert said()[-2:] == [goes_on, goes_on]
    shutil.rmtree(shortest.directory)
    shutil.rmtree(configure(*LONGER).directory)
    train(configure(*LONGER))
    assert f"not from run {other.key} of num_epochs=2: it was made from other {what}" in said()[-1]


def test_a_run_that_patience_ended_goes_on_to_the_same_end(configure):
    idle = ["lr=1e-12", "patience=1", "keep_checkpoint=true"]
    train(configure(*CONSTANT, *idle, "num_epochs=5"))
    result = train(configure(*CONSTANT, *idle, "num_epochs=9"), observer=(rest := Doing(stop)))
    assert rest.steps == 0 and result.stopped.startswith("after epoch 2 of 9")


def test_a_part_that_depends_on_num_epochs_is_named(configure, said):
    train(configure(*KEPT, "+optimizer.dampening=${num_epochs}"))
    train(configure(*LONGER, "+optimizer.dampening=${num_epochs}"))
    assert "optimizer depends on num_epochs, too" in said()[-1]


class Cooldown(LRScheduler):
    """Constant for its first epochs whatever its length, which it carries in its state."""

    def __init__(self, optimizer, num_epochs):
        self.num_epochs = num_epochs
        super().__init__(optimizer)

    def get_lr(self):
        rest = min(1.0, 0.5 * max(self.num_epochs - self.last_epoch, 0))
        return [rest * each for each in self.base_lrs]


@pytest.mark.parametrize(
    ("short", "long", "epoch"),
    [
        (constant, constant, None),
        (lambda o: StepLR(o, 2, 0.1), lambda o: StepLR(o, 2, 0.1), None),
        (lambda o: OneCycleLR(o, 1.0, 4), lambda o: OneCycleLR(o, 1.0, 6), 2),
        (lambda o: Cooldown(o, 5), lambda o: Cooldown(o, 9), 5),  # by the state that it carries
    ],
)
def test_rates_are_walked_and_not_believed(short, long, epoch):
    weights = [{"params": [torch.zeros(1, requires_grad=True)], "lr": rate} for rate in (0.1, 0.01)]
    groups = SGD(weights, lr=1.0).param_groups
    found = first_difference(short, long, groups, 4, 6)
    assert found is None if epoch is None else found[0] == epoch
