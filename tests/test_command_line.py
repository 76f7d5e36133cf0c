"""The command line in real processes: what a user types and what comes back."""

import json
import os
import re
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import joblib
import pytest
from hydra import compose, initialize_config_dir

from caltech.config import register
from caltech.settings import CONF, validate
from tests.conftest import REPOSITORY


@pytest.fixture
def start(tree: Path, cache: Path, tmp_path: Path):
    """Start `python -m caltech.train` with outputs in tmp_path, on the generated data."""

    def started(*arguments: str, **environment: str) -> subprocess.Popen:
        own = [f"output={tmp_path / 'multirun'}", "tracking=none", "device=cpu"]
        small = ["data.resize=72", "data.crop=64", "batch_size=16", "num_epochs=2"]
        if {"--help", "--cfg"} & set(arguments):
            own, small = [], []
        places = {"CALTECH101_ROOT": str(tree), "CALTECH_CACHE": str(cache)}
        return subprocess.Popen(
            [sys.executable, "-m", "caltech.train", *own, *small, *arguments],
            cwd=tmp_path, env=os.environ | places | {"PYTHONWARNINGS": "default"} | environment,
            # A background job of a shell ignores SIGINT, and its children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    return started


@pytest.fixture
def command(start):
    """Run it to its end."""

    def run(*arguments: str) -> subprocess.CompletedProcess:
        process = start(*arguments)
        output, errors = process.communicate(timeout=120)
        return subprocess.CompletedProcess(arguments, process.returncode, output, errors)

    return run


def test_a_run_a_sweep_over_it_and_the_answer_of_what_is_finished(command, tmp_path):
    single = command("lr=0.1")
    assert single.returncode == 0, single.stderr
    assert "epoch 2/2" in single.stdout
    assert "Warning" not in single.stderr
    assert "it/s" not in single.stderr and "image/s" not in single.stderr  # no bar without terminal

    sweep = command("--multirun", "lr=1e-1,1e-2,1e-3")
    assert sweep.returncode == 0, sweep.stderr
    assert sweep.stdout.count("epoch 2/2") == 2
    assert sweep.stdout.count("is finished already") == 1
    results = list((tmp_path / "multirun" / "default").glob("*/result.json"))
    assert len(results) == 3
    for path in results:
        directory, result = path.parent, json.loads(path.read_text())
        assert result["key"] == directory.name
        kept = (directory / "config.yaml").read_text()
        assert re.search(rf"^key: '?{directory.name}'?$", kept, re.MULTILINE)


def test_a_failed_job_ends_neither_the_sweep_nor_silently(command, tmp_path):
    sweep = command("--multirun", "lr=0.1,-1,1e-2")
    assert sweep.returncode == 1
    assert re.search(r"FAILED .*lr=-1 .*\n  InputError: lr=-1.0 is not allowed", sweep.stdout)
    table = sweep.stdout[sweep.stdout.index("key  ") :].splitlines()
    assert [line.split()[1] for line in table[1:]] == ["finished", "failed", "finished"]
    assert sum(" best " in line for line in table) == 1
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
def test_jobs_in_other_processes(start, tmp_path, monkeypatch, launcher, threads):
    """They find code and config, divide the threads, and report to the one who started them."""
    if launcher == ["hydra/launcher=ray"]:
        pytest.importorskip("hydra_plugins.hydra_ray_launcher", reason="needs the extra ray")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    process = start("--multirun", *launcher, "lr=0.1,-1")
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 1, errors
    assert "error: lr=-1.0 is not allowed" in errors
    table = output[output.index("key  ") :].splitlines()
    assert sorted(line.split()[1] for line in table[1:]) == ["failed", "finished"]
    (result,) = (tmp_path / "multirun" / "default").glob("*/result.json")
    provenance = json.loads((result.parent / "provenance.json").read_text())
    assert threads in (None, provenance["environment"]["threads"])


def test_seeds_are_runs_of_their_own_and_their_mean_is_the_objective(command, tmp_path):
    repeated = command("--multirun", "lr=0.1", "seeds=3")
    assert repeated.returncode == 0, repeated.stderr
    results = [
        json.loads(path.read_text())
        for path in (tmp_path / "multirun" / "default").glob("*/result.json")
    ]
    assert len(results) == 3
    mean = sum(result["best"]["val/accuracy"] for result in results) / 3
    assert f"{mean:.4f} best" in repeated.stdout
    alone = command("lr=0.1", "seed=2")
    assert "is finished already" in alone.stdout


SLOW = ["model=resnet18", "model.weights=null", "freeze=none", "lr=0.01", "num_epochs=3"]


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)]
)
def test_a_signal_ends_a_run_and_the_same_command_goes_on(start, number, code):
    process = start(*SLOW)
    for line in process.stdout:
        if line.startswith("epoch 1/3"):
            break
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    output, _ = start(*SLOW).communicate(timeout=120)
    assert re.search(r"resuming .* after epoch [12]\n", output)
    assert "epoch 3/3" in output and "epoch 1/3" not in output


