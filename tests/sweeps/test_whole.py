"""Whole commands: what is refused before any work, how a sweep ends, and its table at any time."""

import re
import signal

import pytest

from tests.forks import TINY, Ended

OPTUNA = ["hydra/sweeper=optuna", "lr=interval(0.1,1)"]
SEVERAL = "hydra.sweeper.direction=[maximize,minimize]"
REFUSED = {  # tests/sweeps/test_sweepers.py has more, without whole commands
    "a search has one objective": ["--multirun", *OPTUNA, SEVERAL],
    "Nothing is searched": ["--multirun", "hydra/sweeper=optuna", "lr=0.1"],
    "sweep=search_head is for a sweep.* Type --multirun": ["sweep=search_head"],
    "hydra/launcher=parallel is for a sweep": ["hydra/launcher=parallel"],
    "study=../../y is not allowed": ["study=../../y"],
    "study= has no value": ["--multirun", "study=", "lr=0.1,0.2"],
    "hydra.run.dir=elsewhere: ": ["hydra.run.dir=elsewhere"],
    "seeds=0 is not allowed": ["--multirun", "seeds=0", "lr=0.1,0.2"],
    "Type seeds=5 or seed=3": ["--multirun", "seeds=5", "seed=3", "lr=0.1,0.2"],
    "The config is not complete at optimizer.name": ["--multirun", "optimizer=adam,timm,sgd"],
    "hydra.verbose=true,false is not allowed": ["--multirun", "hydra.verbose=true,false"],
    "key=abc is not allowed": ["--multirun", "key=abc", "lr=0.1,0.2"],
}


@pytest.fixture
def command(forks, cache, tmp_path):
    """Run commands at the same time to their ends; one alone is answered alone."""
    own = [*TINY, f"output={tmp_path}/a/b", f"cache={cache}", "tracking=none", "num_epochs=1"]

    def run(*commands: list[str], **details) -> list[Ended] | Ended:
        ended = forks.run(*([*own, *arguments] for arguments in commands), **details)
        return ended if len(commands) > 1 else ended[0]

    return run


def written(folder) -> list[str]:
    return [path.name for path in folder.rglob("*") if path.is_file()]


def test_what_cannot_be_a_command_is_one_error_and_writes_nothing(command, forks, tmp_path):
    for said, one in zip(REFUSED, command(*REFUSED.values()), strict=True):
        assert one.code == 1, one.output
        assert re.search(f"^error: .*{said}", one.output, re.MULTILINE), one.output
        assert "Traceback" not in one.output
    assert written(tmp_path) == []
    assert not [path for path in forks.folder.iterdir() if path.name == "elsewhere"]


def test_the_jobs_place_is_asked_before_any_starts(command, tmp_path):
    place = f"directory={tmp_path}/one"
    ended = command(
        ["--multirun", "study=fine,../../x"], ["--multirun", place, "lr=0.1,0.2"],
    )  # fmt: skip
    assert [one.code for one in ended] == [1, 1]
    assert "study=../../x is not allowed" in ended[0].output
    assert "is one place for several runs" in ended[1].output
    assert written(tmp_path) == []
    assert not [*tmp_path.glob("a/b/*/sweeps")]


def test_processes_of_torchrun_are_told(command, tmp_path):
    ended = command([], environment={"WORLD_SIZE": "2", "RANK": "1"})
    assert ended.code == 1 and "takes one process" in ended.output
    assert written(tmp_path) == []


def test_a_search_of_which_every_trial_fails(command):
    diverging = ["hydra/sweeper=optuna", "lr=interval(1e30,2e30)", "hydra.sweeper.n_trials=2"]
    ended = command(["--multirun", "freeze=none", *diverging])
    assert ended.code == 1
    assert "error: None of 2 trials has a value: DivergedError" in ended.output
    assert len(re.findall(r"^[0-9a-f]{10}  failed ", ended.output, re.MULTILINE)) == 2
    assert "Traceback" not in ended.output


@pytest.mark.parametrize(
    ("number", "code", "second"), [(signal.SIGKILL, -9, "missing"), (signal.SIGINT, 130, None)]
)
def test_a_sweep_s_table_is_there_however_it_ended(command, forks, tmp_path, number, code, second):
    ended = command(["--multirun", "lr=0.1,0.2,0.3"], signal_at=("#1 ", number))
    assert ended.code == code, ended.output
    asked = ["default", f"output={tmp_path}/a/b"]
    (shown,) = forks.run(asked, module="caltech.sweeps")
    assert shown.code == 0
    table = [line.split() for line in shown.output.splitlines()]
    table = [row for row in table if row and re.fullmatch("[0-9a-f]{10}", row[0])]
    assert [row[-1] for row in table] == ["lr=0.1", "lr=0.2", "lr=0.3"]
    states = [row[1] for row in table]
    assert (states[0], states[2]) == ("finished", "missing")
    assert states[1] == second or states[1] in ("interrupted", "missing")
    assert "The sweep's command typed again computes what is left." in shown.output


def test_what_is_no_sweep_is_one_message(command, forks, tmp_path):
    command(["--multirun", "lr=0.1", "study=mine"])
    where = f"output={tmp_path}/a/b"
    asked = (["other", where], ["mine", "1999", where], [f"output={tmp_path}/none"])
    asked += (["study=mine", where],)
    *wrong, newest = forks.run(*asked, module="caltech.sweeps")
    assert [one.code for one in wrong] == [1, 1, 1]
    assert "no sweep of a study other" in wrong[0].output and "mine" in wrong[0].output
    there = "caltech sweep lr=1e-1,1e-2 study=other output="
    assert f"{there}{tmp_path}/a/b to make one" in " ".join(wrong[0].output.split())
    assert "has no sweep 1999. The newest there are: 2" in wrong[1].output
    assert "job 1 of 1" in newest.output


@pytest.mark.parametrize("word", ["lr=0.4,nan", "batch_size=8,0"])
def test_a_value_that_no_job_can_have_is_told_before_the_first(command, tmp_path, word):
    ended = command(["--multirun", word])
    assert ended.code == 1 and ended.output.count("is not allowed") == 1, ended.output
    assert not list(tmp_path.rglob("config.yaml"))
