"""What each precision option is, and the warning on a CPU that emulates it."""

import logging

import pytest
import torch

from caltech.config import build
from caltech.errors import InputError
from caltech.training import precision as precisions
from caltech.training.device import choose_device, use_tf32, uses_tf32
from caltech.training.precision import Precision

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture
def tf32_restored():
    yield
    use_tf32(False)


@pytest.mark.parametrize(
    ("option", "dtype", "scaled"),
    [
        ("fp32", torch.float32, False),
        ("tf32", torch.float32, False),
        ("bf16", torch.bfloat16, False),
        ("amp", torch.float16, True),
    ],
)
def test_options(configure, option, dtype, scaled):
    precision = build(configure(f"precision={option}").precision)
    assert precision.scaler(CPU).is_enabled() is scaled
    matrix = torch.ones(2, 2)
    with precision.autocast(CPU):
        assert (matrix @ matrix).dtype is dtype


def test_unknown_type():
    with pytest.raises(
        InputError, match=r"float8.*float32, tf32, bfloat16, float16.*precision=bf16"
    ):
        Precision("float8", False)


@pytest.mark.parametrize(("slowdown", "warns"), [(400, True), (0.3, False)])
def test_warning_tells_the_measured_slowdown(monkeypatch, caplog, slowdown, warns):
    seconds = {torch.bfloat16: 0.001 * slowdown, torch.float32: 0.001}
    monkeypatch.setattr(precisions, "_matmul_seconds", seconds.__getitem__)
    with caplog.at_level(logging.WARNING):
        Precision("bfloat16", False).warn_if_slow(CPU)
        Precision("float32", False).warn_if_slow(CPU)
    assert ("400 times as long" in caplog.text) is warns


@pytest.mark.usefixtures("tf32_restored")
@pytest.mark.parametrize("dtype", ["float32", "tf32", "bfloat16", "float16"])
def test_only_tf32_is_tf32(monkeypatch, dtype):
    """Whatever a job of the same process had before."""
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    use_tf32(dtype != "tf32")
    Precision(dtype, False).prepare(CUDA)
    assert uses_tf32() == dict.fromkeys(("products", "convolutions"), dtype == "tf32")


@pytest.mark.usefixtures("tf32_restored")
def test_a_cpu_has_no_tf32(caplog):
    Precision("tf32", False).prepare(CPU)
    assert not any(uses_tf32().values())
    assert "precision=tf32 is precision=fp32 here" in caplog.text


@pytest.mark.usefixtures("tf32_restored")
def test_what_answers_without_training_is_ieee(monkeypatch):
    """torch's own default is TF32 for convolutions."""
    use_tf32(True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert choose_device("auto").type == "cuda"
    assert not any(uses_tf32().values())


def test_features_of_another_precision_have_another_name():
    """Those that an earlier version computed on CUDA as float32 were TF32."""
    named = [Precision(dtype, False).on(CUDA) for dtype in precisions.DTYPES]
    assert len({*named, "float32"}) == len(named) + 1
    assert Precision("float32", False).on(CPU) == "float32"


@pytest.mark.parametrize("native", [True, False])
def test_a_gpu_that_emulates_bfloat16_is_told(monkeypatch, caplog, native):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    Precision("bfloat16", False).warn_if_slow(CUDA)
    assert ("emulated on this GPU" in caplog.text) is not native


def test_it_decides_the_key(configure):
    keys = {configure(f"precision={name}").key for name in ("fp32", "tf32", "bf16", "amp")}
    assert len(keys) == 4


def test_a_product_that_waited_for_a_core_once_is_not_called_emulated(monkeypatch, caplog):
    seconds = {torch.float32: [1.0] * 9, torch.bfloat16: [23.0, 0.5]}
    monkeypatch.setattr(precisions, "_matmul_seconds", lambda dtype: seconds[dtype].pop(0))
    Precision("bfloat16", False).warn_if_slow(CPU)
    assert caplog.text == ""
