"""Frozen until a block: exact masks, eval mode for good, and two parts that are the whole."""

import logging

import pytest
import torch
from torch import Tensor, nn

from caltech.config import build
from caltech.errors import InputError
from caltech.models.architectures import HALF, timm_model, torchvision_model
from caltech.models.blocks import blocks_of
from caltech.models.classifier import Classifier, cut
from caltech.models.freeze import freeze, frozen_digest, split_frozen
from caltech.models.until import freeze_until, round_as_trained
from tests.models.test_libraries import EACH

SIZE = 64
FEW = {
    "resnet18": torchvision_model, "mobilenet_v3_small": torchvision_model,
    "test_vit": timm_model, "test_convnext": timm_model,
}  # fmt: skip


def frozen_until(
    at: object, model: Classifier, reinitialize: bool = False, store: str = "float32"
) -> Classifier:
    freeze_until(model, at, reinitialize, store, SIZE)
    return model


def images(count: int = 2, size: int = SIZE) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(256, (count, 3, size, size), dtype=torch.uint8, generator=generator)


@pytest.mark.parametrize("name", FEW)
def test_at_every_cut_the_parts_are_the_whole(name):
    names = [block.name for block in blocks_of(FEW[name](5, name, None, size=SIZE), SIZE)]
    for at in (names[1], names[len(names) // 2], names[-2]):
        model = frozen_until(at, FEW[name](5, name, None, size=SIZE))
        frozen, trained = split_frozen(model)
        model.eval(), trained.eval()
        with torch.no_grad():
            assert torch.equal(trained(frozen(images())), model(images()))
        expected = {n for n, p in model.named_parameters() if p.requires_grad}
        place = at if at in model.stage_names else f"backbone.network.{at}"
        assert any(n.startswith(f"{place}.") for n in expected)
        of_trained = {id(p) for p in trained.parameters() if p.requires_grad}
        assert of_trained == {id(model.get_parameter(n)) for n in expected}


@pytest.mark.slow
@pytest.mark.parametrize(("library", "name", "size"), EACH)
def test_every_network_is_cut_or_says_that_it_is_not(library, name, size, caplog):
    function = torchvision_model if library == "torchvision" else timm_model
    model = function(5, name, None, size=size)
    blocks = blocks_of(model, size)
    if len(blocks) > 2:
        freeze_until(model, len(blocks) // 2, False, "float32", size)
    assert 0 < sum(p.requires_grad for p in model.parameters()) <= len(list(model.parameters()))
    frozen, trained = split_frozen(model)
    assert len(frozen) > 0 or "cannot be cut" in caplog.text
    with torch.no_grad():
        value = frozen(images(size=size)) if len(frozen) else images(size=size)
        assert torch.equal(trained.eval()(value), model.eval()(images(size=size)))


def test_what_is_frozen_gets_no_gradient_stays_in_eval_mode_and_keeps_its_bits():
    """With BatchNorm on both sides of the cut; trained as a whole, without a cache."""
    torch.manual_seed(0)
    model = frozen_until("layer3.0", torchvision_model(5, "resnet18", None))
    before, state = frozen_digest(model), {k: v.clone() for k, v in model.state_dict().items()}
    parameters = [p for p in model.parameters() if p.requires_grad]
    model.eval().train()
    model(images(4)).square().sum().backward()
    torch.optim.SGD(parameters, lr=0.1).step()
    after = model.state_dict()
    changed = {name for name in state if not torch.equal(after[name], state[name])}
    trained = ("layer3.", "layer4.", "linear.")
    assert changed == {name for name in state if any(part in name for part in trained)}
    assert frozen_digest(model) == before
    network = model.backbone.network
    assert not any(m.training for m in (*network.layer2[1].modules(), network.bn1))
    assert all(m.training for m in network.layer3.modules())


def test_a_head_of_zeros_does_not_hide_that_parts_differ():
    model = cut(Twice(), nn.Linear(3 * SIZE * SIZE, 5), *HALF, weights="none")
    nn.init.zeros_(model.linear[0].weight)
    assert frozen_until("third", model).cut is None


def test_the_trained_part_has_the_names_of_the_whole():
    model = frozen_until("layer3.0", torchvision_model(5, "resnet18", None))
    _, trained = split_frozen(model)
    whole = model.state_dict()
    for name, tensor in trained.state_dict().items():
        assert tensor.data_ptr() == whole[name].data_ptr()
    assert [n for n, p in trained.named_parameters() if p.requires_grad] == [
        n for n, p in model.named_parameters() if p.requires_grad
    ]


def test_the_digest_sees_every_frozen_bit_and_no_other():
    model = frozen_until("layer2.0", torchvision_model(5, "resnet18", None))
    before = frozen_digest(model)
    network = model.backbone.network
    network.layer2[0].conv1.weight.data += 1
    network.layer2[0].bn1.running_mean += 1
    assert frozen_digest(model) == before
    network.layer1[1].bn2.running_mean[3] += 1e-6
    assert frozen_digest(model) != before


def test_a_number_is_the_block_at_that_place():
    one, other = (torchvision_model(5, "resnet18", None) for _ in range(2))
    names = [block.name for block in blocks_of(one, SIZE)]
    frozen_until(3, one)
    frozen_until(names[3], other)
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    assert all(p.requires_grad == q.requires_grad for p, q in pairs)
    first = frozen_until(0, torchvision_model(5, "resnet18", None))
    assert all(p.requires_grad for p in first.parameters())
    assert len(split_frozen(first)[0]) == 0


@pytest.mark.parametrize(
    ("at", "stages"), [("hidden", ["backbone"]), ("linear", ["backbone", "hidden"])]
)
def test_at_the_head_it_is_what_the_other_options_are(at, stages):
    model = frozen_until(at, torchvision_model(5, "mobilenet_v3_small", None))
    other = torchvision_model(5, "mobilenet_v3_small", None)
    freeze(other, stages)
    assert [s.frozen for s in model] == [s.frozen for s in other]
    assert [str(part) for part in split_frozen(model)] == [str(p) for p in split_frozen(other)]


def test_what_is_above_begins_anew_as_the_library_begins_and_from_the_seed():
    def begun(seed: int) -> dict[str, Tensor]:
        torch.manual_seed(0)
        model = torchvision_model(5, "resnet18", None)
        model.load_state_dict({k: v + 1 for k, v in model.state_dict().items()})
        torch.manual_seed(seed)
        return frozen_until("layer4.0", model, reinitialize=True).state_dict()

    state, same, other = begun(3), begun(3), begun(4)
    torch.manual_seed(3)
    fresh = torchvision_model(5, "resnet18", None).state_dict()
    torch.manual_seed(0)
    kept = {k: v + 1 for k, v in torchvision_model(5, "resnet18", None).state_dict().items()}
    for name, tensor in state.items():
        is_new = "layer4" in name or name.startswith("linear")
        assert torch.equal(tensor, (fresh if is_new else kept)[name]), name
        assert torch.equal(tensor, same[name])
    weight = "backbone.network.layer4.0.conv1.weight"
    assert not torch.equal(state[weight], other[weight])


class Twice(nn.Module):
    """Its first layer runs again at its end."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))

    def forward(self, values: Tensor) -> Tensor:
        early = self.first(values)
        return (self.third(self.second(early)) + early).flatten(1)


def test_where_none_can_be_made_the_blocks_are_frozen_without_a_cache_and_that_is_said(caplog):
    model = cut(Twice(), nn.Linear(3 * SIZE * SIZE, 5), *HALF, weights="none")
    with caplog.at_level(logging.WARNING):
        frozen_until("third", model)
    assert "third" in caplog.text and "every epoch instead of once" in caplog.text
    network = model.backbone.network
    assert network.third.weight.requires_grad and not network.second.weight.requires_grad
    frozen, trained = split_frozen(model)
    assert len(frozen) == 0
    assert trained is model


def test_bfloat16_rounds_whether_or_not_it_is_kept():
    torch.manual_seed(0)
    plain = torchvision_model(5, "resnet18", None)
    rounded = torchvision_model(5, "resnet18", None)
    rounded.load_state_dict(plain.state_dict())
    model = frozen_until("layer2.0", rounded, store="bfloat16").eval()
    frozen, trained = split_frozen(model)
    with torch.no_grad():
        value = frozen.eval()(images())
        assert value.dtype == torch.bfloat16
        assert torch.equal(trained.eval()(value), model(images()))
        assert not torch.equal(plain.eval()(images()), model(images()))
        round_as_trained(plain, {"at": "layer2.0", "store": "bfloat16"}, SIZE)
        assert torch.equal(plain(images()), model(images()))


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("freeze.at=blocks.99", r"blocks\.99 is no block.*0 conv_stem, 1 blocks\.0.*9 linear"),
        ("freeze.at=99", "99 is no block"),
        ("freeze.at=-1", "-1 is no block"),
        ("freeze.at=1.5", r"1\.5 is no block"),
        ("freeze.at=null", r"freeze\.at=null is not allowed: it needs a value"),
        ("freeze.at=1 freeze.store=int8", "int8 is not allowed. Type float32 or bfloat16"),
    ],
)
def test_refusals(configure, typed, message):
    with pytest.raises(InputError, match=message):
        cfg = configure("freeze=until", "model.weights=null", *typed.split())
        build(cfg.freeze, build(cfg.model, num_classes=5), size=64)
