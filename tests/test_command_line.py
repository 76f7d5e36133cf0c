"""The command line: what a user types and what comes back.

Most commands run in children of one process that has imported everything (tests/forks.py); three
are real processes.
"""

import json
import os
import re
import signal
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import joblib
import pytest

from caltech.overrides import effective, name_of
from tests.forks import TINY as DIGITS
from tests.forks import Ended
from tests.observers import TINY

SMALL = [word for word in TINY if word != "lr=0.01"]  # a search would not vary it
SMALL = effective([*SMALL, "batch_size=16", "tracking=none", "device=cpu"])


@pytest.fixture
def command(forks, tree: Path, cache: Path, tmp_path: Path):
    """Run `python -m caltech.train` to its end, with outputs in tmp_path, on generated data."""
    places = {"CALTECH101_ROOT": str(tree), "CALTECH_CACHE": str(cache)}

    def run(*arguments: str, small: tuple[str, ...] | list[str] = SMALL, **details) -> Ended:
        own = [f"output={tmp_path / 'multirun'}", *without(small, arguments)]
        (ended,) = forks.run([*own, *arguments], environment=places, **details)
        return ended

    return run


def without(words: Sequence[str], later: Sequence[str]) -> list[str]:
    """But those that later ones replace, which is told."""
    return [word for word in words if name_of(word) not in map(name_of, later)]


