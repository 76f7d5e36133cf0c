"""Parameter groups: each weight once, at the rate and decay of the rules."""

import json
from functools import partial
from pathlib import Path

import pytest
import torch

from caltech.config import build
from caltech.errors import InputError
from caltech.models.freeze import split_frozen
from caltech.train import train
from caltech.training.optimizers import arguments_of, depths, describe, optimizer_of
from tests.observers import TINY

CPU = torch.device("cpu")


@pytest.fixture
def model(configure):
    return build(configure(*TINY).model, num_classes=4, size=32)


def optimizer(configure, model, *typed: str) -> torch.optim.Optimizer:
    cfg = configure(*TINY, "weight_decay=1e-2", *typed)
    return optimizer_of(cfg.optimizer, model, partial(depths, model, 32), CPU)


def rates(model, made) -> dict[str, tuple[float, float]]:
    """Rate and decay of each parameter by its name."""
    of = {id(p): (g["lr"], g["weight_decay"]) for g in made.param_groups for p in g["params"]}
    assert sum(len(group["params"]) for group in made.param_groups) == len(of)  # each once
    return {name: of[id(parameter)] for name, parameter in model.named_parameters()}


def test_neutral_is_what_torch_is_given(configure, model):
    cfg, made = configure(*TINY), optimizer(configure, model, "weight_decay=5e-5")
    plain = build(arguments_of(cfg.optimizer), list(model.parameters()))
    (group,), (expected,) = made.state_dict()["param_groups"], plain.state_dict()["param_groups"]
    assert group == expected
    assert list(map(id, made.param_groups[0]["params"])) == list(map(id, model.parameters()))
    assert describe(made) == []


def test_the_backbone_has_a_factor_of_the_heads_rate(configure, model):
    found = rates(model, optimizer(configure, model, "lr=0.5", "optimizer.backbone_lr=0.1"))
    for name, (rate, decay) in found.items():
        assert rate == pytest.approx(0.05 if name.startswith("backbone.") else 0.5), name
        assert decay == 1e-2


def test_layer_decay_is_timms_rule_over_our_blocks(configure, model):
    """timm's own function, told these blocks as its layers."""
    from timm.optim import param_groups_layer_decay

    far = depths(model, 32)
    last = max(far.values())
    model.group_matcher = lambda coarse: lambda name: last - far[name]
    expected = {}
    for group in param_groups_layer_decay(model, weight_decay=1e-2, layer_decay=0.75):
        for parameter in group["params"]:
            expected[id(parameter)] = (0.5 * group["lr_scale"], group["weight_decay"])
    typed = ("lr=0.5", "optimizer.layer_decay=0.75", "optimizer.norm_decay=false")
    found = rates(model, optimizer(configure, model, *typed))
    assert len(set(found.values())) > 6
    for name, parameter in model.named_parameters():
        assert found[name] == pytest.approx(expected[id(parameter)]), name


def test_what_is_in_no_block_is_as_far_as_the_first(configure):
    cfg = configure("model=timm", "model.name=test_vit", "model.weights=null", "data.crop=160")
    far = depths(build(cfg.model, num_classes=4, size=160), 160)
    farthest = max(far.values())
    assert far["backbone.network.cls_token"] == far["backbone.network.pos_embed"] == farthest
    assert far["backbone.network.patch_embed.proj.weight"] == farthest
    assert far["linear.0.weight"] == 0 < far["backbone.network.norm.weight"] < farthest


def test_norms_and_biases_alone_lose_their_decay(configure, model):
    found = rates(model, optimizer(configure, model, "lr=0.5", "optimizer.norm_decay=false"))
    for name, parameter in model.named_parameters():
        assert found[name] == (0.5, 1e-2 if parameter.ndim > 1 else 0.0), name


@pytest.mark.parametrize("at", ["linear", "layer3.0"])
def test_the_cached_rest_has_the_rates_of_the_whole(configure, model, at):
    build(configure(*TINY, "freeze=until", f"freeze.at={at}").freeze, model, size=32)
    typed = ("optimizer.layer_decay=0.5", "optimizer.backbone_lr=0.5")
    _, trainable = split_frozen(model)
    cfg = configure(*TINY, "weight_decay=1e-2", *typed)
    rest = optimizer_of(cfg.optimizer, trainable, partial(depths, model, 32), CPU)
    whole = optimizer(configure, model, *typed)
    assert describe(rest) == describe(whole)
    assert whole.param_groups[0]["lr"] == 0.01  # the head's comes first, and is what is logged


@pytest.mark.parametrize(
    "typed",
    ["backbone_lr=0", "backbone_lr=-1", "backbone_lr=.inf", "backbone_lr=.nan", "layer_decay=0",
     "layer_decay=1.1", "norm_decay=0", "backbone_lr=null"],
)  # fmt: skip
def test_what_is_no_rule_is_refused(configure, model, typed):
    name = typed.partition("=")[0]
    with pytest.raises(InputError, match=rf"optimizer\.{name}=.* Type optimizer\.{name}="):
        optimizer(configure, model, f"optimizer.{typed}")


def test_groups_are_told_and_recorded(configure, caplog):
    caplog.set_level("INFO")
    cfg = configure(*TINY, "num_epochs=1", "freeze=none", "optimizer.backbone_lr=0.1")
    train(cfg)
    head, backbone = json.loads((Path(cfg.directory) / "groups.json").read_text())
    assert (head["name"], head["lr"]) == ("head", 0.01)
    assert (backbone["name"], backbone["lr"]) == ("backbone", pytest.approx(0.001))
    assert "backbone (" in caplog.text
