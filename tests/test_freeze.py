"""Freezing: exact masks, eval mode for good, and bitwise unchanged after a run."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from caltech.config import build
from caltech.errors import InputError
from caltech.models.architectures import torchvision_model
from caltech.models.freeze import digest, freeze, split_frozen
from caltech.train import train

MODELS = {
    "alexnet": ["model=alexnet", "model.weights=null"],
    "resnet18": ["model=resnet18", "model.weights=null"],
    "efficientnet_lite0": ["model=efficientnet_lite0"],
}
TRAINED = {
    "none": ("backbone", "hidden", "linear"),
    "backbone": ("hidden", "linear"),
    "head": ("backbone",),
    "linear": ("linear",),
}


@pytest.mark.parametrize("option", TRAINED)
@pytest.mark.parametrize("name", MODELS)
def test_masks_and_modes(configure, name, option):
    cfg = configure(*MODELS[name], f"freeze={option}")
    model = build(cfg.model, num_classes=5)
    build(cfg.freeze, model)
    for _ in range(2):
        model.train()
        for stage in model.stage_names:
            module = getattr(model, stage)
            trained = stage in TRAINED[option]
            assert all(p.requires_grad is trained for p in module.parameters())
            assert all(m.training is trained for m in module.modules())
        model.eval()
        assert not any(m.training for m in model.modules())


def test_alexnet_matches_the_study_s_own_masks(configure):
    """Its two code snippets, by the parameters' names: "classifier" in or not in the name."""
    for option, in_classifier in (("backbone", True), ("head", False)):
        cfg = configure(*MODELS["alexnet"], f"freeze={option}")
        model = build(cfg.model, num_classes=101)
        build(cfg.freeze, model)
        trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
        study = torchvision_model(101, "alexnet", None)
        whole = {"classifier": [*study.hidden, *study.linear], "features": [study.backbone]}
        part = whole["classifier"] if in_classifier else whole["features"]
        assert trained == sum(p.numel() for module in part for p in module.parameters())


def test_frozen_batch_norm_keeps_its_statistics_in_training(configure):
    model = torchvision_model(5, "resnet18", None)
    freeze(model, ["backbone"])
    before = digest([model.backbone])
    model.train()
    model(torch.randint(256, (4, 3, 64, 64), dtype=torch.uint8))
    assert digest([model.backbone]) == before
    freeze(model.train(), [])
    assert not any(m.training for m in model.backbone.modules())


def test_split_frozen():
    model = torchvision_model(5, "alexnet", None)
    assert [len(part) for part in split_frozen(model)] == [0, 3]
    freeze(model, ["backbone", "hidden"])
    frozen, trained = split_frozen(model)
    assert list(frozen) == [model.backbone, model.hidden]
    assert list(trained) == [model.linear]
    trained.train()
    assert not any(m.training for stage in frozen for m in stage.modules())
    head_frozen = torchvision_model(5, "alexnet", None)
    freeze(head_frozen, ["hidden", "linear"])
    assert [len(part) for part in split_frozen(head_frozen)] == [0, 3]


def test_refusals():
    model = torchvision_model(5, "resnet18", None)
    with pytest.raises(InputError, match=r"'neck'.*backbone, hidden, linear"):
        freeze(model, ["neck"])
    with pytest.raises(InputError, match=r"Nothing is left to train.*freeze=backbone"):
        freeze(model, ["backbone", "hidden", "linear"])


def test_digest_sees_every_bit():
    module = nn.BatchNorm1d(3)
    before = digest([module])
    module.num_batches_tracked += 1
    assert digest([module]) != before
    module.num_batches_tracked -= 1
    assert digest([module]) == before
    module.weight.data[1] += 1e-6
    assert digest([module]) != before


@pytest.mark.parametrize("features", ["auto", "off"])
@pytest.mark.parametrize("name", MODELS)
def test_frozen_part_is_bitwise_the_same_after_a_run(configure, name, features):
    cfg = configure(
        *MODELS[name], "freeze=backbone", f"features={features}", "num_epochs=1", "seed=3"
    )
    torch.manual_seed(3)
    initial = build(cfg.model, num_classes=5).state_dict()
    train(cfg)
    after = load_file(f"{cfg.directory}/last.safetensors")
    assert after.keys() == initial.keys()
    changed = {key.split(".")[0] for key in after if not torch.equal(after[key], initial[key])}
    assert "backbone" not in changed
    assert "linear" in changed