def test_a_killed_search_goes_on_to_the_same_trials(start, tmp_path):
    """Without a storage the seeded sampler retraces its path over answers of finished runs."""
    search = ["--multirun", "sweep=search_head", "hydra.sweeper.n_trials=4"]

    def proposed(output: str) -> list[str]:
        return re.findall(r"lr=\S+ weight_decay=\S+ gamma=\S+ step_size=\d+ ", output)

    expected, _ = start(*search, f"output={tmp_path / 'undisturbed'}").communicate(timeout=120)
    process = start(*search)
    for line in process.stdout:
        if "#2" in line:  # two trials are finished, the third begins
            break
    process.kill()
    process.communicate()
    output, errors = start(*search).communicate(timeout=120)
    assert output.count("is finished already") == 2, errors
    assert proposed(output) == proposed(expected)
    study = tmp_path / "multirun" / "search_head"
    assert len(list(study.glob("*/result.json"))) == 4


@pytest.mark.slow  # tests/faults/test_processes.py has eight of them
def test_processes_share_one_build_of_the_caches(start, tmp_path):
    both = [start(f"lr={lr}", CALTECH_CACHE=str(tmp_path / "cache")) for lr in (0.1, 0.2)]
    outputs = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    for once in ("decoding 60 images once", "computing the frozen part's outputs for 60 images"):
        assert sum(output.count(once) for output in outputs) == 1


def test_help_is_readable(command):
    shown = command("--help").stdout
    for line in (
        "model: alexnet, efficientnet_lite0, efficientnet_lite2",
        "freeze: backbone, head, linear, none",
        "lr: 0.1",
    ):
        assert line in shown
    assert "python -m caltech.train --multirun lr=1e-1,1e-2,1e-3" in shown
    assert max(map(len, shown.splitlines())) < 200


def test_a_dry_run_tells_and_does_nothing(command, tmp_path):
    command("num_epochs=1", "lr=0.1")
    before = sorted((tmp_path / "multirun").rglob("*"))
    shown = command("num_epochs=1", "--multirun", "lr=0.1,0.2", "dry_run=true")
    assert re.search(r"^[0-9a-f]{10}  finished .* lr=0.1$", shown.stdout, re.MULTILINE)
    assert re.search(r"^[0-9a-f]{10}  new .* lr=0.2$", shown.stdout, re.MULTILINE)
    assert sorted((tmp_path / "multirun").rglob("*")) == before
    search = command("--multirun", "sweep=search_head", "dry_run=true")
    assert search.returncode == 1
    assert search.stderr.startswith("error: dry_run=true lists the jobs of a grid")


def test_cfg_job_shows_the_key(command):
    shown = command("--cfg", "job").stdout
    assert re.search(r"^key: [0-9a-f]{10}$", shown, re.MULTILINE)
    assert re.search(r"^lr: 0.1$", shown, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lr=-1"], "error: lr=-1.0 is not allowed: the learning rate must be positive"),
        (["data.root=/nowhere", "data.download=false"], "error: /nowhere/caltech101"),
        (["model=alexnett"], "Could not find 'model/alexnett'"),
        (["optmizer=sgd"], "optmizer"),
    ],
)
def test_mistakes_are_one_message_and_leave_nothing(command, tmp_path, arguments, message):
    failed = command(*arguments)
    assert failed.returncode != 0
    assert message in failed.stderr
    assert "Traceback" not in failed.stderr
    assert len(failed.stderr.strip().splitlines()) < 20
    assert not (tmp_path / "multirun").exists() or not any((tmp_path / "multirun").iterdir())


def test_readme_s_commands_compose():
    """Everything to be pasted from the README at least composes; the tests above run such lines."""
    blocks = re.findall(r"```sh\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    trained = [line for line in lines if "python -m caltech.train" in line]
    assert len(trained) >= 8
    register()
    for line in trained:
        if "ray_cluster" in line and find_spec("hydra_plugins.hydra_ray_launcher") is None:
            continue  # an extra: pip install -e '.[ray]'
        words = line.split("python -m caltech.train", 1)[1].split("#")[0].split()
        arguments = [word.split(",")[0] for word in words if not word.startswith("--")]
        with initialize_config_dir(config_dir=str(CONF)):
            validate(compose("train", arguments))
