"""Averaged weights: their formula, and that they change nothing else."""

import copy

import pytest
import torch

from caltech.errors import InputError
from caltech.training.average import Last, MovingAverage, StochasticWeightAverage
from caltech.training.epoch import train_epoch
from tests.training.conftest import learner


def test_moving_average_is_its_formula_and_changes_no_training(problem):
    """Over the steps of two epochs, against weights copied after each, BatchNorm's included."""
    network, batches = problem
    plain = copy.deepcopy(network)
    average = MovingAverage(network, decay=0.5)
    expected = {name: value.double() for name, value in network.state_dict().items()}
    seen = 0

    def follow(totals):
        nonlocal seen
        seen += 1
        decay = min(0.5, seen / (9 + seen))
        for name, value in network.state_dict().items():
            expected[name] = decay * expected[name] + (1 - decay) * value.double()

    for one, with_average in ((network, average), (plain, Last(plain))):
        learning = learner(one, average=with_average)
        for epoch in (1, 2):
            after = [follow] if one is network else []
            train_epoch(learning, batches, torch.arange(30), epoch, after_step=after)

    trained = copy.deepcopy(network.state_dict())
    assert seen == 8
    for name, value in plain.state_dict().items():
        assert torch.equal(trained[name], value), name
    with average.applied():
        for name, value in network.state_dict().items():
            if value.is_floating_point():
                assert not torch.equal(value, trained[name]), name
                torch.testing.assert_close(value.double(), expected[name])
            else:
                assert torch.equal(value, trained[name]), name  # batches are counted, not averaged
    for name, value in network.state_dict().items():
        assert torch.equal(value, trained[name]), name


def test_what_does_not_train_stays_bitwise_in_a_moving_average(problem):
    network, _ = problem
    network[1].num_batches_tracked.fill_(2**53 + 1)  # no float64 holds it
    before = copy.deepcopy(network.state_dict())
    average = MovingAverage(network, decay=0.9)
    for _ in range(5):
        average.update()
    with average.applied():
        for name, value in network.state_dict().items():
            assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_a_decay_that_is_no_share_is_refused(problem, decay):
    with pytest.raises(InputError, match=r"average\.decay=.* at least 0 and below 1"):
        MovingAverage(problem[0], decay)


def test_equal_mean_of_the_ends_of_epochs_is_torch_s(problem):
    """Of the last three of four epochs; before the first of them it is the model."""
    network, batches = problem
    average = StochasticWeightAverage(network, start=0.25, num_epochs=4)
    reference = torch.optim.swa_utils.AveragedModel(network, use_buffers=True)
    for epoch in range(1, 5):
        train_epoch(learner(network, average=average), batches, torch.arange(30), epoch)
        average.end_epoch()
        if epoch > 1:
            reference.update_parameters(network)
        trained = copy.deepcopy(network.state_dict())
        expected = trained if epoch == 1 else reference.module.state_dict()
        with average.applied():
            for name, value in network.state_dict().items():
                if value.is_floating_point():
                    torch.testing.assert_close(value, expected[name])
        for name, value in network.state_dict().items():
            assert torch.equal(value, trained[name]), name


def test_equal_mean_keeps_what_does_not_train_bitwise_and_goes_on(problem):
    network, _ = problem
    network[1].num_batches_tracked.fill_(2**53 + 1)
    before = copy.deepcopy(network.state_dict())
    averages = [StochasticWeightAverage(network, 0.0, 5) for _ in range(2)]
    for _ in range(3):
        averages[0].end_epoch()
    averages[1].load_state_dict(copy.deepcopy(averages[0].state_dict()))
    assert averages[1].averaged == 3
    with averages[1].applied():
        for name, value in network.state_dict().items():
            assert torch.equal(value, before[name]), name


@pytest.mark.parametrize(
    ("start", "num_epochs", "first"), [(0, 3, 1), (0.75, 4, 4), (0.29, 100, 30), (0.99, 1, 1)]
)
def test_the_share_of_epochs_before_a_mean(problem, start, num_epochs, first):
    average = StochasticWeightAverage(problem[0], start, num_epochs)
    assert average.epochs_before + 1 == first


@pytest.mark.parametrize(("num_epochs", "said"), [(4, False), (5, True)])
def test_a_mean_that_never_began_is_told(problem, caplog, num_epochs, said):
    average = StochasticWeightAverage(problem[0], 0.75, num_epochs)
    for _ in range(average.epochs_before if said else num_epochs):
        average.end_epoch()
    average.end()
    assert ("Nothing was averaged: the mean begins with epoch 4" in caplog.text) == said


@pytest.mark.parametrize("start", [-0.1, 1, float("nan"), "a", None])
def test_a_start_that_is_no_share_is_refused(problem, start):
    with pytest.raises(InputError, match=r"average\.start=.* at least 0 and below 1"):
        StochasticWeightAverage(problem[0], start, 4)


@pytest.mark.parametrize("num_epochs", [0, -5, 1.5, "a"])
def test_a_mean_of_no_epochs_is_refused(problem, num_epochs):
    with pytest.raises(InputError, match=r"average\.num_epochs=.*Leave it out"):
        StochasticWeightAverage(problem[0], 0.5, num_epochs)
