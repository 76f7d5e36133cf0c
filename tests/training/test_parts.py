"""A step in parts, and with clipped gradients, against the same step as a whole."""

import contextlib
import copy
import dataclasses

import pytest
import torch
from torch import nn

from caltech.errors import DivergedError, InputError, OutOfMemoryError
from caltech.models.classifier import require_no_single
from caltech.training import epoch, memory
from caltech.training.average import Last
from caltech.training.epoch import evaluate, train_epoch
from caltech.training.loss import cross_entropy, require_parts, weight_of
from caltech.training.precision import Precision
from tests.training.conftest import learner

CLASS_WEIGHTS = torch.tensor([0.1, 3.0, 1.0, 20.0])
LOSSES = {
    "plain": cross_entropy(0.0),
    "smoothed": cross_entropy(0.1),
    "class weights": nn.CrossEntropyLoss(CLASS_WEIGHTS),
    "smoothed class weights": nn.CrossEntropyLoss(CLASS_WEIGHTS, label_smoothing=0.1),
}


@pytest.fixture
def plain(problem):
    """The problem with a network that computes each image for itself; batches of 8, 8, 8 and 6."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4)), problem[1]


def in_parts(batches, part):
    return dataclasses.replace(batches, part=part)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("part", [1, 3, 4, 8])
def test_parts_are_the_whole_batch_up_to_rounding(plain, loss, part):
    network, batches = plain
    whole, order = copy.deepcopy(network), torch.randperm(30)
    expected = train_epoch(learner(whole, loss=LOSSES[loss]), batches, order, 1)
    found = train_epoch(learner(network, loss=LOSSES[loss]), in_parts(batches, part), order, 1)
    for one, other in zip(network.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    for name in ("train/loss", "train/loss_last_step", "train/accuracy"):
        assert found[name] == pytest.approx(expected[name], rel=1e-5)


def test_parts_with_soft_labels_count_by_their_images():
    loss, logits = LOSSES["class weights"], torch.randn(8, 4)
    soft = torch.rand(8, 4).softmax(1)
    parts = zip(logits.split(3), soft.split(3), strict=True)
    found = sum(loss(a, b) * (weight_of(loss, b) / weight_of(loss, soft)) for a, b in parts)
    torch.testing.assert_close(found, loss(logits, soft))


@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_losses_that_are_means_may_be_computed_in_parts(loss):
    state = torch.get_rng_state()
    require_parts(loss, "loss", 4)
    assert torch.equal(state, torch.get_rng_state())


def hidden_weights(logits, labels):
    """A weighted mean that does not tell its weights."""
    return LOSSES["class weights"](logits, labels)


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(reduction="sum"), hidden_weights])
def test_a_loss_that_is_no_mean_is_refused_in_parts(loss):
    with pytest.raises(InputError, match=r"micro_batch= .* with my.loss: .* Type micro_batch=null"):
        require_parts(loss, "my.loss", 4)


@pytest.mark.parametrize("part", [None, 3])
def test_gradients_are_clipped_as_torch_does(plain, part):
    network, batches = plain
    reference, order = copy.deepcopy(network), torch.arange(8)
    train_epoch(learner(network, clip_norm=0.05), in_parts(batches, part), order, 1)
    optimizer = learner(reference).optimizer
    cross_entropy(0.0)(reference(batches.inputs.table[:8]), batches.labels[:8]).backward()
    norm = nn.utils.clip_grad_norm_(reference.parameters(), 0.05)
    optimizer.step()
    assert norm > 0.1
    for one, other in zip(network.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("part", [None, 3])
def test_scaled_gradients_are_clipped_at_their_true_norm(plain, part):
    network, batches = plain
    case, norms = learner(network, clip_norm=0.05, precision=Precision("float16", True)), []

    def note(optimizer, *_):
        gradients = [each.grad for group in optimizer.param_groups for each in group["params"]]
        norms.append(torch.cat([each.flatten() for each in gradients]).norm().item())

    case.optimizer.register_step_pre_hook(note)
    train_epoch(case, in_parts(batches, part), torch.arange(30), 1)
    assert norms == pytest.approx([0.05] * 4, rel=1e-3)


def test_the_average_is_updated_once_a_step(plain):
    network, batches = plain
    average = Last(network)
    updates = []
    average.update = lambda: updates.append(1)
    train_epoch(learner(network, average=average), in_parts(batches, 3), torch.arange(30), 1)
    assert len(updates) == 4


def test_divergence_in_parts_names_epoch_and_step(plain):
    network, batches = plain
    batches.inputs.table[20] = float("inf")
    with pytest.raises(DivergedError, match="nan at epoch 7, step 3"):
        train_epoch(learner(network), in_parts(batches, 3), torch.arange(30), epoch=7)


class Flat(nn.Sequential):
    def forward(self, images):
        return super().forward(images.float().flatten(1))


@pytest.mark.parametrize(
    ("sizes", "said"),
    [((30, 8, None), ""), ((30, 8, 3), ""), ((30, 256, 999), ""),
     ((33, 8, None), "batch_size=8 .* Type batch_size=9"), ((33, 8, 3), "Type batch_size=9"),
     ((30, 8, 7), "micro_batch=7 .* Type micro_batch=8"), ((30, 8, 1), "Type micro_batch=2"),
     ((30, 8, 5), "micro_batch=5 .* Type micro_batch=6")],
)  # fmt: skip
def test_no_part_is_a_single_image_where_there_is_batchnorm(sizes, said):
    model = Flat(nn.BatchNorm1d(48))
    with pytest.raises(InputError, match=said) if said else contextlib.nullcontext():
        require_no_single(model, 4, *sizes)
    require_no_single(Flat(nn.Linear(48, 4)), 4, *sizes)


class Narrow(nn.Sequential):
    """Has memory for so many images at a time."""

    room, error = 3, torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    def forward(self, images):
        if len(images) > self.room:
            raise self.error
        return super().forward(images)


@pytest.fixture
def narrow(problem, monkeypatch):
    monkeypatch.setattr(memory.gc, "collect", int)  # a second each, of all that tests import
    return Narrow(nn.Linear(6, 4)), problem[1]


ERRORS = [
    Narrow.error,
    MemoryError(),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: not enough memory"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"),
]


@pytest.mark.parametrize("error", ERRORS)
def test_no_memory_is_one_error_that_names_what_fits(narrow, monkeypatch, error):
    network, batches = narrow
    monkeypatch.setattr(Narrow, "error", error)
    with pytest.raises(OutOfMemoryError, match=r"epoch 1: 8 images.* Type micro_batch=2") as told:
        train_epoch(learner(network), batches, torch.arange(30), 1)
    assert told.value.__cause__ is None and told.value.__context__ is None
    train_epoch(learner(network), in_parts(batches, 2), torch.arange(30), 1)


def test_no_memory_late_in_a_step_is_the_same_error(narrow, monkeypatch):
    """While gradients are clipped and the loss scaler has unscaled them, as in float16."""
    network, batches = narrow
    sizes = []
    monkeypatch.setattr(Narrow, "room", 99)
    network.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))

    def clip(*_):
        if sizes[-1] > 3:
            raise Narrow.error

    monkeypatch.setattr(epoch, "clip_grad_norm_", clip)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    late = dataclasses.replace(learner(network), scaler=scaler, clip_norm=1.0)
    with pytest.raises(OutOfMemoryError, match=r"epoch 1: 8 images.* Type micro_batch=2"):
        train_epoch(late, batches, torch.arange(32), 1)


def test_no_memory_for_one_image_names_no_part(narrow, monkeypatch):
    network, batches = narrow
    monkeypatch.setattr(Narrow, "room", 0)
    with pytest.raises(OutOfMemoryError, match="One does not fit, either"):
        train_epoch(learner(network), batches, torch.arange(30), 1)


def test_no_memory_in_evaluation_and_evaluation_in_parts(narrow):
    network, batches = narrow
    with pytest.raises(OutOfMemoryError, match=r"validation: 8 images.* Type micro_batch=2"):
        evaluate(learner(network), batches, torch.arange(30), "validation")
    found = evaluate(learner(network), in_parts(batches, 2), torch.arange(30), "validation")
    assert len(found.labels) == 30


def test_another_error_is_no_lack_of_memory(narrow, monkeypatch):
    network, batches = narrow
    monkeypatch.setattr(Narrow, "error", RuntimeError("shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        train_epoch(learner(network), batches, torch.arange(30), 1)
