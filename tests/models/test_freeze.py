"""Freezing: exact masks, eval mode for good, and bitwise unchanged after a run."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import alexnet

from caltech.config import build
from caltech.errors import InputError
from caltech.models.architectures import torchvision_model
from caltech.models.classifier import Normalize
from caltech.models.freeze import digest, folded, freeze, split_frozen
from caltech.runs.checkpoint import read_weights
from caltech.train import train

MODELS = {
    "mobilenet_v3_small": ["model=torchvision", "model.name=mobilenet_v3_small"],
    "test_resnet": ["model=timm", "model.name=test_resnet"],
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
    cfg = configure(*MODELS[name], "model.weights=null", f"freeze={option}")
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


@pytest.mark.parametrize(("option", "trained"), [("backbone", "classifier"), ("head", "features")])
def test_alexnet_matches_the_study_s_own_masks(configure, option, trained):
    """Its two code snippets, by the parameters' names: "classifier" in or not in the name."""
    cfg = configure("model=alexnet", "model.weights=null", f"freeze={option}")
    with torch.device("meta"):
        model, study = build(cfg.model, num_classes=101), alexnet(num_classes=101)
    build(cfg.freeze, model)
    expected = [p.shape for name, p in study.named_parameters() if trained in name]
    assert [p.shape for p in model.parameters() if p.requires_grad] == expected


@pytest.mark.parametrize(
    ("frozen", "leading"),
    [([], 0), (["backbone"], 1), (["backbone", "hidden"], 2), (["hidden", "linear"], 0)],
)
def test_the_leading_frozen_stages_are_split_off(frozen, leading):
    model = torchvision_model(5, "mobilenet_v3_small", None)
    freeze(model, frozen)
    constant, trained = split_frozen(model)
    assert [*constant, *trained] == list(model)
    assert len(constant) == leading
    trained.train()
    assert not any(m.training for stage in constant for m in stage.modules())


def test_refusals():
    model = torchvision_model(5, "mobilenet_v3_small", None)
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


@pytest.mark.parametrize(
    ("option", "features"),
    [("backbone", "auto"), ("backbone", "off"), ("linear", "auto"), ("head", "auto")],
)
def test_frozen_part_is_bitwise_the_same_after_a_run(configure, option, features):
    """With BatchNorm in the backbone, and dropout and two layers in the head."""
    cfg = configure(
        *MODELS["mobilenet_v3_small"], "model.weights=null", f"freeze={option}",
        f"features={features}", "num_epochs=1", "batch_size=8", "seed=3",
    )  # fmt: skip
    torch.manual_seed(3)
    initial = build(cfg.model, num_classes=5).state_dict()
    train(cfg)
    after = read_weights(Path(cfg.directory) / "last.safetensors")
    assert after.keys() == initial.keys()
    changed = {key.split(".")[0] for key in after if not torch.equal(after[key], initial[key])}
    assert changed == set(TRAINED[option])


class Twice(nn.Module):
    """A convolution that a BatchNorm reads, and something else beside it."""

    def __init__(self, reads_both: bool) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3, bias=False)
        self.norm = nn.BatchNorm2d(4).eval()
        nn.init.uniform_(self.norm.running_var, 0.5, 2)
        nn.init.uniform_(self.norm.running_mean, -1, 1)
        self.reads_both = reads_both

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        values = self.convolution(images.float())
        return self.norm(values) + values if self.reads_both else self.norm(values)


def test_folding_leaves_the_frozen_part_as_it_is_and_gives_its_outputs():
    torch.manual_seed(0)
    frozen, images = nn.Sequential(Twice(reads_both=False)), torch.rand(2, 3, 8, 8)
    before = digest([frozen])
    found = folded(frozen, 8)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in found.modules())
    assert torch.allclose(found(images), frozen(images), atol=1e-5)
    assert digest([frozen]) == before


def test_folding_refuses_a_convolution_that_is_read_twice():
    torch.manual_seed(0)
    with pytest.raises(InputError, match="features=folded is not possible"):
        folded(nn.Sequential(Twice(reads_both=True)), 8)


def test_a_convolution_whose_output_is_changed_in_place_is_not_folded():
    torch.manual_seed(0)
    layers = Twice(reads_both=False).convolution, nn.ReLU(inplace=True), nn.BatchNorm2d(4).eval()
    frozen = nn.Sequential(Normalize([0.5] * 3, [0.5] * 3), *layers)
    assert folded(frozen, 8) is frozen


def test_folding_without_a_pair_is_the_frozen_part_itself():
    frozen = nn.Sequential(Normalize([0.5] * 3, [0.5] * 3), nn.Conv2d(3, 4, 3), nn.ReLU())
    assert folded(frozen, 8) is frozen