def start(tmp_path: Path, tree: Path, cache: Path, *arguments: str) -> subprocess.Popen:
    """The same in a process of its own."""
    places = {"CALTECH101_ROOT": str(tree), "CALTECH_CACHE": str(cache)}
    own = [f"output={tmp_path / 'multirun'}", *without(SMALL, arguments)]
    return subprocess.Popen(
        [sys.executable, "-m", "caltech.train", *own, *arguments],
        cwd=tmp_path, env=os.environ | places | {"PYTHONWARNINGS": "default"},
        # A background job of a shell ignores SIGINT, and its children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def table(output: str) -> list[list[str]]:
    """Words of the lines of a sweep's last table."""
    return [line.split() for line in output[output.rindex("key  ") :].splitlines()[1:]]


def test_what_was_typed_is_recorded_as_it_was_typed(command, tmp_path):
    """Each seed's run would else say that it has the first one's split."""
    ended = command("seeds=2", "split=fraction", "split.seed=${seed}", "num_epochs=1")
    assert ended.code == 0, ended.output
    told = [path.read_text() for path in (tmp_path / "multirun").rglob("description.json")]
    assert len(told) == 2 and all("split.seed=${seed}" in each for each in told)


def test_a_run_in_a_process_of_its_own(tree, cache, tmp_path):
    output, errors = start(tmp_path, tree, cache, "lr=0.1").communicate(timeout=120)
    assert "epoch 2/2" in output, errors
    assert "Warning" not in errors
    assert "it/s" not in errors and "image/s" not in errors  # no bar without a terminal
    (directory,) = (tmp_path / "multirun" / "default").iterdir()
    assert json.loads((directory / "result.json").read_text())["key"] == directory.name
    kept = (directory / "config.yaml").read_text()
    assert re.search(rf"^key: '?{directory.name}'?$", kept, re.MULTILINE)


def test_a_sweep_computes_what_is_not_finished(command, tmp_path):
    assert command("lr=0.1").code == 0
    sweep = command("--multirun", "lr=1e-1,1e-2,1e-3")
    assert sweep.code == 0, sweep.output
    assert sweep.output.count("epoch 2/2") == 2
    assert sweep.output.count("is finished already") == 1
    assert len(list((tmp_path / "multirun" / "default").glob("*/result.json"))) == 3


def test_a_failed_job_ends_neither_the_sweep_nor_silently(command, tmp_path):
    sweep = command("--multirun", "lr=0.1,1e30,1e-2")
    assert sweep.code == 1
    assert re.search(r"FAILED .*lr=1e.?30 .*\n  DivergedError: The .*loss", sweep.output)
    assert "Traceback" not in sweep.output
    lines = [line for line in table(sweep.output) if re.fullmatch("[0-9a-f]{10}", line[0])]
    assert [line[1] for line in lines] == ["finished", "finished", "failed"]
    values = [line[2] for line in lines if line[1] == "finished"]
    mark = "best" if values.count(max(values)) == 1 else "tied"
    assert [mark in line for line in lines if line[1] == "finished"] == [
        value == max(values) for value in values
    ]
    assert len(list((tmp_path / "multirun" / "default").glob("*/result.json"))) == 2


@pytest.mark.slow  # 12 s each
@pytest.mark.parametrize(
    ("launcher", "threads"),
    [
        (["hydra/launcher=parallel", "hydra.launcher.n_jobs=2"], max(joblib.cpu_count() // 2, 1)),
        (["hydra/launcher=submitit_local"], None),  # SLURM's option sets them
        (["hydra/launcher=ray"], 1),
    ],
)
def test_jobs_in_other_processes(tree, cache, tmp_path, monkeypatch, launcher, threads):
    """They find code and config, divide the threads, and report to the one who started them."""
    if launcher == ["hydra/launcher=ray"]:
        pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason="needs the extra ray")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    process = start(tmp_path, tree, cache, "--multirun", *launcher, "lr=0.1,1e30")
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 1, errors
    assert re.search("error: The .*loss .*smaller", errors)
    assert sorted(line[1] for line in table(output)) == ["failed", "finished"]
    (result,) = (tmp_path / "multirun" / "default").glob("*/result.json")
    provenance = json.loads((result.parent / "provenance.json").read_text())
    assert threads in (None, provenance["environment"]["threads"])


def test_seeds_are_runs_of_their_own_and_their_mean_is_the_objective(command, tmp_path):
    repeated = command("--multirun", "lr=0.1", "seeds=3")
    assert repeated.code == 0, repeated.output
    paths = (tmp_path / "multirun" / "default").glob("*/result.json")
    values = [json.loads(path.read_text())["best"]["val/accuracy"] for path in paths]
    assert len(values) == 3
    mean = f"{sum(values) / 3:.4f} ± {statistics.stdev(values):.4f}"
    assert f"{mean} best" in repeated.output  # in the sweep's table
    assert re.search(rf"^mean  {re.escape(mean)} ", repeated.output, re.MULTILINE)
    assert "is finished already" in command("lr=0.1", "seed=2").output


LONGER = ["freeze=none", "num_epochs=3"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_a_run_and_the_same_command_goes_on(command, number):
    ended = command(*LONGER, signal_at=("epoch 1/3", number))
    assert ended.code == {signal.SIGTERM: 143, signal.SIGKILL: -9}[number], ended.output
    assert "Traceback" not in ended.output
    is_told = "interrupted; the same command goes on" in ended.output
    assert is_told == (number == signal.SIGTERM)
    again = command(*LONGER).output
    assert re.search(r"resuming .* after epoch [12]\n", again)
    assert "epoch 3/3" in again and "epoch 1/3" not in again


def test_ctrl_c_in_a_process_of_its_own(command, tree, cache, tmp_path):
    process = start(tmp_path, tree, cache, "freeze=none", "num_epochs=300")
    next(line for line in process.stdout if line.startswith("epoch 2/300"))
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == "interrupted; the same command goes on from here\n"


def test_a_killed_search_goes_on_to_the_same_trials(command, tmp_path):
    """Finished runs are answered, the killed one goes on, the rest is proposed as it would be."""
    search = ["--multirun", "sweep=search_head", "hydra.sweeper.n_trials=4"]

    def proposed(output: str) -> list[str]:
        return re.findall(r"lr=\S+ weight_decay=\S+ gamma=\S+ step_size=\d+ ", output)

    expected = command(*search, f"output={tmp_path / 'undisturbed'}")
    killed = command(*search, signal_at=("#2 ", signal.SIGKILL))  # two trials are finished
    assert killed.code == -9
    again = command(*search)
    assert again.output.count("is finished already") == 2, again.output
    assert proposed(again.output) == proposed(expected.output) != []
    assert len(list((tmp_path / "multirun" / "search_head").glob("*/result.json"))) == 4


def test_help_is_readable():
    command = [sys.executable, "-m", "caltech.train", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=60).stdout
    for line in (
        "model: alexnet, efficientnet_lite0, efficientnet_lite1, efficientnet_lite2",
        "freeze: backbone, head, linear, none",
        "lr: 0.1",
    ):
        assert line in shown
    assert "python -m caltech.train --multirun lr=1e-1,1e-2,1e-3" in shown
    ours = [line for line in shown.splitlines() if not re.match(r"[a-z/]+: ", line)]  # no group
    assert max(map(len, ours)) <= 80


def test_a_dry_run_tells_and_does_nothing(command, tmp_path):
    command("lr=0.1")
    before = sorted((tmp_path / "multirun").rglob("*"))
    shown = command("--multirun", "lr=0.1,0.2", "dry_run=true").output
    assert re.search(r"^[0-9a-f]{10}  finished .* lr=0.1$", shown, re.MULTILINE)
    assert re.search(r"^[0-9a-f]{10}  new .* lr=0.2$", shown, re.MULTILINE)
    assert sorted((tmp_path / "multirun").rglob("*")) == before
    shown = command("lr=0.1", "dry_run=true").output  # a single run's is one line
    assert re.fullmatch(r"[0-9a-f]{10}  finished  \S+/multirun/default/[0-9a-f]{10}\n", shown)
    assert sorted((tmp_path / "multirun").rglob("*")) == before
    shown = command("--multirun", "lr=0.1,0.2", "seeds=2", "dry_run=true").output
    assert "seeds=2: each is 2 runs; its key is that of seed 0" in shown
    search = command("--multirun", "sweep=search_head", "dry_run=true")
    assert search.code == 1
    assert "error: dry_run=true lists the jobs of a grid" in search.output


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("data=caltech101 data.root=/nowhere", "error: /nowhere/caltech101/"),
        ("model.name=test_vit data.crop=31", "error: The model cannot take images of 31 x 31"),
        ("model=torchvision model.name=alexnet", "error: The model cannot take images of 32 x 32"),
        ("optimizer=adam optimizer.betas=[0.5,2]", "error: "), ("device=mps", "error: device=mps"),
        ("start=abcdef1234", "error: "), ("augment.train=[]", "error: "),
        ("tracking.uri=/x", "error: tracking.uri=/x"),
        ("model=torchvision model.name=resnet18 model.weights=IMAGENET1K_V1",
         "would be fetched from https://download.pytorch.org/models/resnet18-f37072fd.pth first"),
    ],
)  # fmt: skip
def test_a_dry_run_is_refused_for_what_the_run_is(forks, tmp_path, words, told):
    """All that training looks at before work, and nothing is fetched."""
    own = [*DIGITS, f"output={tmp_path}", "dry_run=true", f"tracking.uri=sqlite:///{tmp_path}/x.db"]
    typed = {word.partition("=")[0] for word in words.split()}
    own = [word for word in own if word.partition("=")[0] not in typed]
    (ended,) = forks.run([*own, *words.split()], environment={"TORCH_HOME": str(tmp_path)})
    assert told in ended.output and ended.code == int(told.startswith("error")), ended.output
    assert not list(tmp_path.iterdir()) and "Traceback" not in ended.output


def test_cfg_job_shows_the_key(command):
    shown = command("--cfg", "job", small=[]).output
    assert re.search(r"^key: [0-9a-f]{10}$", shown, re.MULTILINE)
    assert re.search(r"^lr: 0.1$", shown, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lr=-1"], "error: lr=-1.0 is not allowed: the learning rate must be positive"),
        (["data.root=/nowhere", "data.download=false"], "error: /nowhere/caltech101"),
        (["model=alexnett"], "error: model=alexnett is no option: it is one of alexnet, "),
        (["optmizer=sgd"], "error: optmizer is no key of the config. Type optimizer=sgd."),
        (["freeze=null"], "error: freeze=null is no option: it is one of backbone, head, "),
    ],
)
def test_mistakes_are_one_message_and_leave_nothing(command, tmp_path, arguments, message):
    failed = command(*arguments, small=["tracking=none"])
    assert failed.code == 1
    assert message in failed.output
    assert "Traceback" not in failed.output
    assert len(failed.output.strip().splitlines()) == 1
    assert not (tmp_path / "multirun").exists() or not any((tmp_path / "multirun").iterdir())
