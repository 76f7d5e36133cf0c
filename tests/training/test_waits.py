"""Steady steps wait for no device: on `meta`, no number can be read, and reading one raises."""

import contextlib
import dataclasses
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from caltech.data import augment
from caltech.data.augmentation import rectangles
from caltech.data.augmentation.recipe import Recipe
from caltech.data.dataset import Dataset
from caltech.data.pixels import Decoded
from caltech.runs.progress import UNREAD_ELSEWHERE, Tally, Totals
from caltech.training import epoch, features
from caltech.training.average import MovingAverage
from caltech.training.epoch import Batches, evaluate, train_epoch
from caltech.training.features import Features, Images
from caltech.training.memory import placed
from caltech.training.precision import Precision
from tests.training.conftest import learner

META = torch.device("meta")
BOTH = ["plain", "mirrored"]
AUGMENT = {
    "none": augment.Views(["plain"], ["plain"]),
    "flip_both": augment.Views(BOTH, BOTH),
    "flip_crop": augment.FlipCrop(["plain"]),
}


class Float32(Precision):
    """Without autocast, which does not know the device."""

    def __init__(self):
        super().__init__("float32", False)

    def autocast(self, device):
        return contextlib.nullcontext()


class Flat(nn.Sequential):
    """Images or features to four logits."""

    def forward(self, values):
        return super().forward(values.float().flatten(1)[:, :48])


@pytest.fixture
def far(monkeypatch):
    """A learner on a device that tells nothing, and what crossed over to it and back."""
    crossed = {"sent": [], "totals": [], "received": []}

    def sent(tensor, device):
        crossed["sent"].append(tensor.numel())
        return tensor.to(device)

    def received(*values):
        crossed["received"].append(len(values))
        return [torch.zeros(value.shape, dtype=value.dtype) for value in values]

    def totals(self):
        crossed["totals"].append(self.steps)
        self._unread = []
        return Totals(self.steps, self.images)

    for module in (augment, features, epoch):
        monkeypatch.setattr(module, "sent", sent)
    monkeypatch.setattr(epoch, "received", received)
    monkeypatch.setattr(Tally, "totals", totals)
    network = Flat(nn.Linear(48, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4)).to(META)
    parts = {"average": MovingAverage(network, 0.9), "precision": Float32()}
    return learner(network, **parts), crossed


def fed(kind: str, option: str) -> Batches:
    """60 images of 6 by 6 pixels or their features, 4 at a time."""
    rows, pixels = torch.arange(60), torch.zeros(60, 6, 6, 3, dtype=torch.uint8)
    data = Dataset("far", lambda: pixels, 6, rows % 4, (), (), rows, rows, rows, 4, "f" * 64)
    views = {name: torch.zeros(60, 48) for name in BOTH}
    given = Images(data, AUGMENT[option], META)
    if kind == "features":
        given = Features(views, AUGMENT[option], META)
    return Batches(inputs=given, labels=(rows % 4).to(META), size=4)


@pytest.mark.parametrize(
    ("kind", "option"),
    [("images", "none"), ("images", "flip_both"), ("images", "flip_crop"),
     ("features", "none"), ("features", "flip_both")],
)  # fmt: skip
def test_an_epoch_reads_its_sums_at_its_end_and_evaluation_reads_once(far, kind, option):
    learning, crossed = far
    batches = fed(kind, option)
    train_epoch(learning, batches, torch.arange(60), 1)
    assert crossed["totals"] == [15]
    assert crossed["sent"][0] == 60  # the order, once; then at most what was drawn for 4 images
    assert len(crossed["sent"]) <= 1 + 15
    assert all(numbers <= 3 * 4 for numbers in crossed["sent"][1:])
    evaluate(learning, batches, torch.arange(60), "validation")
    assert crossed["received"] == [4]


def test_parts_and_clipped_gradients_wait_for_nothing(far):
    learning, crossed = far
    learning = dataclasses.replace(learning, clip_norm=1.0)
    weighted = torch.nn.CrossEntropyLoss(torch.ones(4, device=META))
    learning = dataclasses.replace(learning, loss=weighted)
    batches = dataclasses.replace(fed("images", "flip_both"), part=2)
    train_epoch(learning, batches, torch.arange(60), 1)
    assert crossed["totals"] == [15]
    evaluate(learning, batches, torch.arange(60), "validation")
    assert crossed["received"] == [4]


def test_sums_are_read_every_so_many_steps_and_when_asked_for(far):
    learning, crossed = far
    batches = dataclasses.replace(fed("features", "none"), size=2)
    order = torch.arange(60).repeat(4)  # 120 steps
    train_epoch(learning, batches, order, 1, after_step=[lambda t: t.steps == 7 and t.totals()])
    assert crossed["totals"] == [7, 7 + UNREAD_ELSEWHERE + 1, 7 + 2 * (UNREAD_ELSEWHERE + 1), 120]


def test_totals_are_the_same_bits_however_seldom_they_are_read(monkeypatch):
    losses, hits = torch.rand(20), torch.randint(5, (20,)).float()
    found = []
    for unread in (0, 6, 50):
        monkeypatch.setattr("caltech.runs.progress.UNREAD", {"cpu": unread})
        tally = Tally(Totals(), AssertionError)
        for loss, correct in zip(losses, hits, strict=True):
            tally.add(loss, correct, 7)
        found.append(tally.totals())
    assert found[0] == found[1] == found[2]
    assert found[0].loss_sum == pytest.approx(7 * losses.sum().item(), rel=1e-6)


