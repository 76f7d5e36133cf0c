"""Every kind of network of both libraries: cut without a change, frozen, trained, and cached.

A handful in the default suite, seventy with the marker `slow`; all from scratch.
"""

import pytest
import timm
import torch
import torchvision
from torch import nn

from caltech.models.architectures import HALF, timm_model, torchvision_model
from caltech.models.classifier import Classifier, Normalize
from caltech.models.freeze import digest, freeze

CLASSES = 3
# Name and side of the images: small, but not too small for the network.
TORCHVISION = {
    "alexnet": 64, "vgg11": 32, "vgg11_bn": 32, "resnet18": 32, "resnet50": 32,
    "resnext50_32x4d": 32, "densenet121": 32, "googlenet": 64, "inception_v3": 96,
    "squeezenet1_0": 64, "squeezenet1_1": 64, "mobilenet_v2": 32, "mobilenet_v3_small": 32,
    "mobilenet_v3_large": 32, "mnasnet0_5": 32, "shufflenet_v2_x0_5": 32, "regnet_x_400mf": 32,
    "regnet_y_400mf": 32, "efficientnet_b0": 32, "efficientnet_v2_s": 32, "convnext_tiny": 32,
    "swin_t": 64, "swin_v2_t": 64, "maxvit_t": 224, "vit_b_32": 64,
}  # fmt: skip
TIMM = {
    "test_vit": 160, "test_vit2": 160, "test_convnext": 64, "test_resnet": 32,
    "test_efficientnet": 32, "test_mambaout": 64, "test_nfnet": 64, "vit_tiny_patch16_224": 64,
    "vit_small_patch14_dinov2": 56, "vit_small_patch16_dinov3": 64,
    "vit_relpos_small_patch16_224": 64, "deit_tiny_distilled_patch16_224": 64,
    "deit_tiny_patch16_224": 224, "swin_tiny_patch4_window7_224": 96, "swinv2_tiny_window8_256": 64,
    "beit_base_patch16_224": 48, "eva02_tiny_patch14_224": 56, "mixer_s32_224": 96,
    "gmlp_ti16_224": 64, "resmlp_12_224": 64, "cait_xxs24_224": 64, "coat_lite_tiny": 64,
    "xcit_nano_12_p16_224": 64, "pit_ti_224": 64, "pit_ti_distilled_224": 64,
    "tnt_s_legacy_patch16_224": 64, "twins_svt_small": 64, "visformer_tiny": 64, "convit_tiny": 64,
    "mvitv2_tiny": 64, "efficientformer_l1": 224, "efficientformerv2_s0": 64, "swiftformer_xs": 64,
    "mobilevit_xxs": 64, "mobilevitv2_050": 64, "resnetv2_50": 32, "resnetv2_50x1_bit": 32,
    "dpn48b": 64, "dla34": 64, "dla46x_c": 64, "resnet10t": 32, "seresnet18": 32,
    "mobilenetv3_small_050": 32, "mobilenetv4_conv_small_035": 64, "tf_efficientnet_lite0": 32,
    "efficientnet_lite0": 32, "ghostnet_050": 32, "lcnet_035": 32, "convnextv2_atto": 32,
    "edgenext_xx_small": 64, "regnetx_002": 32, "nf_regnet_b0": 32, "poolformer_s12": 64,
    "hrnet_w18_small": 64, "darknet53": 64, "repvgg_a0": 32, "selecsls42": 64, "fastvit_t8": 64,
    "inception_next_atto": 64, "starnet_s050": 64, "pvt_v2_b0": 64,
}  # fmt: skip
FEW = {"squeezenet1_1", "test_vit2", "deit_tiny_distilled_patch16_224", "dla46x_c",
       "resnetv2_50", "test_mambaout", "regnet_x_400mf"}  # fmt: skip
EACH = [("torchvision", *each) for each in TORCHVISION.items()]
EACH += [("timm", *each) for each in TIMM.items()]
MARKED = [
    pytest.param(*each, id=each[1], marks=[] if each[1] in FEW else [pytest.mark.slow])
    for each in EACH
]


def both(library: str, name: str, size: int) -> tuple[nn.Module, Classifier]:
    """The library's own network and ours, with the same weights."""
    torch.manual_seed(0)
    function = torchvision_model if library == "torchvision" else timm_model
    model = function(CLASSES, name, None, size=size).eval()
    torch.manual_seed(0)
    if library == "timm":
        network = model.backbone.network
        kind = {"img_size": size} if getattr(network, "_model_args", {}).get("img_size") else {}
        return timm.create_model(name, num_classes=CLASSES, **kind).eval(), model
    kind = {"image_size": size} if name.startswith("vit_") else {}
    if name in ("googlenet", "inception_v3"):
        kind = {"aux_logits": False, "init_weights": True}
    whole = torchvision.models.get_model(name, num_classes=CLASSES, **kind)
    return whole.eval(), model


@pytest.mark.parametrize(("library", "name", "size"), MARKED)
def test_a_network_is_cut_frozen_trained_and_cached_as_it_is(library, name, size):
    whole, model = both(library, name, size)
    images = torch.randint(256, (2, 3, size, size), dtype=torch.uint8)
    with torch.no_grad():
        expected = whole(Normalize(*HALF)(images))
        assert torch.equal(model(images), expected)
    freeze(model, ["backbone"])
    before = digest([model.backbone])
    features = model[:1](images)
    logits = model(images)
    assert torch.equal(model[1:](features), logits)
    head = [p for stage in (model.hidden, model.linear) for p in stage.parameters()]
    optimizer = torch.optim.SGD(head, lr=0.1)
    model.train()(images).square().sum().backward()
    optimizer.step()
    assert all(p.grad is None for p in model.backbone.parameters())
    assert all(p.grad is not None for p in head)
    assert digest([model.backbone]) == before
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in whole.parameters())


def test_there_are_seventy():
    assert len(EACH) >= 70
    assert len(FEW & {name for _, name, _ in EACH}) == len(FEW)
