"""Optimizers by their names, with what they take and nothing that they do not."""

import pytest
import torch
from torch import nn

from caltech.config import build
from caltech.errors import InputError


@pytest.fixture
def made(configure):
    def of(*overrides: str):
        option = configure(*overrides).optimizer
        return build(option, [{"params": [nn.Parameter(torch.ones(2, 2))]}])

    return of


@pytest.mark.parametrize(
    ("typed", "kind", "taken"),
    [("torch RAdam momentum=0.8", "RAdam", {"lr": 0.1, "betas": (0.8, 0.999)}),
     ("torch SGD weight_decay=0", "SGD", {"momentum": 0.9, "weight_decay": 0}),
     ("torch Rprop", "Rprop", {"lr": 0.1}),
     ("torch Adam +optimizer.eps=0.5", "Adam", {"eps": 0.5}),
     ("timm lamb lr=0.3", "Lamb", {"lr": 0.3, "betas": (0.9, 0.999), "weight_decay": 5e-5}),
     ("timm rmsproptf", "RMSpropTF", {"momentum": 0.9}),
     ("timm adafactor", "Adafactor", {"lr": 0.1})],
)  # fmt: skip
def test_an_optimizer_is_built_with_what_it_takes(made, typed, kind, taken):
    library, name, *others = typed.split()
    optimizer = made(f"optimizer={library}", f"optimizer.name={name}", *others)
    assert type(optimizer).__name__ == kind
    assert {key: optimizer.param_groups[0][key] for key in taken} == taken


@pytest.mark.parametrize(
    ("typed", "said"),
    [("torch Rprop momentum=0.8", r"Rprop takes no momentum.*Leave momentum=0\.8 out"),
     ("torch Rprop weight_decay=0.1 momentum=0.8", "takes no momentum and no weight_decay"),
     ("torch Adam +optimizer.nesterof=true", "takes no nesterof: it has lr, betas"),
     ("torch radam", r"radam is not known.*RAdam"),
     ("torch LBFGS", "takes no momentum|cannot be stepped"),
     ("torch SparseAdam", "cannot be stepped"),
     ("timm lam", "lam is not known.*lamb"),
     ("timm adahessian", "cannot be stepped"),
     ("timm lamb +optimizer.nesterov=true", "lamb takes no nesterov")],
)  # fmt: skip
def test_what_it_does_not_take_and_was_typed_is_one_error(made, typed, said):
    library, name, *others = typed.split()
    with pytest.raises(InputError, match=said):
        made(f"optimizer={library}", f"optimizer.name={name}", *others)
