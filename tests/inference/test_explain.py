"""Grad-CAM is its paper's formula, on the last feature map, and overwrites nothing."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from caltech.errors import InputError
from caltech.inference import explain
from caltech.models.architectures import HALF, timm_model, torchvision_model
from caltech.models.classifier import cut


def test_grad_cam_is_the_formula_of_its_paper():
    """ReLU of the maps' sum, weighted by the class's mean gradients (its equations 1 and 2)."""
    torch.manual_seed(0)
    model = torchvision_model(5, "resnet18", None).eval()
    images = torch.randint(256, (2, 3, 64, 64), dtype=torch.uint8)
    classes = torch.tensor([1, 3])
    layer = explain.last_feature_map(model, images[:1]).module
    assert layer is model.backbone.network.layer4
    kept = []
    with layer.register_forward_hook(lambda module, given, output: kept.append(output)):
        logits = model(images)
    (gradient,) = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), kept)
    weighted = (gradient.mean((2, 3), keepdim=True) * kept[0]).sum(1, keepdim=True).relu()
    expected = F.interpolate(weighted.detach(), (64, 64), mode="bilinear")[:, 0]
    expected = expected / expected.amax((1, 2), keepdim=True)
    torch.testing.assert_close(explain.grad_cam(model, images, classes), expected)


@pytest.mark.parametrize("name", ["alexnet", "mobilenet_v3_small", "shufflenet_v2_x0_5"])
def test_the_last_feature_map_is_found(name):
    model = torchvision_model(5, name, None).eval()
    image = torch.zeros(1, 3, 96, 96, dtype=torch.uint8)
    heat = explain.grad_cam(model, image, torch.tensor([0]))
    assert heat.shape == (1, 96, 96)
    assert heat.min() >= 0 and heat.max() <= 1
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(
    ("name", "where"),
    [("test_vit", "blocks.5.norm1"), ("deit_tiny_distilled_patch16_224", "blocks.11.norm1"),
     ("mixer_s32_224", "norm"), ("swin_tiny_patch4_window7_224", "norm")],
)  # fmt: skip
def test_of_a_transformer_it_is_the_last_tokens_that_count(name, where):
    torch.manual_seed(0)
    model = timm_model(5, name, None, size=96).eval()
    nn.init.normal_(next(model.linear.parameters()))  # some libraries begin with zeros
    images = torch.randint(256, (2, 3, 96, 96), dtype=torch.uint8)
    found = explain.last_feature_map(model, images[:1])
    assert found.module is model.backbone.network.get_submodule(where)
    expected = model(images)
    heat = explain.grad_cam(model, images, expected.argmax(1))
    assert heat.shape == (2, 96, 96) and heat.isfinite().all() and heat.max() <= 1
    assert torch.equal(model(images), expected)


def test_a_token_is_where_its_patch_is():
    model = timm_model(5, "test_vit", None, size=160).eval()
    images = torch.zeros(1, 3, 160, 160, dtype=torch.uint8)
    found = explain.last_feature_map(model, images)
    tokens = torch.arange(101.0).view(1, 101, 1).expand(1, 101, 4)
    maps = found.to_maps(tokens)
    assert maps[0, 0, 3, 7] == 1 + 3 * 10 + 7  # one token is the class's
    assert torch.equal(found.back(maps, tokens), tokens)


def test_a_network_without_places_is_refused():
    model = cut(nn.Flatten(), nn.Linear(3 * 8 * 8, 5), *HALF, weights="none")
    with pytest.raises(InputError, match="--explain needs feature maps"):
        explain.last_feature_map(model, torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


def test_overlays_are_named_after_their_images_and_never_overwritten(tmp_path):
    images = [tmp_path / "a" / "1.jpg", tmp_path / "b" / "1.jpg"]
    assert list(explain.names(images, None).values()) == [
        image.with_name("1.jpg.gradcam.png") for image in images
    ]
    below = explain.names(images, tmp_path / "to")
    assert below[images[1]] == tmp_path / "to" / "b" / "1.jpg.gradcam.png"
    assert explain.names(images[:1], Path("to")) == {images[0]: Path("to/1.jpg.gradcam.png")}
    below[images[0]].parent.mkdir(parents=True)
    below[images[0]].touch()
    with pytest.raises(InputError, match=r"gradcam\.png exists already.*to=FOLDER"):
        explain.names(images, tmp_path / "to")
