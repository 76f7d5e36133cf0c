"""Whole commands that search: typed together, killed, typed again; what a study refuses.

pytest -m slow -n 0 tests/sweeps/test_search.py    a pruned search under kills, two launchers
"""

import json
import re
import signal
import sqlite3
from dataclasses import asdict
from types import SimpleNamespace

import numpy as np
import optuna
import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.types import HydraContext
from omegaconf import OmegaConf, read_write
from optuna.trial import TrialState, create_trial

from caltech.config import register
from caltech.errors import CaltechError, InputError
from caltech.files import write_json
from caltech.settings import CONF
from caltech.sweeps import records, search
from caltech.sweeps.composed import ComposedOnce
from caltech.sweeps.place import VARIABLE
from caltech.sweeps.study import origin, storage, trials
from caltech.sweeps.study.space import Space
from tests.forks import TINY

SPACE = ["--multirun", "hydra/sweeper=optuna", "lr=tag(log,interval(1e-3,1))"]


@pytest.fixture
def command(forks, cache, tmp_path):
    """Type commands at the same time, all on one study."""
    own = [*TINY, *SPACE, f"output={tmp_path}/runs", f"cache={cache}", "tracking=none"]

    def run(*commands: list[str], **details):
        return forks.run(*([*own, "num_epochs=1", *words] for words in commands), **details)

    return run


def trials_of(folder) -> list[optuna.trial.FrozenTrial]:
    url = f"sqlite:///{folder}/default/optuna.db"
    (name,) = optuna.get_all_study_names(url)
    return optuna.load_study(study_name=name, storage=url).trials


def told(folder) -> list[tuple]:
    return [
        (t.number, t.state.name, t.value, t.params, t.intermediate_values, t.user_attrs)
        for t in trials_of(folder)
    ]


def test_processes_that_type_one_command_share_a_study(command, tmp_path):
    trials = "hydra.sweeper.n_trials=6"
    (killed,) = command([trials], signal_at=("#2 ", signal.SIGKILL))
    assert killed.code == -9
    both = command([trials], [trials])
    assert [one.code for one in both] == [0, 0], both[0].output + both[1].output
    said = "".join(one.output for one in both)
    assert said.count("taking up trial 3") == 1
    found = trials_of(tmp_path / "runs")
    assert [trial.state.name for trial in found] == ["COMPLETE"] * 6
    keys = {trial.user_attrs["key"] for trial in found}
    assert {path.parent.name for path in (tmp_path / "runs").glob("*/*/result.json")} == keys
    assert len(keys) == 6 == len(re.findall("epoch 1/1", killed.output + said))
    (folder,) = (tmp_path / "runs").glob("default/sweeps/*/")  # one, for all
    rows = records.rows(folder)
    assert [row.status for row in rows] == ["finished"] * 6
    best = max(rows, key=lambda row: row.value)
    assert re.search(
        rf"^key .*\n{best.key}  finished  {best.value:.4f} (best|tied)", said, re.MULTILINE
    )
    assert f"trial 6 of 6 · best {best.value:.4f} (lr=" in said
    assert (folder / "table.csv").read_text().startswith("key,status,value,deviation,test,")
    (refused,) = command(["hydra.sweeper.n_trials=2"])
    assert refused.code == 1 and "this study has 6 trials already" in refused.output
    assert "key  " not in refused.output


def test_a_job_is_composed_once_and_given_what_it_always_was(tmp_path):
    register()
    with initialize_config_dir(config_dir=str(CONF)):
        loader, asked = GlobalHydra.instance().config_loader(), []

        class Counting:
            def load_sweep_config(self, master, words):
                asked.append(words)
                return loader.load_sweep_config(master, words)

        config = compose("train", [f"output={tmp_path}"], return_hydra_config=True)
        once = ComposedOnce(Counting(), config, most=2)
        words = ["lr=0.5", "freeze=none"]
        record, given = once.describe(words), once.load_sweep_config(config, words)
        assert asked == [words]
        fresh = loader.load_sweep_config(config, words)
        assert OmegaConf.to_yaml(given) == OmegaConf.to_yaml(fresh)
        assert given.key == fresh.key == record.key
        assert once.load_sweep_config(config, words) is not given  # a job writes into its config
        once.describe(words)
        assert once.load_sweep_config(config, ["lr=0.1"]).lr == 0.1
        assert len(asked) == 4
        for lr in range(1, 5):  # of more than are kept, the first and the last
            once.describe([f"lr={lr}"])
        del asked[:]
        for lr in range(1, 5):
            assert once.load_sweep_config(config, [f"lr={lr}"]).lr == lr
        assert asked == [["lr=1"], ["lr=2"], ["lr=3"]]


