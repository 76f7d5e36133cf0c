"""Any network of a library: the cut into stages changes nothing, and what is wrong is explained."""

import pytest
import timm
import torch
import torchvision
from torchvision.transforms import functional as vision

from caltech.config import build
from caltech.errors import InputError
from caltech.models.architectures import HALF, timm_model, torchvision_model
from caltech.models.classifier import Normalize, require_fit


def test_normalize_equals_torchvision():
    images = torch.randint(256, (2, 3, 64, 64), dtype=torch.uint8)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    expected = torch.stack([vision.normalize(image / 255, mean, std) for image in images])
    assert torch.equal(Normalize(mean, std)(images), expected)


HEADS = ("alexnet", "resnet18", "convnext_tiny", "mobilenet_v3_small", "densenet121")


@pytest.mark.parametrize("name", [*HEADS, "shufflenet_v2_x0_5"])
def test_torchvision_models_are_cut_without_a_change(name):
    images = torch.randint(256, (2, 3, 64, 64), dtype=torch.uint8)
    torch.manual_seed(0)
    whole = torchvision.models.get_model(name, num_classes=7).eval()
    torch.manual_seed(0)
    classifier = torchvision_model(7, name, None).eval()
    expected = whole(Normalize(*HALF)(images))
    assert torch.equal(classifier(images), expected)
    assert torch.equal(classifier[1:](classifier[:1](images)), expected)
    weighted = [layer for layer in classifier.linear if list(layer.parameters())]
    assert [layer.out_features for layer in weighted] == [7]


@pytest.mark.parametrize(
    "name", ["resnet10t", "mobilenetv3_small_050", "test_vit", "test_convnext"]
)
def test_timm_models_are_cut_without_a_change(name):
    images = torch.randint(256, (2, 3, 160, 160), dtype=torch.uint8)
    torch.manual_seed(0)
    whole = timm.create_model(name, num_classes=7).eval()
    torch.manual_seed(0)
    classifier = timm_model(7, name, None).eval()
    assert torch.equal(classifier(images), whole(Normalize(*HALF)(images)))


NAMED = ("efficientnet_lite0", "efficientnet_lite2", "alexnet", "resnet18", "resnet50")
BY_NAME = ("torchvision model.name=resnet18", "timm model.name=resnet18")


@pytest.mark.parametrize("option", [*NAMED, *BY_NAME])
def test_every_option_from_scratch(configure, option):
    cfg = configure(*f"model={option} model.weights=null".split())
    classifier = build(cfg.model, num_classes=101)
    assert classifier.weights == "none"
    assert classifier.backbone.normalize.mean.unique().item() == 0.5
    require_fit(classifier, 64, 101)


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("model=torchvision model.name=resnet5", "model.name=resnet5 is not known.*resnet50"),
        ("model=resnet50 model.weights=V3", "model.weights=V3 is not known.*DEFAULT"),
        ("model=timm model.name=resnet5", "model.name=resnet5 is not known.*resnet"),
        ("model=timm model.name=resnet18 model.weights=a2", "weights=a2 is not known.*a2_in1k"),
        ("model.weights=jft", "model.weights=jft is not known.*imagenet"),
    ],
)
def test_unknown_names_come_with_a_suggestion(configure, typed, message):
    with pytest.raises(InputError, match=message):
        build(configure(*typed.split()).model, num_classes=101)


def test_a_model_that_does_not_fit_its_images_is_refused():
    with pytest.raises(InputError, match=r"cannot take images of 16 x 16.*data\.crop"):
        require_fit(torchvision_model(5, "alexnet", None), 16, 5)
