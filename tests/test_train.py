"""Whole runs: results, what is answered, what is kept, and the errors before any work."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from caltech.config import build
from caltech.data.augment import Views
from caltech.errors import DivergedError, InputError
from caltech.inference.predictor import Predictor
from caltech.keys import former_key
from caltech.models.classifier import cut
from caltech.models.freeze import freeze
from caltech.runs import checkpoint, manifest
from caltech.runs.directory import RunDirectory
from caltech.sweeps.place import VARIABLE
from caltech.train import train
from caltech.training.average import Last
from caltech.training.epoch import Batches, Learner, evaluate
from caltech.training.features import Features, Images
from caltech.training.fit import Observer
from caltech.training.precision import Precision
from caltech.training.testing import are_last_wanted
from tests.observers import TINY, Doing, Stopped, assert_equal, outcome, stop

LITE0 = ["num_epochs=3", "batch_size=8"]


def test_result_of_a_run(configure):
    cfg = configure("num_epochs=12", "batch_size=8", "lr=0.003")
    returned = train(cfg)
    result, last, best = outcome(cfg)
    assert (returned.last, returned.best) == (result["last"], result["best"])
    assert result["last"]["epoch"] == 12
    assert result["last"]["train/accuracy"] >= 0.9
    assert result["last"]["test/accuracy"] >= 0.6  # categories differ by colour; chance is 0.2
    assert result["majority/accuracy"] == pytest.approx(0.2)
    assert last.keys() == best.keys()
    predictions = np.load(RunDirectory(cfg.directory).predictions("last"))
    correct = (predictions["predictions"] == predictions["labels"]).mean()
    assert correct == pytest.approx(result["last"]["test/accuracy"])
    assert sorted(path.name for path in Path(cfg.directory).iterdir()) == [
        "best.safetensors", "calibration.json", "config.yaml", "data.json", "description.json",
        "frozen.safetensors", "history.json", "identity.json", "images.csv", "last.safetensors",
        "logits_best.npz", "logits_last.npz", "manifest.json", "predictions_best.npz",
        "predictions_last.npz", "provenance.json", "result.json", "run.lock", "timing.json",
    ]  # fmt: skip


@pytest.mark.parametrize("average", ["none", "ema"])
def test_a_saved_model_gives_the_run_s_own_numbers(configure, average):
    cfg = configure(*LITE0, f"average={average}")
    result = train(cfg)
    data = build(cfg.data)
    model = build(cfg.model, num_classes=5)
    checkpoint.load_weights(RunDirectory(cfg.directory).weights("best"), model)
    images = Images(data, build(cfg.augment), torch.device("cpu"))
    learner = Learner(
        network=model, trainable=model, loss=None, optimizer=None, schedule=None,
        average=Last(model), scaler=None, precision=Precision("float32", False),
    )  # fmt: skip
    batches = Batches(inputs=images, labels=data.labels, size=16)
    found = evaluate(learner, batches, data.test, "test")
    assert found.accuracy == result.best["test/accuracy"]
    assert found.loss == pytest.approx(result.best["test/loss"], rel=1e-5)


def test_a_finished_run_is_answered_and_rerun_keeps_the_old_result(configure):
    cfg = configure(*TINY)
    first, before = train(cfg), outcome(cfg)
    again = Doing(stop, at_step=1)
    assert train(cfg, observer=again) == first
    assert train(configure(*TINY, "rerun=true")) == first
    assert_equal(outcome(cfg), before)
    (aside,) = Path(cfg.directory).glob("earlier-*")
    assert json.loads((aside / "result.json").read_text()) == before[0]


def test_a_run_keeps_its_key_from_its_begin_to_its_end(configure):
    """One that was begun when keys told 0 and 0.0 apart has the old one, also when it is rerun."""
    typed = [*TINY, "optimizer.weight_decay=0"]
    old = former_key(configure(*typed))
    directory = RunDirectory(Path(configure(*typed).output) / "default" / old)
    directory.path.mkdir(parents=True)
    directory.config.touch()
    for rerun in ("false", "true"):
        cfg = configure(*typed, f"rerun={rerun}")
        assert train(cfg).key == cfg.key == old != configure(*TINY, "weight_decay=0").key
        kept = directory.config.read_text()
        assert not kept or (f"key: {old}" in kept and f"directory: {directory}" in kept)
    assert kept


def test_a_rerun_that_was_interrupted_goes_on(configure):
    train(configure(*TINY))
    cfg = configure(*TINY, "rerun=true")
    with pytest.raises(Stopped):
        train(cfg, observer=Doing(stop, at_epoch=1))
    rest = Doing(stop)
    train(cfg, observer=rest)
    assert rest.steps == 4  # of two epochs
    assert len(list(Path(cfg.directory).glob("earlier-*"))) == 1


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("schedule._target_=torch.optim.lr_scheduler.ReduceLROnPlateau", "does not fit|cannot be"),
        ("data.crop=60.5", "60.5"),
        ("tracking.uri=${nope}", "not complete at tracking.uri: .*nope"),
        ("seeds=5 seed=3", "seeds=5 or seed=3"),
        ("start=best", "start=best is not allowed: it is a finished run's key"),
    ],
)
def test_what_would_fail_after_an_epoch_fails_before_any_work(configure, override, said):
    group = ["tracking=mlflow"] if "tracking" in override else []
    cfg = configure(*LITE0, *group, *override.split(" "))
    with pytest.raises(InputError, match=said):
        train(cfg)
    assert not Path(cfg.directory).exists()


def test_divergence_is_an_error_and_leaves_no_result(configure):
    cfg = configure(*TINY, "freeze=none", "lr=1e30")
    with pytest.raises(DivergedError, match=r"epoch 1, step 2"):
        train(cfg)
    assert not RunDirectory(cfg.directory).result.exists()


def test_device(configure):
    if torch.cuda.is_available():
        pytest.skip("a GPU is present")
    with pytest.raises(InputError, match=r"device=cuda is not available.*device=cpu"):
        train(configure("device=cuda"))


def test_a_change_of_a_frozen_part_would_be_noticed(configure, monkeypatch):
    models = []
    monkeypatch.setattr("caltech.train.require_fit", lambda model, *_: models.append(model))

    def spoil() -> None:
        models[0].backbone.network.bn1.running_mean += 1

    with pytest.raises(RuntimeError, match="frozen parameter or buffer has changed"):
        train(configure(*TINY, "features=off"), observer=Doing(spoil, at_step=1))


IDLE = ["lr=1e-12", "num_epochs=3"]  # the first epoch is the best
HEAD, WHOLE = ["freeze=backbone", *IDLE], ["freeze=none", *IDLE]


@pytest.mark.parametrize(
    ("typed", "in_a_sweep", "is_kept"),
    [(HEAD, False, True), (HEAD, True, False), (WHOLE, True, True),
     ([*HEAD, "features=off"], True, True), ([*HEAD, "last_weights=keep"], True, True),
     ([*WHOLE, "last_weights=none"], False, False),
     (["freeze=backbone", "num_epochs=1"], True, True)],
)  # fmt: skip
def test_a_sweep_keeps_the_last_weights_of_what_is_long_to_train(
    configure, monkeypatch, tmp_path, typed, in_a_sweep, is_kept
):
    """And a head's only where they are the best ones, which takes no room."""
    if in_a_sweep:
        monkeypatch.setenv(VARIABLE, str(tmp_path))
    result = train(cfg := configure(*TINY, *typed))
    directory = RunDirectory(cfg.directory)
    assert directory.weights("last").is_file() == is_kept
    assert directory.weights("best").is_file() and directory.predictions("last").is_file()
    assert Predictor.load(directory, "best", "cpu").measured == result.best


