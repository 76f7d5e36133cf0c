"""Workers of one study meet in one folder and have the same data."""

import shutil

import optuna
import pytest
from omegaconf import OmegaConf
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from caltech.errors import InputError
from caltech.sweeps.study import origin, proposals
from caltech.sweeps.study.space import Space

SPACE = Space({"lr": FloatDistribution(1e-3, 1)}, {}, [])
TPE = {"_target_": "optuna.samplers.TPESampler", "seed": 0}


@pytest.fixture
def study():
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(study_name="mine-01234567", direction="maximize")


@pytest.fixture
def meet(study, tmp_path, monkeypatch):
    """A worker comes to the study: its folder, what it was trained on, its sampler."""

    def come(folder, digest="a" * 64, **sampler):
        (tmp_path / folder).mkdir(exist_ok=True)
        origin.mark(tmp_path / folder)
        data = type("Data", (), {"digest": digest})
        monkeypatch.setattr(origin, "build", lambda node: data)
        config = {"data": {}, "hydra": {"sweeper": {"sampler": TPE | sampler}}}
        origin.require_same(study, OmegaConf.create(config), SPACE, tmp_path / folder)
        return tmp_path / folder

    return come


def test_workers_whose_folders_differ_are_told_while_a_trial_runs(study, meet):
    meet("one"), meet("one")
    trial = study.ask()
    with pytest.raises(InputError, match=r"worked on in .*/one of .* 1 of its trials run"):
        meet("other")
    study.tell(trial, state=TrialState.FAIL)
    other = meet("other")  # nobody works there any more, so its trials are gone on with here
    origin.require_here(study, other)
    with pytest.raises(InputError, match=r"worked on in .*/other .* by now: this worker"):
        origin.require_here(study, other.with_name("one"))


def test_a_folder_that_is_gone_or_was_moved_is_no_hindrance(study, meet):
    one = meet("one")
    study.ask()
    one.rename(one.with_name("moved"))
    meet("moved")
    shutil.rmtree(one.with_name("moved"))
    meet("new")


def test_other_data_are_refused_and_another_sampler_is_told(study, meet, capsys):
    meet("one")
    with pytest.raises(InputError, match="made from other data"):
        meet("one", digest="b" * 64)
    assert capsys.readouterr().out == ""
    meet("one", seed=1)
    assert "begun by other sampler: seed=0.\nThis is seed=1." in capsys.readouterr().out


def test_of_two_that_begin_one_key_the_first_in_the_storage_has_it(study, monkeypatch):
    """Where locks do not reach the other, both see a study without it."""
    point = {"params": {"lr": 0.1}}
    assert proposals.begin(study, SPACE, point, "key")
    assert proposals.begin(study, SPACE, point, "key")  # again, after its answer was lost
    looked, look = [], proposals._of_key
    blind_once = lambda *args: look(*args) if looked else looked.append(1)  # noqa: E731
    monkeypatch.setattr(proposals, "_of_key", blind_once)
    assert not proposals.begin(study, SPACE, point, "key")
    assert [trial.state.name for trial in study.trials] == ["RUNNING", "FAIL"]
    assert study.trials[1].user_attrs == {"key": "key", "double of": 0}


@pytest.mark.parametrize(
    ("sampler", "said"),
    [("GridSampler", "missing 1 required"), ("NoSampler", "cannot search here")],
)
def test_a_sampler_that_cannot_propose_is_one_message(sampler, said):
    proposals.require_sampler(SPACE, OmegaConf.create(TPE))
    config = OmegaConf.create({"_target_": f"optuna.samplers.{sampler}"})
    with pytest.raises(InputError, match=said):
        proposals.require_sampler(SPACE, config)
