"""Config groups, the run key, and what is refused before any work."""

import math

import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException
from omegaconf import OmegaConf
from torch import nn

from caltech.config import BY_REFERENCE, DECISIVE, INDIFFERENT, LATER, build
from caltech.errors import InputError
from caltech.keys import run_key
from caltech.settings import CONF, Settings, validate

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


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def test_options_are_short():
    whole_experiments = ("experiment", "sweep", "hydra")
    for path in (p for p in CONF.glob("*/*.yaml") if p.parent.name not in whole_experiments):
        assert 1 <= len(path.read_text().splitlines()) <= 12, path


def test_published_numbers_are_the_study_s(configure):
    assert set(STUDY) < set(EXPERIMENTS)
    for name, (lr, num_epochs, step_size, gamma, accuracy) in STUDY.items():
        cfg = configure(f"experiment={name}")
        assert (cfg.lr, cfg.num_epochs, cfg.step_size, cfg.gamma) == (
            lr, num_epochs, step_size, gamma,
        )  # fmt: skip
        assert (cfg.momentum, cfg.weight_decay) == (0.9, 5e-5)
        assert cfg.published.test_accuracy == accuracy
        # Every published accuracy is a whole number of the rule's test and validation images.
        for share, images in ((accuracy, 2893), (cfg.published.val_accuracy, 1446)):
            assert math.isclose(share * images, round(share * images), abs_tol=1e-9)
        if name.startswith("scratch/"):
            assert cfg.model.weights is None


def test_experiments_start_from_each_other(configure):
    head = configure("experiment=beyond/lite2_head")
    # Composed as a user does, without the small images of these tests.
    with initialize_config_dir(config_dir=str(CONF)):
        key = compose("train", ["experiment=beyond/lite2_head"]).key
    for name in ("lite2", "lite2_averaged"):
        whole = configure(f"experiment=beyond/{name}")
        assert (key, head.model) == (whole.start, whole.model)


def test_experiments_hold_differences_only(configure):
    default = configure()
    for name in STUDY:
        given = yaml.safe_load((CONF / "experiment" / f"{name}.yaml").read_text())
        for key in ("momentum", "weight_decay", "batch_size", "seed"):
            assert key not in given
            assert configure(f"experiment={name}")[key] == default[key]


@pytest.mark.parametrize("option", options("optimizer"))
def test_optimizer_options(configure, option):
    optimizer = build(
        configure(f"optimizer={option}", "lr=0.3").optimizer, [nn.Parameter(torch.ones(2))]
    )
    assert optimizer.param_groups[0]["lr"] == 0.3
    assert optimizer.param_groups[0]["weight_decay"] == 5e-5
    assert (
        optimizer.param_groups[0].get("momentum", optimizer.param_groups[0].get("betas", [0])[0])
        == 0.9
    )


def rates(configure, *overrides: str) -> list[float]:
    cfg = configure(*overrides)
    optimizer = build(cfg.optimizer, [nn.Parameter(torch.ones(2))])
    schedule = build(cfg.schedule, optimizer)
    seen = []
    for _ in range(cfg.num_epochs):
        seen.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    return seen


def test_schedule_options(configure):
    assert options("schedule") == ["constant", "cosine", "step"]
    assert rates(configure, "schedule=constant", "num_epochs=3", "lr=0.5") == [0.5] * 3
    step = rates(configure, "schedule=step", "num_epochs=5", "step_size=2", "gamma=0.1", "lr=1")
    assert step == pytest.approx([1, 1, 0.1, 0.1, 0.01])
    cosine = rates(configure, "schedule=cosine", "num_epochs=6", "schedule.warmup_epochs=2", "lr=1")
    expected = [1 / 3, 2 / 3] + [0.5 * (1 + math.cos(math.pi * k / 4)) for k in range(4)]
    assert cosine == pytest.approx(expected)


def test_cosine_refuses_a_warmup_as_long_as_the_run(configure):
    with pytest.raises(InputError, match=r"warmup_epochs=1 .* num_epochs=1"):
        rates(configure, "schedule=cosine", "num_epochs=1")


