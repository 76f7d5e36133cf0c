"""A sweep's study in Optuna: what is kept, who is pruned, and that a kill changes neither."""

import json
from pathlib import Path

import optuna
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf, open_dict

from caltech import train as training
from caltech.errors import InputError
from caltech.runs import directory as run
from caltech.runs.directory import recorded_result, state
from caltech.settings import CONF
from caltech.sweeps import trials
from caltech.sweeps.jobs import Record
from caltech.train import train

RATES = ("0.3", "0.2", "0.1", "1e-05")  # the last one learns nothing and is to be pruned
OWN = ["data=digits", "data.resize=32", "data.crop=32", "num_epochs=4", "batch_size=128"]
MEDIAN = ["pruner=median", "pruner.n_startup_trials=2", "pruner.n_warmup_steps=1"]


@pytest.fixture
def sweep(configure):
    """A grid over lr as a multirun starts it, job by job in this process."""

    def prepared(folder: Path, *overrides: str):
        base = configure(*OWN, *overrides)
        with initialize_config_dir(config_dir=str(CONF)):
            grid = ["lr=" + ",".join(str(float(rate)) for rate in RATES)]
            hydra = compose("train", return_hydra_config=True).hydra
        with open_dict(base):
            base.hydra = OmegaConf.create({"sweeper": None, "overrides": {"task": grid}})
        assert hydra.callbacks.name_sweep._target_ == "caltech.sweep.NameSweep"
        trials.prepare(base, folder)

        def job(rate: str) -> Record:
            cfg = configure(*OWN, *overrides, f"lr={rate}")
            record = Record(cfg.key, cfg.directory, "")
            with trials.trial(cfg, record, [f"lr={float(rate)}"], folder) as trial:
                result = train(cfg, trial=trial)
                record.status, record.value = result["status"], run.objective(result)
            return record

        return job

    return prepared


def storage(folder: Path, output: str = "multirun") -> str:
    """The default one, of a sweep whose jobs are in `output` beside its folder."""
    return f"sqlite:///{folder.parent}/{output}/default/optuna.db"


def kept(folder: Path, output: str = "multirun") -> list[tuple]:
    note = json.loads((folder / trials.NOTE).read_text())
    study = optuna.load_study(study_name=note["name"], storage=storage(folder, output))
    return [
        (t.number, t.state.name, t.value, t.params, t.intermediate_values) for t in study.trials
    ]


def test_a_pruned_job_is_answered_and_goes_on_without_a_pruner(sweep, configure, tmp_path):
    job = sweep(tmp_path / "folder", *MEDIAN)
    records = [job(rate) for rate in RATES]
    assert [records[0].status, records[1].status, records[3].status] == [
        "finished", "finished", "pruned",
    ]  # fmt: skip
    trials = kept(tmp_path / "folder")
    names = {"finished": "COMPLETE", "pruned": "PRUNED"}
    assert [trial[1] for trial in trials] == [names[record.status] for record in records]
    assert [trial[3] for trial in trials] == [{"lr": float(rate)} for rate in RATES]
    assert [len(trial[4]) == 4 for trial in trials] == [r.status == "finished" for r in records]

    again = sweep(tmp_path / "another", *MEDIAN)  # the same command: the same study
    assert [again(rate) for rate in RATES] == records
    assert kept(tmp_path / "another") == trials

    cfg = configure(*OWN, f"lr={RATES[-1]}")
    assert state([Path(cfg.directory)]) == "pruned"
    assert recorded_result(Path(cfg.directory), pruned_too=False) is None
    assert train(cfg) == train(configure(*OWN, f"lr={RATES[-1]}", "study=never_pruned"))


def test_an_interrupted_sweep_prunes_as_if_undisturbed(sweep, tmp_path, monkeypatch):
    job = sweep(tmp_path / "folder", *MEDIAN)
    expected = [job(rate) for rate in RATES]
    own = f"output={tmp_path / 'elsewhere'}"
    job = sweep(tmp_path / "other", *MEDIAN, own)
    interrupted = []
    log_epoch = run.log_epoch

    def stop(metrics, num_epochs):
        log_epoch(metrics, num_epochs)
        if len(interrupted) < 7:
            interrupted.append(metrics["epoch"])
            raise KeyboardInterrupt

    monkeypatch.setattr(run, "log_epoch", stop)
    found = []
    while len(found) < len(RATES):
        try:
            found.append(job(RATES[len(found)]))
        except KeyboardInterrupt:
            assert kept(tmp_path / "other", "elsewhere")[-1][1] == "RUNNING"
    assert len(interrupted) == 7
    assert [(r.key, r.status, r.value) for r in found] == [
        (r.key, r.status, r.value) for r in expected
    ]
    assert kept(tmp_path / "other", "elsewhere") == kept(tmp_path / "folder")


def test_without_a_pruner_trials_are_kept_once_ended(sweep, tmp_path, monkeypatch):
    folder = tmp_path / "folder"
    job = sweep(folder, "num_epochs=1")
    assert trials.plot(folder, storage(folder)) == []
    first = job(RATES[0])
    assert kept(folder) == [
        (0, "COMPLETE", first.value, {"lr": 0.3}, {1: pytest.approx(first.value)})
    ]
    with monkeypatch.context() as patched:
        patched.setattr(training.epochs, "fit", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            job(RATES[1])
    assert [trial[1] for trial in kept(folder)] == ["COMPLETE", "FAIL"]
    job(RATES[3])
    assert {path.name for path in trials.plot(folder, storage(folder))} == {
        "optimization_history.png",
        "param_importances.png",
        "slice.png",
        "intermediate_values.png",
    }
    assert all(path.stat().st_size > 2000 for path in folder.glob("*.png"))


def test_a_pruner_needs_a_sweep(configure):
    cfg = configure(*OWN, "pruner=hyperband")
    record = Record(cfg.key, cfg.directory, "")
    with (
        pytest.raises(InputError, match=r"single run\. Type pruner=none, or --multirun"),
        trials.trial(cfg, record, [], None),
    ):
        pass


def test_hyperband_stops_jobs_in_brackets(sweep, tmp_path):
    own = ["pruner=hyperband", "pruner.max_resource=2"]  # one bracket: the best third goes on
    job = sweep(tmp_path / "folder", *own)
    statuses = [job(rate).status for rate in RATES]
    assert statuses[0] == "finished"
    assert "pruned" in statuses


def test_a_point_is_read_from_overrides_of_any_kind():
    space = {
        name: json.dumps({"name": "CategoricalDistribution", "attributes": {"choices": choices}})
        for name, choices in {"lr": [0.1, 0.2], "+optimizer.nesterov": [True, False]}.items()
    }
    typed = ["study='my study'", "~augment", "lr=0.2", "+optimizer.nesterov=True"]
    assert trials._point(space, typed)["params"] == {"lr": 0.2, "+optimizer.nesterov": True}


def test_a_sweep_that_optuna_cannot_take(sweep, configure, tmp_path):
    base = configure(*OWN)
    with open_dict(base):
        swept = {"task": ["experiment=glob(scratch/*)"]}
        base.hydra = OmegaConf.create({"sweeper": None, "overrides": swept})
    with pytest.raises(InputError, match="Optuna cannot take what is swept over"):
        trials.prepare(base, tmp_path)


def test_storage_that_cannot_be_opened(sweep, tmp_path):
    with pytest.raises(InputError, match="Optuna's storage nonsense"):
        sweep(tmp_path / "folder", "storage=nonsense")