@pytest.mark.parametrize("unread", [0, 50])
def test_a_divergence_names_its_own_step_however_late_it_is_read(monkeypatch, unread):
    monkeypatch.setattr("caltech.runs.progress.UNREAD", {"cpu": unread})

    def told(totals):
        return ArithmeticError(totals.steps)

    tally = Tally(Totals(), told)
    with pytest.raises(ArithmeticError, match="3"):
        for loss in (1.0, 2.0, float("nan"), 1.0, float("inf")):
            tally.add(torch.tensor(loss), torch.tensor(1.0), 4)
        tally.totals()


def test_one_gather_gives_what_slices_give(monkeypatch):
    """What a GPU does, on the CPU."""
    torch.manual_seed(0)
    pixels = torch.randint(256, (5, 9, 9, 3), dtype=torch.uint8)
    indices, corners = torch.randint(5, (40,)), torch.randint(4, (2, 40))
    mirrored = torch.rand(40) < 0.5
    slices = augment._slices(pixels, indices, corners, mirrored, 6)
    gathered = augment._gathered(pixels, indices, corners, mirrored, 6)
    assert torch.equal(slices, gathered)
    assert slices.stride() == gathered.stride()


class NoTensorMadeThere(TorchFunctionMode):
    """torch.tensor with a GPU as its device waits for it."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        where = torch.device((kwargs or {}).get("device") or "cpu")
        assert function is not torch.tensor or where.type == "cpu"
        return function(*args, **kwargs or {})


STRONG = {"brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1, "erase": 0.5}
SENDING = {
    "trivial": augment.Trivial(["plain"]),
    "rand": Recipe(["plain"], 2, 9, scale=None, ratio=[0.75, 1.3], **dict.fromkeys(STRONG, 0.0)),
    "recipe": Recipe(["plain"], 2, 9, scale=[0.1, 1], ratio=[0.75, 1.3], **STRONG),
}


@pytest.mark.parametrize("option", SENDING)
def test_torchvision_s_changes_wait_for_nothing(monkeypatch, option):
    """Its turns, shears and sharpness make small tensors; in 40 groups each is drawn."""
    sent = []
    for module in (augment, rectangles):
        monkeypatch.setattr(module, "sent", lambda t, device: sent.append(t) or t.to(device))
    pixels = torch.zeros(320, 40, 40, 3, dtype=torch.uint8, device=META)
    torch.manual_seed(0)
    with NoTensorMadeThere():
        SENDING[option](pixels, torch.arange(320, device=META), 36)
    assert len(sent) > 15


def test_what_torchvision_changes_is_the_same_bits(monkeypatch):
    pixels = torch.randint(256, (64, 40, 40, 3), dtype=torch.uint8)
    torch.manual_seed(3)
    found = SENDING["trivial"](pixels, torch.arange(64), 36)
    monkeypatch.setattr(augment, "Unwaited", contextlib.nullcontext)
    torch.manual_seed(3)
    assert torch.equal(SENDING["trivial"](pixels, torch.arange(64), 36), found)


class Allowed(TorchDispatchMode):
    """What Apple's GPUs have."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **kwargs or {})
        tensors = [leaf for leaf in tree_leaves(found) if isinstance(leaf, torch.Tensor)]
        assert not any(tensor.dtype is torch.float64 for tensor in tensors), function
        return found


@pytest.mark.parametrize("option", [*AUGMENT.values(), augment.Trivial(["plain"])])
def test_nothing_needs_float64_or_pinned_memory(monkeypatch, option):
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda *_: pytest.fail("pinned"))
    rows, pixels = torch.arange(60), torch.zeros(60, 6, 6, 3, dtype=torch.uint8)
    data = Dataset("near", lambda: pixels, 6, rows % 4, (), (), rows, rows, rows, 4, "e" * 64)
    inputs = Images(data, option, torch.device("cpu"))
    network = Flat(nn.Linear(48, 4))
    learning = learner(network, average=MovingAverage(network, 0.9))
    batches = Batches(inputs=inputs, labels=data.labels, size=16)
    with Allowed():
        train_epoch(learning, batches, rows, 1)
        evaluate(learning, batches, rows, "validation")


def test_pixels_are_read_once_for_all_jobs_that_share_them():
    reads = []

    def data(content):
        pixels = torch.zeros(2, 4, 4, 3, dtype=torch.uint8)
        rows = torch.arange(2)
        return Dataset("once", lambda: reads.append(content) or pixels, 4, rows, (), (), rows, rows,
                       rows, 4, content)  # fmt: skip

    for content in ("a", "a", "b", "b", "a"):
        Images(data(content), AUGMENT["none"], torch.device("cpu"))
    assert reads == ["a", "b", "a"]  # one set is kept


def test_rows_of_what_was_sent_are_known_here_and_all_others_are_read():
    order = torch.randperm(12)
    there = order.clone()
    augment._remember(order, there)
    there.fill_(-1)  # what would be read
    assert augment.rows_of(there[4:8]) == order[4:8].tolist()
    assert augment.rows_of(there[::2]) == augment.rows_of(there.flip(0)[:6]) == [-1] * 6
    address = there.data_ptr()
    del there
    assert address not in augment._sent


@pytest.mark.parametrize(("memory", "stays"), [(4 * 60 * 108, False), (4 * 60 * 108 - 4, True)])
def test_pixels_that_would_fill_more_than_a_quarter_of_a_gpu_stay_on_the_host(
    monkeypatch, memory, stays
):
    pixels = torch.arange(60 * 108).remainder(256).to(torch.uint8).view(60, 6, 6, 3)
    gpu = SimpleNamespace(type="cuda")
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=memory)
    )
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, device: tensor)
    found = placed(pixels, gpu)
    assert isinstance(found, Decoded) == stays
    if stays:
        monkeypatch.undo()
        rows = torch.tensor([3, 59, 3])
        crops = augment.center_crop(dataclasses.replace(found, device="cpu"), rows, 4)
        assert torch.equal(crops, augment.center_crop(pixels, rows, 4))
