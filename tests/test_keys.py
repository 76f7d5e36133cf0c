"""A run's key: equal exactly for configs whose results must be equal, and never another again.

golden_keys.json was written by the code of commit d8c1e7e: overrides, and the keys they had.
"""

import json
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from caltech import keys
from caltech.config import build, register
from caltech.keys import begun_key, decisive, point_key, run_key
from caltech.settings import CONF, options
from tests.conftest import REPOSITORY

GOLDEN = json.loads((Path(__file__).parent / "golden_keys.json").read_text())


def composed(*overrides: str) -> DictConfig:
    register()
    with initialize_config_dir(config_dir=str(CONF)):
        return compose("train", list(overrides))


def key(*overrides: str) -> str:
    return composed(*overrides).key


@pytest.fixture(scope="module")
def default() -> DictConfig:
    return composed()


@pytest.mark.parametrize("typed", GOLDEN)
def test_keys_are_what_they_were(typed):
    cfg = composed(*typed.split())
    assert {"key": cfg.key, "point": point_key(cfg)} == GOLDEN[typed]


def test_golden_keys_are_of_every_experiment():
    files = (CONF / "experiment").rglob("*.yaml")
    named = {f"experiment={p.relative_to(CONF / 'experiment').with_suffix('')}" for p in files}
    assert named <= GOLDEN.keys()


@pytest.mark.parametrize(
    "overrides",
    ["lr=0.2", "seed=1", "freeze=none", "augment=flip", "data.crop=60", "schedule=cosine",
     "loss.label_smoothing=0.1", "average=ema", "model=timm model.name=resnet18", "step_size=3",
     "mix=mixup", "start=a01cfb9040", "micro_batch=32", "clip_norm=1", "patience=5",
     "data.train_files=a data.test_files=b", "+optimizer.nesterov=true"],
)  # fmt: skip
def test_what_decides_the_result_changes_the_key(default, overrides):
    assert key(*overrides.split()) != default.key


@pytest.mark.parametrize(
    "override",
    ["study=other", "features=off", "data.root=/elsewhere", "data.download=false", "rerun=true",
     "pruner=median", "device=cpu", "cache=/a", "output=/b", "seeds=3", "checkpoint_minutes=1",
     "tracking=none", "dry_run=true", "keep_checkpoint=true", "micro_batch=256", "micro_batch=999",
     "storage=sqlite:///a.db"],
)  # fmt: skip
def test_what_does_not_decide_it_does_not(default, override):
    assert key(override) == default.key


def test_values_that_nothing_uses_do_not_count():
    assert key("schedule=cosine", "step_size=3", "gamma=0.5") == key("schedule=cosine")


@pytest.mark.parametrize(
    "one_and_another",
    [
        "lr=1e-1 | lr=0.1 | ",
        "lr=1 | lr=1.0 | optimizer.lr=1 | optimizer.lr=1.0",
        "weight_decay=0 | weight_decay=0.0 | optimizer.weight_decay=0 | weight_decay=-0.0",
        "momentum=0 | optimizer.momentum=0 | optimizer.momentum=0.0",
        "gamma=1 | schedule.gamma=1 | schedule.gamma=1.0",
        "loss.label_smoothing=0 | loss.label_smoothing=0.0 | ",
        "step_size=5 | schedule.step_size=5 | schedule.step_size=5.0",
        "data.crop=200 | data.crop=200.0",
        "augment=resized_crop | augment=resized_crop augment.scale=[0.08,1]",
        "average=ema average.decay=0 | average=ema average.decay=0.0",
        "optimizer=adam momentum=0 | optimizer=adam optimizer.betas=[0,0.999]",
        "schedule=cosine schedule.warmup_epochs=2 | schedule=cosine schedule.warmup_epochs=2.0",
        "+optimizer.dampening=0 | +optimizer.dampening=0.0",
        "clip_norm=1 | clip_norm=1.0",
    ],
)
def test_equal_numbers_are_one_key(one_and_another):
    typed = [one.split() for one in one_and_another.split("|")]
    assert len({key(*overrides) for overrides in typed}) == 1
    assert len({point_key(composed(*overrides)) for overrides in typed}) == 1


def test_truth_is_no_number():
    assert key("+optimizer.nesterov=true") != key("+optimizer.nesterov=1")


def test_options_of_a_group_agree_on_the_types_of_their_keys():
    """Else the form of a number would depend on the option that happens to be read last."""
    seen: dict[tuple[str, str], set] = {}
    for group, option in options():
        for name, value in option.items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                seen.setdefault((group, name), set()).add(type(value))
    assert {place: kinds for place, kinds in seen.items() if len(kinds) > 1} == {}


def lists(folder: Path, content: str) -> list[str]:
    folder.mkdir()
    for name in ("train", "test"):
        (folder / f"{name}.txt").write_text(f"{content}\n")
    return [f"data.{name}_files={folder}/{name}.txt" for name in ("train", "test")]


