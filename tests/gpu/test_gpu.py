"""The CPU's answers, steps that wait for nothing, resume, memory and speed, on a GPU."""

import copy
import gc
from pathlib import Path

import pytest
import torch

from caltech.config import build
from caltech.errors import DivergedError
from caltech.inference.predictor import Predictor
from caltech.models.freeze import split_frozen
from caltech.runs.directory import RunDirectory
from caltech.runs.progress import Tally
from caltech.runs.result import Result
from caltech.train import train
from caltech.training import features, memory
from caltech.training.device import be_deterministic, choose_device, use_tf32
from caltech.training.epoch import Batches, train_epoch
from caltech.training.features import Images
from caltech.training.fit import learner_of
from caltech.training.loss import prepare
from tests.bench import plain
from tests.bench.product import model_of
from tests.observers import TINY, Doing, assert_equal, outcome, terminate

pytestmark = pytest.mark.gpu

NETWORKS = ["alexnet", "resnet50", "efficientnet_lite0", "timm model.name=vit_tiny_patch16_224"]
DIGITS = ["data=digits", "data.resize=36", "data.crop=32", "num_epochs=4", "batch_size=64"]
DIGITS += ["lr=0.05"]
SMALL = ["model=timm", "model.name=test_resnet", "model.weights=null"]
# The packaged network and weights.
HEAD = ["freeze=backbone", "data.resize=72", "data.crop=64"]
FULL = [*SMALL, "freeze=none", "optimizer=adam", "lr=0.01", "num_epochs=10"]
PRECISIONS = ["fp32", "tf32", "bf16", "amp"]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("tf32", "most"), [(False, 1e-3), (True, 0.1)])
def test_logits_are_the_cpu_s(configure, device, tell, name, tf32, most):
    torch.manual_seed(0)
    cfg = configure(*f"model={name} model.weights=null data.resize=256 data.crop=224".split())
    model = model_of(cfg, 101).eval()
    images = torch.randint(256, (8, 3, 224, 224), dtype=torch.uint8)
    with torch.inference_mode():
        expected = model(images)
        choose_device(device.type)
        use_tf32(tf32)
        found = copy.deepcopy(model).to(device)(images.to(device)).cpu()
    difference = (found - expected).abs().max().item()
    tell(difference)
    assert difference < most


def parts(cfg, device):
    """A learner and its batches on the device, as train puts them together."""
    choose_device(device.type)
    be_deterministic(False, device)
    data, augment = build(cfg.data), build(cfg.augment)
    model = model_of(cfg, len(data.classes), device)
    frozen, trainable = split_frozen(model)
    mix = build(cfg.mix, num_classes=len(data.classes))
    network = trainable if len(frozen) else model
    learner = learner_of(cfg, network, trainable, dict, device, mix)
    counts = data.labels[data.train].bincount(minlength=len(data.classes))
    prepare(learner.loss, counts.to(device), mix, "")
    inputs = Images(data, augment, device)
    if len(frozen):
        inputs = features.extract(frozen, data, augment, learner.precision, device, Path(cfg.cache))
    labels = data.labels.to(device)
    own = {"size": cfg.batch_size, "part": cfg.micro_batch}
    return data, learner, Batches(inputs=inputs, labels=labels, **own)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")  # of a prototype, says torch
@pytest.mark.parametrize("options", [
    *(f"freeze={freeze} {options}" for freeze in ("none", "backbone") for options in (
        "augment=flip", "average=ema", "augment=none precision=amp", "augment=none precision=bf16",
        "augment=flip precision=tf32 average=ema", "augment=flip micro_batch=48 clip_norm=1")),
    "freeze=none augment=trivial", "freeze=none augment=recipe mix=mixup",
    "freeze=none augment=jitter mix=cutmix", "freeze=backbone augment=flip mix=mixup",
    "freeze=none augment=flip_crop loss=balanced", "freeze=backbone augment=none loss=focal",
])  # fmt: skip
def test_steady_steps_wait_for_nothing(configure, cuda, tmp_path, options):
    own = [
        *DIGITS,
        *SMALL,
        *options.split(),
        f"cache={tmp_path}",
        "batch_size=128",
    ]
    data, learner, batches = parts(configure(*own), cuda)
    train_epoch(learner, batches, data.train[: 3 * 128], 1)  # what is done once

    def steady(tally: Tally) -> None:
        torch.cuda.set_sync_debug_mode("error" if 0 < tally.steps < 6 else "default")

    try:
        train_epoch(learner, batches, data.train[: 7 * 128], 2, after_step=[steady])
    finally:
        torch.cuda.set_sync_debug_mode("default")


ON_CPU: dict[tuple[str, ...], Result] = {}  # of one run for all precisions


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("options", [HEAD, FULL, [*FULL, "average=ema"]],
                         ids=["head", "full", "averaged"])  # fmt: skip
def test_digits_are_learned_as_on_the_cpu(configure, device, tell, precision, options):
    """Within some points of validation accuracy.

    A head's last epoch hardly moves by rounding. Of a whole network trained for ten epochs it moves
    by ten points if the first weights move by a millionth: its best epoch is compared.
    """
    own, is_head = [*DIGITS, *options], options is HEAD
    cfg = configure(*own, f"precision={precision}", f"device={device.type}")
    if tuple(options) not in ON_CPU:
        ON_CPU[tuple(options)] = train(configure(*own, "study=expected"))
    results = ON_CPU[tuple(options)], train(cfg)
    expected, found = ((r.last if is_head else r.best)["val/accuracy"] for r in results)
    tell([round(found, 4), round(expected, 4)])
    most = 0.05 if not is_head else 0.02 if precision in ("fp32", "tf32") else 0.03
    assert abs(found - expected) <= most + 1e-9