def test_other_data_are_refused_and_another_space_is_told(command, tmp_path):
    """Before any work, in one message."""
    one = "hydra.sweeper.n_trials=1"
    command([one])
    database = tmp_path / "runs" / "default" / "optuna.db"
    other, grid = command([one, "lr=interval(0.1,0.2)"], [one, "hydra/sweeper/sampler=grid"])
    assert other.code == 0 and "This search is a new one: " in other.output
    assert grid.code == 1 and "takes values, and an interval was typed" in grid.output
    with sqlite3.connect(database) as opened:
        opened.execute("update study_user_attributes set value_json = ? where key = 'data'",
            [json.dumps("another")])  # fmt: skip
    (refused,) = command([one])
    assert refused.code == 1
    assert re.search(
        "^error: The trials of study .* were made from other data", refused.output, re.M
    )
    assert "Traceback" not in refused.output and "epoch" not in refused.output


@pytest.mark.slow
@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_a_pruned_search_under_kills_ends_as_if_undisturbed(forks, cache, tmp_path, pruner):
    own = [*TINY, *SPACE, f"cache={cache}", "tracking=none", "num_epochs=4", f"pruner={pruner}"]
    own += ["hydra.sweeper.n_trials=10", "checkpoint_minutes=1e-6"]
    (alone,) = forks.run([*own, f"output={tmp_path}/alone"])
    assert alone.code == 0, alone.output
    random, kills = np.random.default_rng(0), 0
    for attempt in range(40):  # later ones live longer: much of the time may be a command's start
        moment = random.uniform(0.2, alone.seconds * (0.5 + attempt / 40))
        (ended,) = forks.run([*own, f"output={tmp_path}/killed"], kill_after=[moment])
        kills += ended.code == -9
        if ended.code == 0:
            break
    assert ended.code == 0 and kills >= 3
    assert told(tmp_path / "killed") == told(tmp_path / "alone")
    assert "PRUNED" in [trial[1] for trial in told(tmp_path / "alone")]
    for path in (tmp_path / "alone" / "default").glob("*/result.json"):
        other = tmp_path / "killed" / path.relative_to(tmp_path / "alone")
        assert other.read_bytes() == path.read_bytes()


def test_a_worker_is_told_all_that_is_the_same_for_every_trial(monkeypatch, tmp_path):
    """Else its own config would be of no search, and of another output than the command's."""
    launched = []

    class Launcher:
        def launch(self, jobs, first):
            launched.extend(jobs)
            return []

    typed = ["study=mine", "hydra/launcher=parallel", "hydra.sweeper.n_jobs=2"]
    register()
    with initialize_config_dir(config_dir=str(CONF)):
        config = compose("train", ["sweep=search_head", *typed], return_hydra_config=True)
        with read_write(config.hydra):
            config.hydra.overrides.task.append("lr=interval(0.1,1)")
        monkeypatch.setattr(Plugins.instance(), "instantiate_launcher", lambda **_: Launcher())
        worker = SimpleNamespace(space=Space.of(config), folder=tmp_path, jobs=dict)
        search.launch_workers(worker, config, None, None)
        assert launched == [["sweep=search_head", "study=mine"]] * 2
        own = compose("train", launched[0], return_hydra_config=True)
    assert own.hydra.runtime.choices["hydra/sweeper"] == "optuna" and own.study == "mine"


@pytest.mark.parametrize("is_completed", [True, False])
def test_a_lost_worker_is_an_error_only_if_the_others_do_not_complete_the_study(
    monkeypatch, tmp_path, caplog, is_completed
):
    """As one of two that is cancelled: submitit gives up, and the other goes on."""

    class Launcher:
        def launch(self, jobs, first):
            raise RuntimeError("Job 22_1 (task: 0) with path /x\nhas not produced any output "
                "(state: CANCELLED)")  # fmt: skip

    register()
    with initialize_config_dir(config_dir=str(CONF)):
        config = compose("train", ["sweep=search_head"], return_hydra_config=True)
        monkeypatch.setattr(Plugins.instance(), "instantiate_launcher", lambda **_: Launcher())
        worker = SimpleNamespace(space=Space.of(config), folder=tmp_path, jobs=dict)
        worker.is_completed_by_others = lambda: is_completed
        if is_completed:
            search.launch_workers(worker, config, None, None)
        else:
            with pytest.raises(CaltechError, match="gave up: job 22_1 ended"):
                search.launch_workers(worker, config, None, None)
    assert "A worker was lost: job 22_1 ended without an answer (CANCELLED)" in caplog.text