def test_lists_of_files_count_by_their_lines_and_not_by_their_path(tmp_path):
    one = key(*lists(tmp_path / "one", "a/1.jpg\nb/2.jpg"))
    assert key(*lists(tmp_path / "moved", "a/1.jpg\n\n b/2.jpg")) == one
    assert key(*lists(tmp_path / "other", "a/1.jpg\nb/3.jpg")) != one
    assert key(*lists(tmp_path / "turned", "b/2.jpg\na/1.jpg")) != one  # every fourth validates


@pytest.mark.parametrize(
    ("added", "typed"),
    [
        ({"loss.label_smoothing": ("0", 0.0)}, "loss.label_smoothing=0.1"),
        ({"batch_size": ("256", 256)}, "batch_size=8"),
        ({"loss": ("cross_entropy", {"_target_": "caltech.loop.cross_entropy",
                                     "label_smoothing": 0.0})}, "loss.label_smoothing=0.1"),
    ],
    ids=["key of a group", "root key", "group"],
)  # fmt: skip
def test_what_is_added_later_changes_no_key(default, monkeypatch, added, typed):
    """As if it had not been there when the default's key was made."""
    (name,) = added
    before = OmegaConf.to_container(default, resolve=True)
    group, _, leaf = name.rpartition(".")
    del (before[group] if group else before)[leaf]
    old = run_key(OmegaConf.create(before))
    assert old != default.key
    monkeypatch.setitem(keys.ADDED, *next(iter(added.items())))
    assert run_key(default) == run_key(composed(f"{name}={added[name][0]}")) == old
    assert run_key(composed(typed)) not in (old, default.key)


def test_a_group_that_came_later_is_left_out_at_its_neutral_option(default):
    before = OmegaConf.to_container(default, resolve=True)
    for name, (option, _) in keys.ADDED.items():
        *group, leaf = name.split(".")
        node = before.get(group[0], {}) if group else before
        if leaf in node:  # else of an option that is not chosen
            node.pop(leaf)
            assert key(f"{name}={option}") == default.key
    assert run_key(OmegaConf.create(before)) == default.key


def test_keys_do_not_depend_on_the_order_of_values(default):
    values = OmegaConf.to_container(default, resolve=True)
    assert run_key(OmegaConf.create(dict(reversed(list(values.items()))))) == default.key


def test_a_run_begun_when_0_and_00_were_told_apart_is_found(tmp_path):
    typed = ["loss.label_smoothing=0", f"output={tmp_path}"]
    old = "6da4d6e82a"  # of `loss.label_smoothing=0` by the code of commit d8c1e7e
    cfg = composed(*typed)
    assert cfg.key == run_key(cfg) == GOLDEN[""]["key"]
    begun = tmp_path / cfg.study / old / "config.yaml"
    begun.parent.mkdir(parents=True)
    assert composed(*typed).key == run_key(cfg)  # nothing is begun there
    begun.touch()
    assert composed(*typed).key == begun_key(cfg) == old
    assert composed("loss.label_smoothing=0.0", f"output={tmp_path}").key == run_key(cfg)
    new = tmp_path / cfg.study / run_key(cfg) / "config.yaml"
    new.parent.mkdir()
    new.touch()
    assert composed(*typed).key == run_key(cfg)


def test_configs_of_before_the_move_have_their_keys_and_are_built():
    """Their addresses are the names that keys hash: config.yaml of commit d8c1e7e has these."""
    cfg = composed("average=ema", "data=digits")
    old = OmegaConf.to_container(cfg, resolve=True)
    for group, value in decisive(cfg).items():
        if isinstance(value, dict):
            old[group]["_target_"] = value["_target_"]
    old = OmegaConf.create(old)
    assert old.model._target_ == "caltech.model.efficientnet_lite0"
    assert old.average._target_ == "caltech.average.MovingAverage"
    assert run_key(old) == cfg.key
    model = build(old.model, num_classes=3, load=False)
    build(old.freeze, model)
    assert type(build(old.average, model)) is type(build(cfg.average, model))
    for group in ("data", "augment", "loss", "precision"):
        assert type(build(old[group])) is type(build(cfg[group]))


@pytest.mark.parametrize("study", sorted(p.parent.name for p in REPOSITORY.glob("multirun/*/kept")))
def test_kept_results_have_the_keys_of_their_configs(study):
    """So that typing the command of one finds its run."""
    for path in (REPOSITORY / "multirun" / study / "kept").glob("*.json"):
        run, nested = json.loads(path.read_text()), {}
        for name, value in run["config"].items():
            group, _, leaf = name.rpartition(".")
            (nested.setdefault(group, {}) if group else nested)[leaf] = value
        assert run_key(OmegaConf.create(nested)) == run["key"]