@pytest.mark.parametrize("options", ["freeze=none", "freeze=none precision=amp average=ema",
                                     "freeze=none precision=amp micro_batch=3 clip_norm=0.1",
                                     "freeze=backbone augment=flip"])  # fmt: skip
def test_resumed_inside_an_epoch_is_bitwise_with_deterministic(configure, device, options):
    own = [*TINY, *options.split(), f"device={device.type}", "deterministic=true"]
    train(expected := configure(*own, "study=expected"))
    cfg = configure(*own)
    with pytest.raises(SystemExit):
        train(cfg, observer=Doing(terminate, at_step=6))
    train(cfg)
    assert_equal(outcome(cfg), outcome(expected))


def test_pixels_that_stay_on_the_host_are_the_same_run(configure, cuda, monkeypatch):
    own = [*DIGITS, *FULL, "augment=flip_crop", f"device={cuda.type}", "deterministic=true"]
    train(expected := configure(*own, "study=expected"))
    memory._pixels.clear()
    monkeypatch.setattr("caltech.training.memory.SHARE", 0)
    train(cfg := configure(*own))
    assert_equal(outcome(cfg), outcome(expected))


def test_a_job_leaves_no_memory_to_the_next(configure, cuda, tell):
    """One diverges, one runs out of memory; of the second's pixels there are 7 MB."""
    before = torch.cuda.memory_allocated()  # of a test that failed, pytest holds its frames
    with pytest.raises(DivergedError):
        train(configure(*DIGITS, *FULL, "lr=1e30", f"device={cuda.type}"))

    def exhaust() -> None:
        torch.empty(1 << 50, dtype=torch.uint8, device=cuda)

    with pytest.raises(torch.OutOfMemoryError):
        own = f"device={cuda.type}"
        train(configure(*DIGITS, *FULL, own), observer=Doing(exhaust, at_step=2))
    gc.collect()
    torch._C._cuda_clearCublasWorkspaces()  # 32 MiB for each thread that used cuBLAS
    left = torch.cuda.memory_allocated() - before
    tell(left)
    assert left < 64e6


@pytest.mark.parametrize("typed", ["model=alexnet", "model=resnet50 precision=amp",
                                   "model=efficientnet_lite2 average=ema"])  # fmt: skip
def test_the_product_is_as_fast_as_the_bare_step(configure, cuda, tell, typed):
    """On a resident batch of 256 images; digits, enlarged."""
    own = ["data=digits", "data.resize=256", "data.crop=224", "model.weights=null", "freeze=none"]
    cfg = configure(*own, *typed.split(), "lr=0.001", "batch_size=256")
    data, learner, batches = parts(cfg, cuda)
    order = data.train.repeat(4)[: 12 * 256]
    images, labels = batches.inputs.training(order[:256].to(cuda)), batches.labels[order[:256]]

    def bare() -> None:
        with learner.precision.autocast(cuda):
            loss = learner.loss(learner.network(images), labels)
        learner.optimizer.zero_grad()
        learner.scaler.scale(loss).backward()
        learner.scaler.step(learner.optimizer)
        learner.scaler.update()

    def twelve_bare() -> None:
        for _ in range(12):
            bare()
        torch.cuda.synchronize()

    train_epoch(learner, batches, order, 1)
    sides = {
        "bare": lambda: len(order) / plain.one_step_seconds(twelve_bare, 0, 1),
        "product": lambda: train_epoch(learner, batches, order, 2)["images_per_second"],
    }
    rate = plain.medians(plain.alternate(sides, 5, waits=False))
    tell({side: round(value) for side, value in rate.items()})
    assert rate["product"] >= 0.95 * rate["bare"]


@pytest.mark.parametrize("searches", [True, False])
def test_what_cudnn_s_search_costs_and_gains(configure, cuda, tell, searches):
    """A first and a second epoch of ResNet-50 with a last batch of another size: told, no more."""
    own = ["data=digits", "data.resize=256", "data.crop=224", "model=resnet50", "freeze=none"]
    data, learner, batches = parts(configure(*own, "model.weights=null", "batch_size=250"), cuda)
    torch.backends.cudnn.benchmark = searches
    rates = [
        train_epoch(learner, batches, data.train[: 3 * 250 + 90], epoch)["images_per_second"]
        for epoch in (1, 2)
    ]
    tell([round(rate) for rate in rates])


def test_features_that_stay_on_the_host_are_the_same_run(configure, device, monkeypatch):
    own = [*DIGITS, *HEAD, "augment=flip_both", f"device={device.type}", "deterministic=true"]
    train(expected := configure(*own, "study=expected"))
    monkeypatch.setattr("caltech.training.memory.SHARE", 0)
    train(cfg := configure(*own))
    assert_equal(outcome(cfg), outcome(expected))


def test_a_run_of_the_device_answers_on_the_cpu(configure, device):
    cfg = configure(*DIGITS, *FULL, f"device={device.type}")
    train(cfg)
    images = build(cfg.data).pixels[:16]
    answers = [
        Predictor.load(RunDirectory(cfg.directory), "best", where).probabilities(images)
        for where in (device.type, "cpu")
    ]
    assert torch.allclose(*(answer.cpu() for answer in answers), atol=1e-3)
