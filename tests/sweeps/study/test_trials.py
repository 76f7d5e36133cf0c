"""A sweep's study in Optuna: what is kept, who is pruned, and that a kill changes neither."""

import json
from functools import partial
from pathlib import Path

import optuna
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf, open_dict
from optuna.distributions import CategoricalDistribution

from caltech.errors import DiskError, InputError
from caltech.runs.directory import RunDirectory
from caltech.runs.result import Result
from caltech.settings import CONF
from caltech.sweeps.records import Record
from caltech.sweeps.study import plots, proposals, trials
from caltech.sweeps.study.space import Space, point
from caltech.train import train
from caltech.training.fit import Observer
from tests.forks import TINY

RATES = (0.3, 0.1, 1e-05)  # the last one learns nothing and is to be pruned
MEDIAN = ["pruner=median", "pruner.n_startup_trials=2", "pruner.n_warmup_steps=1"]


class Sweep:
    """A grid over lr as a multirun starts it, job by job in this process."""

    def __init__(self, compose, folder: Path, *overrides: str) -> None:
        self.compose, self.folder = partial(compose, *TINY, "num_epochs=3", *overrides), folder
        base = self.compose()
        self.storage = base.storage
        with open_dict(base):
            grid = "lr=" + ",".join(map(str, RATES))
            base.hydra = {"sweeper": None, "overrides": {"task": [grid]}}
        trials.prepare(base, folder)

    def job(self, rate: float, observed=lambda trial: trial) -> Record:
        cfg = self.compose(f"lr={rate}")
        record = Record(cfg.key, cfg.directory, "")
        with trials.trial(cfg, record, [f"lr={rate}"], self.folder) as trial:
            result = train(cfg, observer=observed(trial))
            record.status, record.value = result.status, result.objective
        return record

    def kept(self) -> list[tuple]:
        name = json.loads((self.folder / trials.NOTE).read_text())["name"]
        study = optuna.load_study(study_name=name, storage=self.storage)
        return [(t.state.name, t.value, t.params, t.intermediate_values) for t in study.trials]


@pytest.fixture(scope="module")
def pruned(compose_in, tmp_path_factory):
    """A sweep with a pruner, and its records."""
    place = tmp_path_factory.mktemp("pruned")
    sweep = Sweep(partial(compose_in, place), place / "folder", *MEDIAN)
    return sweep, [sweep.job(rate) for rate in RATES]


def test_the_trials_of_a_sweep_with_a_pruner(pruned):
    sweep, records = pruned
    assert [record.status for record in records] == ["finished", "finished", "pruned"]
    states, _, points, epochs = zip(*sweep.kept(), strict=True)
    assert states == ("COMPLETE", "COMPLETE", "PRUNED")
    assert points == tuple({"lr": rate} for rate in RATES)
    assert [len(told) == 3 for told in epochs] == [True, True, False]


def test_the_same_sweep_again_is_answered_and_adds_no_trial(pruned, tmp_path):
    (sweep, records), before = pruned, pruned[0].kept()
    again = Sweep(sweep.compose, tmp_path)
    assert [again.job(rate) for rate in RATES] == records
    assert again.kept() == before


def test_a_pruned_run_goes_on_without_a_pruner(pruned):
    cfg, alone = (pruned[0].compose(f"lr={RATES[-1]}", f"study={s}") for s in ("default", "alone"))
    assert Result.read(RunDirectory(cfg.directory), pruned_too=True).status == "pruned"
    assert train(cfg) == train(alone)


def test_an_interrupted_sweep_prunes_as_if_undisturbed(pruned, configure, tmp_path):
    """By Ctrl-C after every epoch, before its trial is told of it."""
    undisturbed, expected = pruned
    sweep, found, interrupted = Sweep(configure, tmp_path, *MEDIAN), [], set()

    class Interrupting(Observer):
        def __init__(self, trial) -> None:
            self.trial, self.prunes = trial, trial.prunes

        def epoch(self, history) -> bool:
            place = len(found), len(history)
            if history and place not in interrupted:
                interrupted.add(place)
                raise KeyboardInterrupt
            return self.trial.epoch(history)

    while len(found) < len(RATES):
        try:
            found.append(sweep.job(RATES[len(found)], Interrupting))
        except KeyboardInterrupt:
            assert sweep.kept()[-1][0] == "RUNNING"
    assert len(interrupted) >= 7
    assert [(r.status, r.value) for r in found] == [(r.status, r.value) for r in expected]
    assert sweep.kept() == undisturbed.kept()


