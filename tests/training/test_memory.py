"""Less room than there would have to be: smaller batches, what stays on the host, what is said."""

from collections import deque
from types import SimpleNamespace

import pytest
import torch

from caltech.data import pixels
from caltech.data.augment import Views
from caltech.errors import OutOfMemoryError
from caltech.inference.predictor import Predictor
from caltech.runs.directory import RunDirectory
from caltech.training import features, memory
from caltech.training.features import BATCH, Features, Images, Outputs
from caltech.training.memory import InParts, placed_views, within_memory
from caltech.training.precision import Precision
from tests.training.test_features import Halved, extract, toy

CPU = torch.device("cpu")


class Roomless:
    """A call that has room for so many items; more raise what torch raises."""

    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    def __init__(self, call, room):
        self.call, self.room, self.given = call, room, []

    def __call__(self, items):
        self.given.append(len(items))
        if len(items) > self.room:
            raise self.error
        return self.call(items)


@pytest.mark.parametrize("count", [1, 2, 7, 16])
def test_parts_are_in_order_and_their_size_is_found_out_once(count):
    items = torch.arange(count)
    roomless = Roomless(lambda values: values * 2, 4)
    in_parts = InParts(roomless)
    for _ in range(2):
        assert in_parts(items).tolist() == (items * 2).tolist()
    tried = {1: [1, 1], 2: [2, 2], 7: [7, 4, 3, 4, 3], 16: [16, 8, *[4] * 8]}
    assert roomless.given == tried[count]


ENGINE = RuntimeError("FIND was unable to find an engine to execute this computation")


@pytest.mark.parametrize("error", [None, ENGINE])
def test_one_that_does_not_fit_is_an_error_with_advice_and_others_pass(error):
    with pytest.raises(OutOfMemoryError, match=r"with one image.*device=cpu"):
        InParts(Roomless(int, 0))(torch.arange(8))

    def other(items):
        raise error or RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    for call in (lambda: InParts(other)(torch.arange(8)), lambda: within_memory(other, 8, "epoch")):
        with pytest.raises(RuntimeError, match=r"unable to find an engine|cannot be multiplied"):
            call()


def test_where_cudnn_finds_no_way_half_as_many_images_tell_why():
    """It says the same if there is no memory, and if there is no algorithm."""
    room = Roomless(torch.sum, 2)
    room.error = ENGINE
    with pytest.raises(OutOfMemoryError, match="micro_batch=2"):
        within_memory(lambda count: room(torch.arange(count)), 8, "epoch 1")
    room = Roomless(lambda values: values, 2)
    room.error = ENGINE
    assert InParts(room)(torch.arange(8)).tolist() == [*range(8)]


class Crowded(Halved):
    """With room for two images."""

    def forward(self, images):
        return Roomless(super().forward, 2)(images)


def test_features_are_computed_where_few_images_fit(tmp_path):
    found, expected = extract(tmp_path, frozen=Crowded()), extract(tmp_path / "all")
    assert all(torch.equal(found.views[name], expected.views[name]) for name in expected.views)


def test_outputs_are_computed_anew_where_few_images_fit():
    precision, every = Precision("float32", False), torch.arange(6)
    images = Images(toy(), Views(["plain"], ["plain"]), CPU)
    found, expected = (Outputs(part, images, precision) for part in (Crowded(), Halved()))
    assert torch.equal(found.training(every), expected.training(every))
    assert torch.equal(found.evaluation(every)[0], expected.evaluation(every)[0])


def test_a_run_answers_where_few_images_fit(finished, monkeypatch):
    predictor = Predictor.load(RunDirectory(finished), "best", "cpu")
    images = torch.randint(256, (6, 72, 72, 3), dtype=torch.uint8)
    expected = predictor.probabilities(images)
    assert BATCH["cpu"] > 6
    network = Roomless(predictor.network.forward, 3)
    monkeypatch.setattr(predictor.network, "forward", network)
    assert torch.allclose(predictor.probabilities(images), expected, atol=1e-6)
    assert network.given == [6, 3, 3]


@pytest.mark.parametrize(("room", "stays"), [(4 * 96, False), (4 * 96 - 4, True)])
def test_features_that_would_fill_more_than_a_quarter_of_a_gpu_stay_on_the_host(
    monkeypatch, room, stays
):
    """The two views together."""
    gpu, moved = SimpleNamespace(type="cuda"), []
    properties = SimpleNamespace(total_memory=room)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, device: moved.append(device) or tensor)
    placed_views({name: torch.zeros(6, 2) for name in ("plain", "mirrored")}, gpu)
    assert moved == [CPU if stays else gpu] * 2


def test_features_on_the_host_are_those_of_the_images_asked_for(monkeypatch):
    views = {"plain": torch.rand(60, 5), "mirrored": torch.rand(60, 5)}
    paced = []
    monkeypatch.setattr(features, "keep_pace", lambda: paced.append(1))
    augment = Views(["plain", "mirrored"], ["mirrored"])
    near, far = Features(views, augment, CPU), Features(views, augment, CPU)
    rows, meta = torch.tensor([3, 59, 3, 0]), torch.device("meta")
    monkeypatch.setattr(features, "rows_of", lambda indices: rows.tolist())
    monkeypatch.setattr(features, "sent", lambda tensor, device: tensor)
    torch.manual_seed(0)
    expected = near.training(rows)
    torch.manual_seed(0)
    assert torch.equal(far.training(rows.to(meta)), expected)
    assert torch.equal(far.evaluation(rows.to(meta))[0], views["mirrored"][rows])
    assert len(paced) == 2


def test_no_more_than_two_large_copies_are_on_the_way(monkeypatch):
    made, waiting = [], []

    class Event:
        def record(self):
            waiting.append(self)

        def synchronize(self):
            made.append(waiting.pop(0) is self)

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(pixels, "_on_the_way", deque())
    for _ in range(9):
        pixels.keep_pace()
        assert len(waiting) <= pixels.MOST_ON_THE_WAY
    assert made == [True] * 7


def test_what_torch_keeps_is_given_back_on_apple_s_gpus_too(monkeypatch):
    called = []
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "empty_cache", lambda: called.append("mps"))
    memory._release()
    assert called == ["mps"]