def test_every_root_key_either_counts_or_does_not(configure):
    keys = set(configure())
    assert keys == set(Settings.__dataclass_fields__)
    assert sorted([*DECISIVE, *BY_REFERENCE, *INDIFFERENT]) == sorted(keys)


@pytest.mark.parametrize(
    ("overrides", "same"),
    [
        (["lr=1e-1"], True),  # the default, written in another way
        (["study=other"], True),
        (["features=off"], True),
        (["data.root=/elsewhere"], True),
        (["rerun=true"], True),
        (["model=timm", "model.name=resnet18"], False),
        (["lr=0.2"], False),
        (["seed=1"], False),
        (["freeze=none"], False),
        (["augment=flip"], False),
        (["data.crop=60"], False),
        (["schedule=cosine"], False),
        (["loss.label_smoothing=0.1"], False),
        (["average=ema"], False),
        (["pruner=median"], True),
    ],
)
def test_run_key(configure, overrides, same):
    assert (configure(*overrides).key == configure().key) is same


def test_a_group_that_came_later_changes_no_key(configure):
    """Runs of before it are found, and answered, by what it is as without it."""
    cfg = configure()
    before = OmegaConf.to_container(cfg, resolve=True)
    for name, (option, value) in LATER.items():
        assert before.pop(name) == value
        assert configure(f"{name}={option}").key == cfg.key
    assert run_key(OmegaConf.create(before)) == cfg.key


def test_run_key_ignores_values_that_nothing_uses(configure):
    cosine = configure("schedule=cosine").key
    assert configure("schedule=cosine", "step_size=3", "gamma=0.5").key == cosine
    assert configure("step_size=3").key != configure().key


def test_run_key_does_not_depend_on_the_order_of_keys(configure):
    cfg = configure()
    turned = OmegaConf.create(
        dict(reversed(list(OmegaConf.to_container(cfg, resolve=True).items())))
    )
    assert run_key(turned) == cfg.key


@pytest.mark.parametrize(
    "override",
    [
        "lr=-1", "lr=0", "lr=nan", "lr=inf", "momentum=1", "momentum=-0.1", "weight_decay=-1",
        "num_epochs=0", "step_size=0", "gamma=0", "batch_size=0", "seed=-1", "device=gpu",
        "features=on", "study=a/b", "study=..",
    ],
)  # fmt: skip
def test_values_out_of_range(configure, override):
    name = override.split("=")[0]
    with pytest.raises(InputError, match=rf"{name}=.* is not allowed: .*for example {name}="):
        validate(configure(override))


@pytest.mark.parametrize(
    "override",
    [
        "lr=abc",
        "num_epochs=1.5",
        "rerun=maybe",
        "lrr=1",
        "model=alexnett",
        "experiment=x",
    ],
)
def test_hydra_refuses(configure, override):
    with pytest.raises(ConfigCompositionException):
        configure(override)


def test_losses_are_built(configure):
    for option in options("loss"):
        assert isinstance(build(configure(f"loss={option}").loss), nn.Module)


@pytest.mark.parametrize("smoothing", [-0.1, 1])
def test_label_smoothing_is_a_share(configure, smoothing):
    with pytest.raises(InputError, match=r"label_smoothing=.*at least 0 and below 1"):
        build(configure(f"loss.label_smoothing={smoothing}").loss)


def test_an_added_root_key_is_refused_with_a_suggestion(configure):
    with pytest.raises(InputError, match=r"batchsize is no key .*batch_size"):
        validate(configure("+batchsize=8"))


def test_an_option_s_stray_key_is_refused(configure):
    with pytest.raises(InputError, match="nesterof"):
        build(configure("+optimizer.nesterof=true").optimizer, [nn.Parameter(torch.ones(2))])


def test_no_other_code_can_be_named(configure):
    for target in ("os.getcwd", "subprocess.run", "caltech.run.shutil.rmtree"):
        with pytest.raises(InputError, match=r"Hydra\sexecution whitelist"):
            build(configure(f"optimizer._target_={target}").optimizer)