def test_without_a_pruner_trials_are_kept_once_ended(configure, tmp_path):
    sweep = Sweep(configure, tmp_path, "num_epochs=1")
    assert plots.plot(tmp_path, sweep.storage) == []
    first = sweep.job(RATES[0])
    assert sweep.kept() == [("COMPLETE", first.value, {"lr": 0.3}, {1: first.value})]
    with pytest.raises(ZeroDivisionError):
        sweep.job(RATES[1], lambda trial: 1 / 0)
    assert [trial[0] for trial in sweep.kept()] == ["COMPLETE", "FAIL"]
    sweep.job(RATES[2])
    drawn = plots.plot(tmp_path, sweep.storage)
    names = ["optimization_history", "slice", "intermediate_values"]
    assert [path.stem for path in drawn if path.stat().st_size > 2000] == names


def test_a_search_s_trial_for_which_there_was_no_room_stays_open(configure, tmp_path):
    sweep, cfg = Sweep(configure, tmp_path, "num_epochs=1"), configure("lr=0.3")
    note = json.loads((tmp_path / trials.NOTE).read_text())
    space = Space({"lr": CategoricalDistribution([*RATES])}, {}, [])
    trials.note(tmp_path, note["name"], space, is_search=True)
    study = optuna.load_study(study_name=note["name"], storage=sweep.storage)
    for error, state in ((DiskError("no room"), "RUNNING"), (ValueError("diverged"), "FAIL")):
        proposals.begin(study, space, {"params": {"lr": 0.3}}, cfg.key)
        of_job = trials.trial(cfg, Record(cfg.key, "", ""), ["lr=0.3"], tmp_path)
        with pytest.raises(type(error)), of_job:
            raise error
        assert [trial[0] for trial in sweep.kept()] == [state]


def test_hyperband_stops_jobs_in_brackets(configure, tmp_path):
    sweep = Sweep(configure, tmp_path, "pruner=hyperband", "pruner.max_resource=2")
    first, *others = [sweep.job(rate).status for rate in RATES]  # one bracket: the best third
    assert first == "finished" and "pruned" in others


def test_a_point_is_read_from_overrides_of_any_kind():
    space = {
        name: json.dumps({"name": "CategoricalDistribution", "attributes": {"choices": choices}})
        for name, choices in {"lr": [0.1, 0.2], "+optimizer.nesterov": [True, False]}.items()
    }
    typed = ["study='my study'", "~augment", "lr=0.2", "+optimizer.nesterov=True"]
    assert point(space, typed)["params"] == {"lr": 0.2, "+optimizer.nesterov": True}


def prepare(folder: Path, *task: str, storage: str = "", typed: str = "lr=0.1") -> str:
    """Name of the study of a sweep over this."""
    hydra = {"sweeper": {"params": {"gamma": "interval(0.1, 1)"}}, "overrides": {"task": task}}
    storage = storage or f"sqlite:///{folder}/optuna.db"
    own = ["seeds=3", "study=mine", f"output={folder}", f"storage={storage}", typed]
    with initialize_config_dir(config_dir=str(CONF)):
        cfg = OmegaConf.to_container(compose("train", own), resolve=True)
    trials.prepare(OmegaConf.create(cfg | {"hydra": hydra}), folder)
    return json.loads((folder / trials.NOTE).read_text())["name"]


def test_a_study_s_name_is_what_it_always_was(tmp_path):
    task = ["lr=0.1,0.2", "num_epochs=3", "step_size=range(5,30,5)"]
    assert prepare(tmp_path, *task) == "mine-feb8e9c4"  # by the code of d8c1e7e


def test_a_study_begun_when_0_and_00_were_told_apart_is_gone_on_with(tmp_path, monkeypatch):
    typed = "optimizer.weight_decay=0"
    with monkeypatch.context() as before:
        before.setattr(trials, "run_key", trials.former_key)
        old = prepare(tmp_path, "lr=0.1,0.2", typed=typed)
    assert prepare(tmp_path, "lr=0.1,0.2", typed=typed) == old
    new = prepare(tmp_path, "lr=0.1,0.3", typed=typed)
    assert new == prepare(tmp_path, "lr=0.1,0.3", typed="weight_decay=0") != old


def test_what_cannot_be_a_study_is_told(tmp_path, configure):
    single = trials.trial(configure("pruner=hyperband"), Record("", "", ""), [], None)
    with pytest.raises(InputError, match=r"single run\. Type pruner=none, or --multirun"), single:
        pass
    with pytest.raises(InputError, match=r"swept over: experiment=glob\(scratch/\*\) is no list"):
        prepare(tmp_path, "experiment=glob(scratch/*)")
    with pytest.raises(InputError, match=r"^storage=nonsense is not allowed"):
        prepare(tmp_path, storage="nonsense")
