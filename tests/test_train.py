"""Whole runs: results, resuming, refusing, and the same numbers with and without the cache."""

import itertools
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image
from safetensors.torch import load_file

from caltech import train as training
from caltech.config import build
from caltech.errors import DivergedError, InputError
from caltech.runs import checkpoint, provenance
from caltech.train import train
from caltech.training import epoch, signals
from caltech.training.average import Last
from caltech.training.epoch import Setup, evaluate
from caltech.training.inputs import Images
from caltech.training.precision import Precision

RESNET = [
    "model=timm",
    "model.name=test_resnet",
    "model.weights=null",
    "num_epochs=2",
    "batch_size=8",
    "lr=0.01",
]
LITE0 = ["num_epochs=3", "batch_size=8"]


def outcome(cfg) -> tuple[dict, dict, dict]:
    """Result and both models of a finished run."""
    directory = Path(cfg.directory)
    weights = [load_file(directory / f"{name}.safetensors") for name in ("last", "best")]
    return json.loads((directory / "result.json").read_text()), *weights


def assert_equal(found, expected):
    assert found[0] == expected[0]
    for one, other in zip(found[1:], expected[1:], strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_result_of_a_run(configure):
    cfg = configure("num_epochs=12", "batch_size=8", "lr=0.003")
    returned = train(cfg)
    result, last, best = outcome(cfg)
    assert returned == {k: v for k, v in result.items() if k != "crc32"}
    assert result["last"]["epoch"] == 12
    assert result["last"]["train/accuracy"] >= 0.9
    assert result["last"]["test/accuracy"] >= 0.6  # categories differ by colour; chance is 0.2
    assert result["majority/accuracy"] == pytest.approx(0.2)
    assert last.keys() == best.keys()
    predictions = np.load(Path(cfg.directory) / "predictions_last.npz")
    correct = (predictions["predictions"] == predictions["labels"]).mean()
    assert correct == pytest.approx(result["last"]["test/accuracy"])
    assert sorted(path.name for path in Path(cfg.directory).iterdir()) == [
        "best.safetensors", "checkpoint.pt", "config.yaml", "data.json", "last.safetensors",
        "predictions_best.npz", "predictions_last.npz", "provenance.json", "result.json",
        "run.lock", "timing.json",
    ]  # fmt: skip


@pytest.mark.parametrize("average", ["none", "ema"])
def test_a_saved_model_gives_the_run_s_own_numbers(configure, average):
    cfg = configure(*LITE0, f"average={average}")
    train(cfg)
    result = outcome(cfg)[0]
    data = build(cfg.data)
    model = build(cfg.model, num_classes=5)
    checkpoint.load_weights(Path(cfg.directory) / "best.safetensors", model)
    inputs, precision = (
        Images(data, build(cfg.augment), torch.device("cpu")),
        Precision("float32", False),
    )
    setup = Setup(model, inputs, data.labels, 16, None, None, None, None, precision)
    found = evaluate(setup, data.test, "test")
    assert found.accuracy == result["best"]["test/accuracy"]
    assert found.loss == pytest.approx(result["best"]["test/loss"], rel=1e-5)


class Stopped(BaseException):
    """As a kill: nothing catches it."""


@pytest.mark.parametrize(
    "overrides",
    [
        [*RESNET, "freeze=none"],
        [*RESNET, "freeze=none", "augment=trivial", "optimizer=adamw", "schedule=cosine"],
        [*RESNET, "freeze=head", "augment=flip_crop", "precision=bf16"],
        [*LITE0, "augment=flip"],
        [*RESNET, "freeze=none", "average=ema"],
    ],
    ids=["full", "augmented", "bf16", "cached", "averaged"],
)
@pytest.mark.parametrize(
    "stop", ["after step 1", "mid-epoch", "last step", "between epochs", "while saving"]
)
def test_resumed_is_bitwise_uninterrupted(configure, monkeypatch, overrides, stop):
    expected = configure(*overrides, "study=expected")
    if not (Path(expected.directory) / "result.json").exists():
        train(expected)
    cfg = configure(*overrides, "study=stopped")
    assert cfg.key == expected.key
    with monkeypatch.context() as patched, pytest.raises((Stopped, SystemExit)):
        stop_training(patched, stop)
        train(cfg)
    assert not (Path(cfg.directory) / "result.json").exists()
    train(cfg)
    assert_equal(outcome(cfg), outcome(expected))
    assert not list(Path(cfg.directory).glob(".*partial"))


def stop_training(patched, stop: str) -> None:
    """SIGTERM during a step, or the end of the process without any notice."""
    if stop == "between epochs":
        patched.setattr(training.run, "log_epoch", raising_on_call(2, lambda *_: None))
    elif stop == "while saving":
        patched.setattr(checkpoint.torch, "save", raising_on_call(2, torch.save))
    else:
        step = {"after step 1": 1, "mid-epoch": 6, "last step": 8}[stop]

        def terminate(*_):
            os.kill(os.getpid(), signal.SIGTERM)
            return 0

        patched.setattr(epoch, "_correct", on_call(step, terminate, epoch._correct))


def on_call(number: int, special, usual):
    """`special` and then `usual` in the call of that number, `usual` in all others."""
    calls = itertools.count(1)

    def called(*arguments, **keywords):
        if next(calls) == number:
            special(*arguments)
        return usual(*arguments, **keywords)

    return called


def raising_on_call(number: int, usual):
    def stop(*_):
        raise Stopped

    return on_call(number, stop, usual)


def test_checkpoints_inside_an_epoch(configure, monkeypatch):
    """A process that ends without notice loses no more than the time since the last of them."""
    overrides = [*RESNET, "freeze=none", "augment=flip_crop", "num_epochs=1"]
    expected = configure(*overrides, "study=expected")
    train(expected)
    cfg = configure(*overrides, "study=killed", "checkpoint_minutes=1e-9")
    steps = []

    def note(logits, labels):
        steps.append(len(labels))
        return usual(logits, labels)

    usual = epoch._correct
    with monkeypatch.context() as patched, pytest.raises(Stopped):
        patched.setattr(epoch, "_correct", raising_on_call(2, note))
        train(cfg)
    monkeypatch.setattr(epoch, "_correct", note)
    train(cfg)
    assert steps == [8, 8, 8, 6]  # 30 images to train on; the first step is not made again
    assert_equal(outcome(cfg), outcome(expected))


def test_a_checkpoint_of_before_there_was_an_average_is_gone_on_with(tmp_path):
    layer, path = torch.nn.Linear(2, 2), tmp_path / "checkpoint.pt"
    checkpoint.save(path, {"layer": layer}, {"seconds": 3.0})
    again = torch.nn.Linear(2, 2)
    assert checkpoint.load(path, {"layer": again, "average": Last(again)}) == {"seconds": 3.0}
    assert torch.equal(again.weight, layer.weight)


def test_a_second_signal_is_not_deferred():
    with signals.deferred() as interrupted, pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        assert isinstance(interrupted(), KeyboardInterrupt)
        os.kill(os.getpid(), signal.SIGINT)


def test_a_signal_that_nobody_asked_for_is_not_lost():
    """It came after the last step: the process still ends, with the handlers as they were."""
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended, signals.deferred():
        os.kill(os.getpid(), signal.SIGTERM)
    assert ended.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_run_can_start_from_another_one_s_best_weights(configure, tmp_path):
    head = configure(*LITE0)
    train(head)
    start = f"start={head.key}"
    cfg = configure("freeze=none", "num_epochs=1", "batch_size=64", "lr=1e-30", start)
    train(cfg)
    _, weights, _ = outcome(cfg)
    _, _, best = outcome(head)
    for name, value in weights.items():
        if "running_" not in name and "num_batches" not in name:  # BatchNorm has seen a batch
            assert torch.equal(value, best[name]), name
    provenance = json.loads((Path(cfg.directory) / "provenance.json").read_text())
    assert provenance["weights"]["name"].endswith(f", then the best of {head.key}")
    assert cfg.key != configure("freeze=none", "num_epochs=1", "batch_size=64", "lr=1e-30").key

    with pytest.raises(InputError, match=r"start=.* cannot be the start of this model"):
        train(configure(*RESNET, start))
    lists = dict.fromkeys(("train", "test"))
    for name, files in zip(lists, np.array_split(build(head.data).files, 2), strict=True):
        lists[name] = tmp_path / f"{name}.txt"
        lists[name].write_text("\n".join(files))
    own = [f"data.{name}_files={path}" for name, path in lists.items()]
    with pytest.raises(InputError, match=r"another split .*may be test images here"):
        train(configure(*LITE0, *own, start))
    with pytest.raises(InputError, match=r"start=best is not allowed: it is a finished run's key"):
        train(configure("start=best"))


def test_a_finished_run_is_answered_and_rerun_keeps_the_old_result(configure, monkeypatch):
    cfg = configure(*LITE0)
    first = train(cfg)
    before = outcome(cfg)
    with monkeypatch.context() as patched:
        patched.setattr(training.epochs, "train_epoch", lambda *_: pytest.fail("trained again"))
        assert train(cfg) == first
    assert train(configure(*LITE0, "rerun=true")) == first
    assert_equal(outcome(cfg), before)
    (aside,) = Path(cfg.directory).glob("earlier-*")
    assert json.loads((aside / "result.json").read_text()) == before[0]


def test_a_rerun_that_was_interrupted_goes_on(configure, monkeypatch):
    train(configure(*LITE0))
    cfg = configure(*LITE0, "rerun=true")
    with monkeypatch.context() as patched, pytest.raises(Stopped):
        stop_training(patched, "between epochs")
        train(cfg)
    trained = []
    usual = training.epochs.train_epoch
    with monkeypatch.context() as patched:
        patched.setattr(
            training.epochs, "train_epoch", lambda *given: trained.append(1) or usual(*given)
        )
        train(cfg)
    assert len(trained) == 1  # of three: two were done
    assert len(list(Path(cfg.directory).glob("earlier-*"))) == 1


def test_a_signal_during_validation_waits_for_its_end(configure, monkeypatch):
    cfg = configure(*LITE0)
    usual = training.epochs.evaluate

    def terminated(*given):
        os.kill(os.getpid(), signal.SIGTERM)
        return usual(*given)

    with monkeypatch.context() as patched, pytest.raises(SystemExit) as ended:
        patched.setattr(training.epochs, "evaluate", terminated)
        train(cfg)
    assert ended.value.code == 143
    kept = checkpoint._read(Path(cfg.directory) / "checkpoint.pt")
    assert len(kept["progress"]["history"]) == 1


def test_other_code_that_goes_on_with_a_run_is_recorded(configure, monkeypatch):
    cfg = configure(*LITE0)
    with monkeypatch.context() as patched, pytest.raises(Stopped):
        stop_training(patched, "between epochs")
        train(cfg)
    other = {"git": "another", "sha256": "0" * 16}
    monkeypatch.setattr(provenance, "code_version", lambda: other)
    train(cfg)
    told = provenance.read_sealed_json(Path(cfg.directory) / "provenance.json")
    assert [maker["code"] for maker in told["continued_by"]] == [other]
    monkeypatch.setattr(provenance, "code_version", lambda: other | {"sha256": "1" * 16})
    train(cfg)  # answered
    assert provenance.read_sealed_json(Path(cfg.directory) / "provenance.json") == told


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("schedule.step_size=0", "cannot be stepped"),
        ("schedule.gamma=abc num_epochs=16", "cannot be stepped"),
        ("schedule._target_=torch.optim.lr_scheduler.ReduceLROnPlateau", "does not fit|cannot be"),
        ("data.crop=60.5", "60.5"),
        ("tracking.uri=${nope}", "not complete at tracking.uri: .*nope"),
        ("seeds=5 seed=3", "seeds=5 or seed=3"),
    ],
)
def test_what_would_fail_after_an_epoch_fails_before_any_work(configure, override, said):
    group = ["tracking=mlflow"] if "tracking" in override else []
    cfg = configure(*LITE0, *group, *override.split(" "))
    with pytest.raises(InputError, match=said):
        train(cfg)
    assert not Path(cfg.directory).exists()


