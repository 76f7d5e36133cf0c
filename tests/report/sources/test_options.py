"""The options of a config are known again by its values."""

import json

import pytest
from omegaconf import OmegaConf

from caltech.report.sources.options import options_of
from caltech.report.trained import nested
from tests.conftest import REPOSITORY
from tests.report.conftest import described


@pytest.mark.parametrize("study", ["course", "search_best"])
def test_options_of_kept_runs_are_those_that_were_typed(study):
    for path in (REPOSITORY / "multirun" / study / "kept").glob("*.json"):
        told = json.loads(path.read_text())
        found = options_of(nested(told["config"]))
        assert found.items() <= told["params"].items() and len(found) >= 8


@pytest.mark.parametrize(
    ("typed", "group", "name"),
    [(("model=resnet50", "model.weights=IMAGENET1K_V1"), "model", "resnet50"),
     (("model=torchvision", "model.name=vgg11"), "model", "torchvision"),
     (("model=timm", "model.name=x", "model.weights=null"), "model", "timm"),
     (("augment=flip", "augment.test=[mirrored]"), "augment", "flip"),
     (("freeze=linear", "freeze.stages=[hidden]"), "freeze", "caltech.models.freeze.freeze"),
     (("optimizer=adamw", "optimizer.betas=[0.5,0.9]"), "optimizer", "adamw"),
     (("pruner=hyperband", "tracking=none"), "pruner", "hyperband")],
)  # fmt: skip
def test_a_changed_value_does_not_make_it_another_option(typed, group, name):
    """Unless it was the one that named it."""
    config = OmegaConf.to_container(described(*typed)[0], resolve=True)
    assert options_of(config)[group] == name