@pytest.mark.parametrize(
    ("frozen", "is_kept"), [(["backbone"], True), (["backbone", "hidden"], False)]
)
def test_a_head_with_a_hidden_layer_is_none_of_the_cheap_ones(frozen, is_kept):
    head = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    model = cut(nn.Flatten(), head, [0] * 3, [1] * 3, weights="none")
    freeze(model, frozen)
    inputs = Features(
        {"plain": torch.zeros(3, 4)}, Views(["plain"], ["plain"]), torch.device("cpu")
    )
    batches = Batches(inputs=inputs, labels=torch.zeros(3), size=2)
    assert are_last_wanted("auto", model, batches, is_sweep=True) == is_kept


def test_last_weights_that_were_not_kept_are_computed_by_a_rerun(configure, monkeypatch, caplog):
    result = train(cfg := configure(*TINY, *HEAD, "last_weights=none"))
    directory = RunDirectory(cfg.directory)
    assert manifest.harmed(directory) == ([], [])
    with pytest.raises(InputError, match=r"no last\.safetensors.*rerun=true last_weights=keep"):
        Predictor.load(directory, "last", "cpu")
    assert train(configure(*TINY, *HEAD, "last_weights=keep")) == result
    assert "rerun=true keeps them with last_weights=keep" in caplog.text
    assert train(configure(*TINY, *HEAD, "last_weights=keep", "rerun=true")) == result
    assert Predictor.load(directory, "last", "cpu").measured == result.last


class Pruning(Observer):
    prunes = True

    def epoch(self, history) -> bool:
        return len(history) == 1


def test_of_a_pruned_run_nothing_is_said_to_be_kept(configure, caplog):
    pruned = train(configure(*TINY), observer=Pruning())
    kept = configure(*TINY, "last_weights=keep", "keep_checkpoint=true")
    caplog.set_level("INFO")
    assert train(kept, observer=Pruning()) == pruned and pruned.status == "pruned"
    assert "is pruned already" in caplog.text and "rerun=true keeps" not in caplog.text
