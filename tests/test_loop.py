"""The loop against the same steps written out with torch alone."""

import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from caltech.errors import DivergedError, InputError
from caltech.training.average import Last, MovingAverage
from caltech.training.epoch import Evaluation, Setup, epoch_seed, evaluate, train_epoch
from caltech.training.loss import cross_entropy
from caltech.training.precision import Precision

CPU = torch.device("cpu")


class Rows:
    """Inputs that are rows of a table."""

    def __init__(self, table):
        self.table = table

    def training(self, indices):
        return self.table[indices]

    def evaluation(self, indices):
        return [self.table[indices]]


def setup(
    network: nn.Module, table, labels, precision=None, lr=0.1, smoothing=0.0, average=None
) -> Setup:
    precision = precision or Precision("float32", False)
    optimizer = torch.optim.SGD(network.parameters(), lr=lr, momentum=0.9, weight_decay=1e-3)
    return Setup(
        network,
        Rows(table),
        labels,
        8,
        cross_entropy(smoothing),
        optimizer,
        average or Last(network),
        precision.scaler(CPU),
        precision,
    )


@pytest.fixture
def problem():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))
    return network, torch.randn(30, 6), torch.randint(4, (30,))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_train_epoch_equals_torch_written_out(problem, smoothing):
    network, table, labels = problem
    reference = copy.deepcopy(network)
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    order = torch.randperm(30)
    metrics = train_epoch(setup(network, table, labels, smoothing=smoothing), order, epoch=1)

    losses, correct = [], 0
    reference.train()
    for start in range(0, 30, 8):  # 8 8 8 6: the last batch is trained on, too
        part = order[start : start + 8]
        logits = reference(table[part])
        loss = F.cross_entropy(logits, labels[part], label_smoothing=smoothing)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append((loss.item(), len(part)))
        correct += (logits.argmax(1) == labels[part]).sum().item()
    for name, value in reference.state_dict().items():
        assert torch.equal(network.state_dict()[name], value), name
    assert metrics["train/loss"] == pytest.approx(
        sum(loss * n for loss, n in losses) / 30, abs=1e-12
    )
    assert metrics["train/loss_last_step"] == losses[-1][0]
    assert metrics["train/accuracy"] == correct / 30


def test_moving_average_is_its_formula_and_changes_no_training(problem):
    """Over the steps of two epochs, against weights copied after each, BatchNorm's included."""
    network, table, labels = problem
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
        learning = setup(one, table, labels, average=with_average)
        for epoch in (1, 2):
            after = follow if one is network else lambda totals: None
            train_epoch(learning, torch.arange(30), epoch, after_step=after)

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
    network, _, _ = problem
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


def test_evaluate_does_not_depend_on_the_batches(problem):
    network, table, labels = problem
    indices = torch.tensor([5, 3, 29, *range(10, 21)])
    found = evaluate(setup(network, table, labels), indices, "test")
    with torch.no_grad():
        logits = network.eval()(table[indices])
    assert found.loss == pytest.approx(F.cross_entropy(logits, labels[indices]).item(), rel=1e-6)
    assert torch.equal(found.predictions, logits.argmax(1))
    assert torch.equal(found.labels, labels[indices])
    assert torch.allclose(found.confidences, logits.softmax(1).max(1).values)


def test_logits_of_several_views_are_averaged(problem):
    network, table, labels = problem

    class TwoViews(Rows):
        def evaluation(self, indices):
            return [self.table[indices], -self.table[indices]]

    case = dataclasses.replace(setup(network, table, labels), inputs=TwoViews(table))
    found = evaluate(case, torch.arange(30), "test")
    with torch.no_grad():
        logits = (network.eval()(table) + network(-table)) / 2
    assert found.loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-6)
    assert torch.equal(found.predictions, logits.argmax(1))


def test_accuracies():
    labels, predictions = torch.tensor([0, 0, 0, 0, 2, 2]), torch.tensor([0, 0, 0, 1, 2, 0])
    found = Evaluation(0.0, labels, predictions, torch.ones(6))
    assert found.accuracy == pytest.approx(4 / 6)
    assert found.accuracy_per_class == pytest.approx((3 / 4 + 1 / 2) / 2)  # class 1 is absent
    assert "test/accuracy_per_class" not in found.measures("val")


def test_a_loss_that_is_not_finite_names_epoch_and_step(problem):
    network, table, labels = problem
    table[20] = float("inf")
    order = torch.arange(30)
    with pytest.raises(DivergedError, match=r"nan at epoch 7, step 3, .*0\.1.*lr=0\.01"):
        train_epoch(setup(network, table, labels), order, epoch=7)


@pytest.mark.parametrize(
    ("dtype", "scaling"), [("float32", False), ("bfloat16", False), ("float16", True)]
)
def test_one_path_for_all_precisions(problem, dtype, scaling):
    network, table, labels = problem
    case = setup(network, table, labels, Precision(dtype, scaling))
    steps = []
    case.optimizer.register_step_post_hook(lambda *_: steps.append(1))
    first = train_epoch(case, torch.arange(30), epoch=1)
    assert len(steps) == 4  # once for each batch
    for epoch in range(2, 12):
        last = train_epoch(case, torch.arange(30), epoch)
    assert last["train/loss"] < 0.8 * first["train/loss"]
    assert all(p.dtype == torch.float32 for p in network.parameters())


def test_epoch_seeds_differ():
    seeds = {epoch_seed(seed, epoch) for seed in range(20) for epoch in range(1, 51)}
    assert len(seeds) == 1000
    assert epoch_seed(0, 1) == epoch_seed(0, 1)
