"""A network's blocks: all of it, once, in order; and the command that lists them."""

import pytest
import torch

from caltech.errors import InputError
from caltech.models.__main__ import main
from caltech.models.architectures import timm_model, torchvision_model
from caltech.models.blocks import blocks_of


@pytest.mark.parametrize(
    ("function", "name", "names"),
    [
        (torchvision_model, "alexnet", ["features.0", "features.3", "features.6", "features.8",
                                        "features.10", "hidden", "linear"]),
        (torchvision_model, "resnet18", ["conv1", *(f"layer{i}.{j}" for i in range(1, 5)
                                                    for j in range(2)), "linear"]),
        (timm_model, "test_vit", ["patch_embed", *(f"blocks.{i}" for i in range(6)), "linear"]),
        (timm_model, "tf_efficientnet_lite0", ["conv_stem", *(f"blocks.{i}" for i in range(7)),
                                               "conv_head", "linear"]),
    ],
)  # fmt: skip
def test_blocks_are_in_the_order_in_which_they_run(function, name, names):
    model = function(5, name, None, size=64)
    blocks = blocks_of(model, 64)
    assert [block.name for block in blocks] == names
    own = sum(
        p.numel() for n, p in model.named_parameters() if "token" not in n and "pos_" not in n
    )
    assert sum(block.parameters for block in blocks) == own
    assert blocks[-1].shape == (5,)
    assert all(block.numbers > 0 for block in blocks)


def test_the_command_lists_parameters_shapes_and_room(capsys):
    torch.manual_seed(0)
    state = torch.get_rng_state()
    assert main(["timm/resnet18", "size=64", "images=1000000", "classes=7"]) == 0
    assert torch.equal(torch.get_rng_state(), state)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["0", "conv1", "9,536", "64", "x", "16", "x", "16"]
    assert lines[2].split()[-2:] == ["66", "GB"]  # 64 * 16 * 16 numbers of 4 bytes, a million
    assert lines[-1].split() == ["9", "linear", "3,591", "7", "2.0", "GB"]


@pytest.mark.parametrize(
    "words",
    ["efficientnet_lite0", "alexnet", "mobilenetv3_small_050", "model=alexnet model.weights=null",
     "model=timm model.name=mobilenetv3_small_050"],
)  # fmt: skip
def test_options_and_names_are_found(capsys, words):
    assert main([*words.split(), "size=64"]) == 0
    assert "linear" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["resnet5"], "model.name=resnet5 is not known"),
        (["resnet18", "V7"], "model.weights=V7 is not known"),
        (["timm"], "timm is a library"),
        (["vit_b_16", "size=100"], "cannot take images of 100 x 100"),
    ],
)
def test_a_network_that_is_not_there_is_one_message(words, message):
    with pytest.raises(InputError, match=message):
        main(words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("resnet18 size=big", "size=big is not allowed: it is from 1 on. Type size=224."),
        ("resnet18 size=64 size=96", "size=64 and size=96 cannot both be. Type one of them."),
        ("resnet18 size=", "size has no value: it is from 1 on. Type size=224."),
        ("resnet18 pixels=3", "pixels=3 is no option. Options are classes="),
        ("resnet18 imges=3", "imges=3 is no option. Type images=3."),
        ("", "NAME is missing: one network at a time. Type caltech.models NAME"),
        ("size=64", "NAME is missing"),
        ("a b c", "c is one word too many"),
        ("resnet18 model=alexnet", "alexnet and resnet18: one network at a time"),
        ("model=alexnet model.name=vgg11", "alexnet and vgg11: one network at a time"),
        ("resnet18 V1 model.weights=V2", "V1 and V2: one network at a time"),
    ],
)
def test_what_is_typed_wrong_is_one_message(words, message, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words.split())
    assert ended.value.code == 2 and message in capsys.readouterr().err
