"""What may be typed: refused before any work, with what is allowed and what to type instead."""

from importlib import metadata
from typing import Any

import pytest
from omegaconf import OmegaConf

from caltech.errors import InputError
from caltech.settings import CONF, ROOT, require_fixed, validate


def test_the_table_has_every_root_key_and_no_other(configure):
    assert set(configure()) == set(ROOT)
    groups = {name for name, key in ROOT.items() if key.type is Any}
    assert {name for name in ROOT if (CONF / name).is_dir()} == groups


def test_every_example_of_the_table_is_allowed(configure):
    typed = [f"{name}={key.example}" for name, key in ROOT.items() if key.example]
    validate(configure(*typed, "seed=0"))
    assert len(typed) > 12


@pytest.mark.parametrize(
    "override",
    [
        "lr=-1", "lr=0", "lr=nan", "lr=inf", "momentum=1", "momentum=-0.1", "momentum=nan",
        "weight_decay=-1", "weight_decay=inf", "num_epochs=0", "step_size=0", "gamma=0",
        "gamma=nan", "batch_size=0", "seed=-1", "seed=4294967296", "seeds=0", "device=gpu",
        "features=on", "study=a/b", "study=..", "start=best", "checkpoint_minutes=0",
        "checkpoint_minutes=nan", "micro_batch=0", "clip_norm=0", "clip_norm=-1", "clip_norm=nan",
        "clip_norm=inf", "patience=0",
    ],
)  # fmt: skip
def test_values_out_of_range(configure, override):
    name = override.split("=")[0]
    cfg = OmegaConf.merge(configure(), OmegaConf.from_dotlist([override]))
    with pytest.raises(InputError, match=rf"{name}=.* is not allowed: .* Type {name}="):
        validate(cfg)


@pytest.mark.parametrize(
    "override", ["lr=abc", "num_epochs=1.5", "rerun=maybe", "lrr=1", "model=alexnett"]
)
def test_hydra_refuses(configure, override):
    with pytest.raises(InputError):
        configure(override)


def test_one_seed_and_several_are_not_asked_for_at_once(configure):
    with pytest.raises(InputError, match=r"Type seeds=5 or seed=3"):
        validate(configure("seeds=5", "seed=3"))


def test_an_added_root_key_is_refused_with_a_suggestion(configure):
    with pytest.raises(InputError, match=r"batchsize is no key .*batch_size"):
        validate(configure("+batchsize=8"))


@pytest.mark.parametrize("name", ROOT)
def test_no_root_key_can_be_removed(configure, name):
    cfg = OmegaConf.to_container(configure(), resolve=True)
    del cfg[name]
    with pytest.raises(InputError, match=rf"{name} is not in the config: .*Leave ~{name} out"):
        validate(OmegaConf.create(cfg))


@pytest.mark.parametrize("value", ["???", "${nope}"])
def test_a_value_that_is_not_there_is_named(configure, value):
    with pytest.raises(InputError, match=r"not complete at tracking\.uri"):
        validate(configure("tracking=mlflow", f"tracking.uri={value}"))


@pytest.mark.parametrize(
    ("url", "is_one"),
    [
        ("sqlite:////tmp/a.db", True), ("postgresql+psycopg://me:secret@host/a", True),
        ("mysql://host/a", True), ("journal:///shared/a.log", True), ("duckdb:///a", False),
        ("foo://me:secret@x", False), ("a.db", False), ("sqlite://", False),
        ("postgres://x", False),
    ],
)  # fmt: skip
def test_a_storage_is_of_a_kind_that_there_is(configure, url, is_one):
    """Whatever runs: a single run would not open it, and take any."""
    if is_one:
        return validate(configure(f"storage={url}"))
    with pytest.raises(InputError, match=r"^storage=.* is not allowed: .*journal.* Type") as told:
        configure(f"storage={url}")
    assert "secret" not in str(told.value)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("storage=/tmp/x.db", "sqlite:////tmp/x.db"), ("storage=SQLITE:////x.db", "sqlite:////x.db"),
        ("storage=sqlite:/tmp/x.db", "sqlite:////tmp/x.db"),
        ("storage=postgres://me:secret@h/d", "postgresql+psycopg://***@h/d"),
        ("storage=redis://h", "sqlite:////tmp/optuna.db"), ("features=fold", "folded"),
        ("device=cuda:0", "cuda"), ("device=gpu", "auto"),
    ],
)  # fmt: skip
def test_the_value_that_may_be_meant_is_told(configure, typed, meant):
    with pytest.raises(InputError) as told:
        validate(configure(typed))
    assert str(told.value).endswith(f" Type {typed.split('=')[0]}={meant}.")


def test_a_package_adds_kinds_of_storages(configure, monkeypatch):
    added = metadata.EntryPoint("duckdb", "x", "sqlalchemy.dialects")
    monkeypatch.setattr(metadata, "entry_points", lambda group: [added])
    validate(configure("storage=duckdb:///a"))


def test_of_a_sweep_what_every_job_would_be_refused_for_is_refused_and_nothing_else(configure):
    for words in (["batch_size=0"], ["seeds=5", "seed=3"]):
        with pytest.raises(InputError, match="Type "):
            require_fixed(configure(*words), {"lr"})
    cfg = configure("lr=-1").copy()
    cfg.patience, cfg.seed = "${lr}", "${oc.env:NOT_THERE}"
    require_fixed(cfg, {"lr"})
