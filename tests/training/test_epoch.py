"""The loop against the same steps written out with torch alone."""

import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F

from caltech.errors import DivergedError
from caltech.training.epoch import Evaluation, evaluate, train_epoch
from caltech.training.fit import epoch_seed
from caltech.training.loss import cross_entropy
from caltech.training.precision import Precision
from tests.training.conftest import Rows, learner


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_train_epoch_equals_torch_written_out(problem, smoothing):
    network, batches = problem
    table, labels = batches.inputs.table, batches.labels
    reference = copy.deepcopy(network)
    optimizer = torch.optim.SGD(reference.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    order = torch.randperm(30)
    metrics = train_epoch(learner(network, loss=cross_entropy(smoothing)), batches, order, epoch=1)

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


def test_evaluate_does_not_depend_on_the_batches(problem):
    network, batches = problem
    table, labels = batches.inputs.table, batches.labels
    indices = torch.tensor([5, 3, 29, *range(10, 21)])
    found = evaluate(learner(network), batches, indices, "test")
    with torch.no_grad():
        logits = network.eval()(table[indices])
    assert found.loss == pytest.approx(F.cross_entropy(logits, labels[indices]).item(), rel=1e-6)
    assert torch.equal(found.predictions, logits.argmax(1))
    assert torch.equal(found.labels, labels[indices])
    assert torch.allclose(found.confidences, logits.softmax(1).max(1).values)


def test_logits_of_several_views_are_averaged(problem):
    network, batches = problem
    table, labels = batches.inputs.table, batches.labels

    class TwoViews(Rows):
        def evaluation(self, indices):
            return [self.table[indices], -self.table[indices]]

    mirrored = dataclasses.replace(batches, inputs=TwoViews(table))
    found = evaluate(learner(network), mirrored, torch.arange(30), "test")
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
    network, batches = problem
    batches.inputs.table[20] = float("inf")
    order = torch.arange(30)
    with pytest.raises(DivergedError, match=r"nan at epoch 7, step 3, .*0\.1.*lr=0\.01"):
        train_epoch(learner(network), batches, order, epoch=7)


@pytest.mark.parametrize(
    ("dtype", "scaling"), [("float32", False), ("bfloat16", False), ("float16", True)]
)
def test_one_path_for_all_precisions(problem, dtype, scaling):
    network, batches = problem
    case = learner(network, precision=Precision(dtype, scaling))
    steps = []
    case.optimizer.register_step_post_hook(lambda *_: steps.append(1))
    first = train_epoch(case, batches, torch.arange(30), epoch=1)
    assert len(steps) == 4  # once for each batch
    for epoch in range(2, 12):
        last = train_epoch(case, batches, torch.arange(30), epoch)
    assert last["train/loss"] < 0.8 * first["train/loss"]
    assert all(p.dtype == torch.float32 for p in network.parameters())


def test_epoch_seeds_differ():
    seeds = {epoch_seed(seed, epoch) for seed in range(20) for epoch in range(1, 51)}
    assert len(seeds) == 1000
    assert epoch_seed(0, 1) == epoch_seed(0, 1)
