"""What each precision option is, and the warning on a CPU that emulates it."""

import logging

import pytest
import torch

from caltech.config import build
from caltech.errors import InputError
from caltech.training import precision as precisions
from caltech.training.precision import Precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("option", "dtype", "scaled"),
    [
        ("fp32", torch.float32, False),
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
