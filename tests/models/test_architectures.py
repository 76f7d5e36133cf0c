"""Any network of a library: the cut into stages changes nothing, and what is wrong is explained."""

import pytest
import timm
import torch
import torchvision
from torchvision.transforms import functional as vision

from caltech.config import build
from caltech.errors import InputError
from caltech.models import architectures
from caltech.models.architectures import HALF, timm_model, torchvision_model
from caltech.models.classifier import Normalize, load_state, require_fit
from caltech.models.names import timm_name
from caltech.runs.checkpoint import copy_of


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


NAMED = (
    "efficientnet_lite0",
    "efficientnet_lite1",
    "efficientnet_lite2",
    "alexnet",
    "resnet18",
    "resnet50",
)
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
        ("model.weights=none", "model.weights=none is not allowed.*Type model.weights=null"),
        ("model=resnet50 model.weights=imagenet1k_v1", "Type model.weights=IMAGENET1K_V1"),
        ("model=torchvision model.name=ResNet-50", "Type model.name=resnet50"),
        ("model=torchvision model.name=vit_small_patch16_224", "Type model=timm model.name"),
        ("model=timm model.name=resnet18.a9", "resnet18.a9 is not known.*resnet18.a1_in1k"),
        ("model=timm model.name=resnet18.a1_in1k model.weights=null", "names the weights a1_in1k"),
        ("model=timm model.name=resnet18.a1_in1k model.weights=a2_in1k", "asks for others"),
        ("model=timm model.name=hf-hub:acme/net model.weights=null", "names the weights acme/net"),
        ("model=timm model.name=darknet17", "no weights for .*darknet17.*model.weights=null"),
        ("model=timm model.name=acme/resnet18", "acme/resnet18 is not known"),
        ("model=timm model.name=nosuch", "nosuch is not known. Type model.name=resnet50, or"),
        ("model=timm model.name=darknet17.x", "no weights for .*darknet17.*model.weights=null"),
    ],
)
def test_unknown_names_come_with_a_suggestion(configure, typed, message):
    with pytest.raises(InputError, match=message):
        build(configure(*typed.split()).model, num_classes=101)


@pytest.mark.parametrize(
    "name", ["resnet18.a1_in1k", "timm/resnet18.a1_in1k", "hf-hub:timm/resnet18.a1_in1k"]
)
def test_full_names_are_those_weights(name):
    assert timm_name(name, "DEFAULT") == timm_name("resnet18", "a1_in1k")
    assert timm_name(name, "DEFAULT").identity({"tag": "any"}) == "timm resnet18.any"


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_a_network_is_told_the_images_size_only_if_it_has_to_be(name):
    with torch.device("meta"):
        told, untold = timm_model(5, name, None, size=96), timm_model(5, name, None, size=224)
    assert told.backbone.network._model_args["img_size"] == 96
    assert "img_size" not in untold.backbone.network._model_args
    with torch.device("meta"):
        free = timm_model(5, "resnet10t", None, size=96)
    assert "img_size" not in free.backbone.network._model_args


@pytest.mark.parametrize(
    ("function", "name", "weights", "size", "message"),
    [
        (torchvision_model, "vit_b_16", "DEFAULT", 100, "100 x 100: Input shape indivisible"),
        (torchvision_model, "maxvit_t", "DEFAULT", 112, "not divisible by partition size 7"),
        (timm_model, "mixer_b16_224", "DEFAULT", 192, "224 x 224 and cannot be fitted.*crop=224"),
        (timm_model, "efficientformer_l1", "DEFAULT", 192, "cannot take images of 192 x 192"),
        (timm_model, "levit_128s", "DEFAULT", 224, "in it is NormLinear and NormLinear"),
    ],
)
def test_what_cannot_work_is_refused_before_a_download(
    monkeypatch, function, name, weights, size, message
):
    for loader in ("load_timm", "load_torchvision"):
        monkeypatch.setattr(architectures, loader, lambda *_: pytest.fail("was to be loaded"))
    with pytest.raises(InputError, match=message):
        function(5, name, weights, size=size)


def test_a_rehearsal_uses_up_no_random_number():
    torch.manual_seed(0)
    expected = timm.create_model("test_resnet", num_classes=5).state_dict()
    torch.manual_seed(0)
    model = timm_model(5, "test_resnet", None, size=40)
    assert torch.equal(model.backbone.network.conv1[0].weight, expected["conv1.0.weight"])
    assert torch.equal(model.linear[0].weight, expected["fc.weight"])


def test_a_model_that_does_not_fit_its_images_is_refused():
    with pytest.raises(InputError, match=r"cannot take images of 16 x 16.*data\.crop"):
        require_fit(torchvision_model(5, "alexnet", None), 16, 5)


def test_a_state_that_was_copied_is_loaded_by_networks_that_ask_for_its_version():
    """torchvision's MNASNet; a plain dictionary and a file have no version of a state."""
    layers = torchvision_model(4, "mnasnet0_5", None)
    before = copy_of(layers)
    with torch.no_grad():
        for weight in layers.parameters():
            weight.add_(1)
    with pytest.raises(ValueError, match="version should be set"):
        layers.load_state_dict(before)
    load_state(layers, before)
    assert all(torch.equal(value, before[name]) for name, value in layers.state_dict().items())


def test_images_that_are_numbers_already_stay_as_they_are():
    images = torch.randint(0, 256, (2, 3, 4, 4)).float()
    before, normalize = images.clone(), Normalize([0.1] * 3, [0.2] * 3)
    assert torch.equal(normalize(images), normalize(before.to(torch.uint8)))
    assert torch.equal(images, before)
