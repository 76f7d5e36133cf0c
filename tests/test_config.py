"""The options of conf/: every one is built, the study's rows are the study's, and nothing else."""

import importlib
import inspect
import math

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import nn

from caltech.config import build, register, targets
from caltech.errors import InputError
from caltech.settings import CONF, options
from caltech.training.optimizers import RULES, arguments_of

EXPERIMENTS = sorted(
    str(path.relative_to(CONF / "experiment").with_suffix(""))
    for path in (CONF / "experiment").rglob("*.yaml")
)
STUDY = {  # table rows as in the study: lr, num_epochs, step_size, gamma, test accuracy
    "scratch/base": (1e-3, 30, 20, 0.1, 0.09194607673695127),
    "scratch/model1": (1e-1, 30, 10, 0.1, 0.24541997926028344),
    "scratch/model2": (1e-1, 40, 10, 0.01, 0.2744555824403733),
    "scratch/model3": (1e-2, 30, 15, 0.01, 0.29692360871068096),
    "transfer/base": (1e-3, 30, 20, 0.1, 0.8603525751814726),
    "transfer/model3": (1e-2, 30, 15, 0.01, 0.8627722087798133),
    "freeze/fully_connected": (1e-2, 30, 15, 0.01, 0.867611475976495),
    "freeze/convolutional": (1e-2, 30, 15, 0.01, 0.5620463187003111),
    "beyond/resnet50": (1e-2, 30, 15, 0.01, 0.9357068786726581),
}


@pytest.fixture(scope="module")
def experiments():
    """Composed as a user does, without the small images of these tests."""
    register()
    with initialize_config_dir(config_dir=str(CONF)):
        return {name: compose("train", [f"experiment={name}"]) for name in EXPERIMENTS}


def named(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def test_options_are_short():
    for path in CONF.glob("*/*.yaml"):
        if path.parent.name not in ("experiment", "sweep", "hydra"):
            assert 1 <= len(path.read_text().splitlines()) <= 12, path


def test_an_option_s_keys_are_arguments_of_one_callable():
    for group, option in options():
        module, _, name = option["_target_"].rpartition(".")
        arguments = inspect.signature(getattr(importlib.import_module(module), name)).parameters
        own = {"_target_", *(RULES if group == "optimizer" else ())}
        assert set(option) - own <= set(arguments), (group, option)


def test_published_numbers_are_the_study_s(experiments):
    assert set(STUDY) < set(EXPERIMENTS)
    for name, (*hyperparameters, accuracy) in STUDY.items():
        cfg = experiments[name]
        assert [cfg.lr, cfg.num_epochs, cfg.step_size, cfg.gamma] == hyperparameters
        assert (cfg.momentum, cfg.weight_decay) == (0.9, 5e-5)
        assert cfg.published.test_accuracy == accuracy
        # Every published accuracy is a whole number of the rule's test and validation images.
        for share, images in ((accuracy, 2893), (cfg.published.val_accuracy, 1446)):
            assert math.isclose(share * images, round(share * images), abs_tol=1e-9)
        if name.startswith("scratch/"):
            assert cfg.model.weights is None


def test_experiments_start_from_each_other(experiments):
    head = experiments["beyond/lite2_head"]
    for name in ("beyond/lite2", "beyond/lite2_averaged"):
        assert (head.key, head.model) == (experiments[name].start, experiments[name].model)


def test_experiments_hold_differences_only():
    defaults = OmegaConf.load(CONF / "train.yaml")
    for name in STUDY:
        given = yaml.safe_load((CONF / "experiment" / f"{name}.yaml").read_text())
        assert not {"momentum", "weight_decay", "batch_size", "seed"} & set(given)
        assert set(given) - {"defaults", "model", "study", "published"} <= set(defaults)


@pytest.mark.parametrize("option", sorted({*named("optimizer")} - {"torch", "timm"}))
def test_optimizer_options(configure, option):
    cfg = configure(f"optimizer={option}", "lr=0.3")
    optimizer = build(arguments_of(cfg.optimizer), [nn.Parameter(torch.ones(2))])
    used = optimizer.param_groups[0]
    momentum = used["momentum"] if option == "sgd" else used["betas"][0]
    assert (used["lr"], momentum, used["weight_decay"]) == (0.3, 0.9, 5e-5)


@pytest.mark.parametrize("option", named("loss"))
def test_losses_are_built(configure, option):
    loss = build(configure(f"loss={option}").loss)
    focus = 0.75**2 if option == "focal" else 1  # of four equal answers
    found = loss(torch.zeros(2, 4), torch.tensor([0, 3])).item()
    assert found == pytest.approx(focus * math.log(4))


@pytest.mark.parametrize("smoothing", [-0.1, 1])
def test_label_smoothing_is_a_share(configure, smoothing):
    with pytest.raises(InputError, match=r"label_smoothing=.*at least 0 and below 1"):
        build(configure(f"loss.label_smoothing={smoothing}").loss)


def test_an_option_s_stray_key_is_refused(configure):
    with pytest.raises(InputError, match="nesterof"):
        build(configure("+optimizer.nesterof=true").optimizer, [nn.Parameter(torch.ones(2))])


@pytest.mark.parametrize(
    "target",
    ["os.getcwd", "subprocess.run", "caltech.runs.directory.shutil.rmtree", "builtins.eval",
     "caltech.data.sources.list_images", "caltech.run.shutil.rmtree", "caltech.data.os.system"],
)  # fmt: skip
def test_no_other_code_can_be_named(configure, target):
    with pytest.raises(InputError, match="is not in the whitelist"):
        build(configure(f"optimizer._target_={target}").optimizer)


def test_what_may_be_named_is_no_more_than_conf_names():
    ours = [target for target in targets() if target.startswith("caltech")]
    assert not [target for target in ours if "*" in target]
    assert {"caltech.data.sources.caltech101", "torch.optim.*"} <= set(targets())
