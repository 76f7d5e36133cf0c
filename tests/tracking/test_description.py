"""What is told of a run is what was used, wherever it was typed."""

import shutil

import pytest
import torch

from caltech.config import build
from caltech.keys import decisive
from caltech.runs.directory import RunDirectory
from caltech.tracking.description import describe, hyperparameters, of_directory
from caltech.train import train
from caltech.training.optimizers import arguments_of
from tests.observers import TINY

ROOT = "lr=0.3 momentum=0.5 weight_decay=0.01 step_size=3 gamma=0.5"
STEP, BETAS = "schedule.step_size=3 schedule.gamma=0.5", "optimizer.betas=[0.5,0.9]"
TYPED = {  # and what nothing uses then
    ROOT: set(),
    f"optimizer.lr=1 optimizer.momentum=0.5 optimizer.weight_decay=0.01 {STEP}": set(),
    "lr=0.2 optimizer.lr=0.3": set(),
    "~optimizer.momentum": {"momentum"},
    "+optimizer.nesterov=true": set(),
    f"optimizer=adam {ROOT}": set(),
    f"optimizer=adam optimizer.lr=0.3 optimizer.weight_decay=0.01 {BETAS}": set(),
    f"optimizer=adamw {BETAS}": set(),
    "optimizer._target_=torch.optim.Adagrad ~optimizer.momentum optimizer.lr=0.3": {"momentum"},
    "optimizer._target_=torch.optim.RMSprop momentum=0.5": set(),
    f"schedule=cosine {ROOT}": {"step_size", "gamma"},
    f"schedule=constant {ROOT}": {"step_size", "gamma"},
}


@pytest.mark.parametrize("typed", TYPED)
def test_parameters_are_those_of_the_built_optimizer_and_schedule(configure, typed):
    cfg = configure(*typed.split())
    optimizer = build(arguments_of(cfg.optimizer), [torch.nn.Parameter(torch.zeros(1))])
    used = {"momentum": optimizer.defaults.get("betas", [None])[0], **optimizer.defaults}
    used |= vars(build(cfg.schedule, optimizer))
    told = hyperparameters(decisive(cfg))
    assert (type(told["lr"]), told["num_epochs"]) == (float, cfg.num_epochs)  # lr=1 is 1.0
    for name in ("lr", "momentum", "weight_decay", "step_size", "gamma"):
        assert told.get(name) == (None if name in TYPED[typed] else used[name])


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("lr=3e-2 num_epochs=3 study=mine +tracking.uri=x", "lr=0.03 num_epochs=3"),
        ("optimizer.lr=0.3", "lr=0.3"),
        ("++optimizer.lr=0.3 lr=0.2", "lr=0.3"),
        ("momentum=0.8", "lr=0.1 momentum=0.8"),
        ("momentum=0.8 optimizer.momentum=0.5", "lr=0.1 optimizer.momentum=0.5"),
        ("schedule=cosine step_size=3", "lr=0.1 schedule=cosine"),
        ("~optimizer.lr lr=0.3", "~optimizer.lr"),
        ("+optimizer.nesterov=true", "lr=0.1 +optimizer.nesterov=true"),
    ],
)
def test_a_name_has_the_rate_and_what_else_has_an_effect_once(configure, typed, name):
    choices = {"model": "alexnet", "freeze": "none", "sweep": None, "hydra/launcher": "basic"}
    found = describe(configure(*typed.split()), choices, typed.split(), None, None)
    words = found.name.split()
    words.remove(found.tags["key"][:4])
    assert words == f"{name} alexnet none".split()
    assert "sweep" not in found.params and "hydra/launcher" not in found.params


def test_two_names_differ_in_what_mlflow_shows_of_them(configure):
    """Also where the same rate and the same words come first."""
    named = []
    for own in ("freeze=none", "freeze=head", "optimizer.weight_decay=0.05", "seed=1"):
        typed = ["schedule.step_size=12345", own]
        found = describe(configure(*typed), {"model": "alexnet"}, typed, None, None)
        named.append(found.name[:25])
        assert found.tags["key"][:4] in named[-1].split()
    assert len({*named}) == 4


def test_another_class_than_the_option_s_is_told_as_itself(configure):
    typed = ["optimizer._target_=torch.optim.Adagrad", "~optimizer.momentum"]
    choices = {"optimizer": "sgd", "schedule": "step"}
    found = describe(configure(*typed), choices, typed, None, None)
    assert found.params["optimizer"] == "torch.optim.Adagrad"
    assert found.params["schedule"] == "step"


def test_what_was_typed_for_another_run_is_told_and_not_used(configure, caplog):
    for rate in ("0.1", "0.2"):
        train(cfg := configure(*TINY, f"lr={rate}"), overrides=[f"lr={rate}"])
    own, other = RunDirectory(cfg.directory), RunDirectory(configure(*TINY, "lr=0.1").directory)
    shutil.copy(other.description, own.description)
    assert of_directory(own).params["lr"] == "0.2"
    assert f"is of run {other.path.name}, and not of run {cfg.key}" in caplog.text