def test_a_run_that_another_process_computes_is_refused(configure):
    cfg = configure(*LITE0)
    directory = Path(cfg.directory)
    directory.mkdir(parents=True)
    (directory / "holder.json").write_text('{"pid": 4711, "host": "elsewhere"}')
    with (
        FileLock(directory / "run.lock"),
        pytest.raises(InputError, match=r"4711.*elsewhere.*study="),
    ):
        train(cfg)


def test_other_data_is_refused(configure, tmp_path, cache):
    image = tmp_path / "caltech101" / "101_ObjectCategories" / "a" / "image_0001.jpg"
    for category in ("a", "b"):
        folder = image.parent.with_name(category)
        folder.mkdir(parents=True)
        for number in range(1, 13):
            place = folder / f"image_{number:04d}.jpg"
            Image.new("RGB", (80, 80), (number, 0, 0)).save(place)
    overrides = [*LITE0, f"data.root={tmp_path}", "num_epochs=1"]
    cfg = configure(*overrides)
    train(cfg)
    Image.new("RGB", (80, 80), "white").save(image)
    before = outcome(cfg)
    with pytest.raises(InputError, match=r"made from other data.*study=NAME.*rerun=true"):
        train(cfg)
    assert_equal(outcome(cfg), before)


def test_divergence_is_an_error_and_leaves_no_result(configure):
    cfg = configure(*RESNET, "freeze=none", "lr=1e30")
    with pytest.raises(DivergedError, match=r"epoch 1, step 2"):
        train(cfg)
    assert not (Path(cfg.directory) / "result.json").exists()


def test_device(configure):
    if torch.cuda.is_available():
        pytest.skip("a GPU is present")
    with pytest.raises(InputError, match=r"device=cuda is not available.*device=cpu"):
        train(configure("device=cuda"))


def test_a_change_of_a_frozen_part_would_be_noticed(configure, monkeypatch):
    train_epoch = training.epochs.train_epoch

    def spoil(setup, *rest):
        setup.network.backbone.network.bn1.running_mean += 1
        return train_epoch(setup, *rest)

    monkeypatch.setattr(training.epochs, "train_epoch", spoil)
    with pytest.raises(RuntimeError, match="frozen parameter or buffer has changed"):
        train(configure(*RESNET, "features=off"))