def test_trials_that_were_lost_do_not_stand_in_the_next_search_s_table(tmp_path, capsys):
    study, folder = optuna.create_study(), tmp_path / "20261130T10Z-abcd1234"
    assert search._folder_of(study, tmp_path, "abcd1234").name != folder.name  # a new one
    folder.mkdir()
    origin.mark(folder)
    assert search._folder_of(study, tmp_path, "abcd1234") == folder  # nothing is in it yet
    write_json(
        folder / "0123456789-0.json", asdict(records.Record("0123456789", "", "", "finished"))
    )
    assert search._folder_of(study, tmp_path, "abcd1234").name > folder.name
    assert "is not in the storage any more" in capsys.readouterr().out
    later = tmp_path / "20261130T11Z-abcd1234"
    later.mkdir()
    origin.mark(later)
    origin._require_folder(study, later)  # that of another machine stands beside it
    assert search._folder_of(study, tmp_path, "abcd1234") == later
    assert capsys.readouterr().out == ""


def test_a_worker_that_starts_in_an_outage_waits_for_the_storage(monkeypatch, tmp_path, caplog):
    """Its command has opened it: on SLURM perhaps hours before."""
    answers = iter([InputError("Cannot open"), InputError("Cannot open"), optuna.create_study()])

    def opened(name, url):
        answer = next(answers)
        if isinstance(answer, InputError):
            raise answer from OSError("Connection refused")
        return answer

    monkeypatch.setattr(storage, "study", opened)
    monkeypatch.setattr(storage, "PATIENCE", (0.001,) * 3)
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    register()
    with initialize_config_dir(config_dir=str(CONF)):
        config = compose("train", ["sweep=search_head"], return_hydra_config=True)
        trials.note(tmp_path, "mine-01234567", Space.of(config), is_search=True)
        context = HydraContext(GlobalHydra.instance().config_loader(), Callbacks())
        worker = search.worker_of(config, context, print)
    assert worker.jobs() == {}
    assert caplog.text.count("does not answer (Connection refused)") == 2


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["parallel", "submitit_local"])
def test_a_launcher_starts_workers(command, tmp_path, launcher):
    words = ["hydra.sweeper.n_trials=6", "workers=2", f"hydra/launcher={launcher}"]
    words += ["sweep=search_head", "study=default"] if launcher == "parallel" else []
    if launcher == "submitit_local":
        words += ["hydra.launcher.timeout_min=10"]
    (ended,) = command(words)
    assert ended.code == 0, ended.output
    found = trials_of(tmp_path / "runs")
    assert [trial.state.name for trial in found] == ["COMPLETE"] * 6
    assert len({trial.user_attrs["key"] for trial in found}) == 6


def test_a_pruned_trial_is_not_the_best(tmp_path):
    """Optuna gives it the last value that it told, of an epoch before its last."""
    states = {0.8: TrialState.COMPLETE, 0.85: TrialState.PRUNED}
    trials = [create_trial(state=state, value=value) for value, state in states.items()]
    worker = SimpleNamespace(jobs=lambda: {0: trials}, folder=tmp_path)
    search.conclude(worker, tmp_path)
    assert OmegaConf.load(tmp_path / search.BEST).best_value == 0.8
    del trials[0]  # no trial came to its end
    search.conclude(worker, tmp_path)
    assert OmegaConf.load(tmp_path / search.BEST).best_value == 0.85


def test_what_every_trial_would_fail_of_is_told_before_the_first(command):
    wrong = ["device=cuda", "gpu_share=0", "workers=0", "batch_size=0"]
    for word, one in zip(
        wrong, command(*([w] for w in wrong), environment={"CUDA_VISIBLE_DEVICES": ""}), strict=True
    ):
        assert one.code == 1, one.output
        assert re.search(rf"^error: {word} is not (available|allowed)", one.output, re.M)
        assert "FAILED" not in one.output and "Traceback" not in one.output


def test_workers_that_nobody_would_start_are_told(command):
    parallel = ["hydra/launcher=parallel", "hydra.launcher.n_jobs=4"]
    alone, grid, jobs = command(["workers=4"], ["workers=4", "hydra/sweeper=basic"], parallel)
    assert alone.code == 1 and "Add hydra/launcher=parallel" in alone.output
    assert grid.code == 1, grid.output
    assert jobs.code == 1 and "many processes work on it is workers=4." in jobs.output


def test_a_server_that_is_not_there_is_told_without_its_password():
    with pytest.raises(InputError, match=r"Cannot open Optuna's storage postgresql\+psycopg://\*"):
        storage.names("postgresql+psycopg://me:secret@127.0.0.1:9/x")
