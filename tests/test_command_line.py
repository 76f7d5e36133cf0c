"""The command line in real processes: what a user types and what comes back."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY


@pytest.fixture
def command(tree: Path, cache: Path, tmp_path: Path):
    """Run `python -m caltech.train` with outputs in tmp_path, on the generated data."""

    def run(*arguments: str) -> subprocess.CompletedProcess:
        own = [f"output={tmp_path / 'multirun'}", "tracking=none", "device=cpu"]
        small = ["data.resize=72", "data.crop=64", "batch_size=16", "num_epochs=2"]
        if any(argument.startswith("data=") for argument in arguments):
            small = []
        flags = {"--help", "--cfg", "job", "--resolve"}
        if flags & set(arguments):
            own, small = [], []
        environment = os.environ | {
            "CALTECH101_ROOT": str(tree),
            "CALTECH_CACHE": str(cache),
            "PYTHONWARNINGS": "default",
        }
        return subprocess.run(
            [sys.executable, "-m", "caltech.train", *own, *small, *arguments],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120,
        )  # fmt: skip

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
    directories = [p for p in (tmp_path / "multirun" / "default").iterdir() if p.is_dir()]
    assert len(directories) == 3
    for directory in directories:
        result = json.loads((directory / "result.json").read_text())
        assert result["key"] == directory.name
        assert f"key: {directory.name}" in (directory / "config.yaml").read_text()


def test_help_is_readable(command):
    shown = command("--help").stdout
    for line in (
        "model: alexnet, efficientnet_lite0",
        "freeze: backbone, head, linear, none",
        "lr: 0.1",
    ):
        assert line in shown
    assert "python -m caltech.train --multirun lr=1e-1,1e-2,1e-3" in shown
    assert max(map(len, shown.splitlines())) < 200


def test_cfg_job_shows_the_key(command):
    shown = command("--cfg", "job", "--resolve").stdout
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


def test_readme_s_commands_compose(command):
    """Everything to be pasted from the README at least composes; the tests above run such lines."""
    blocks = re.findall(r"```sh\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    trained = [line for line in lines if "python -m caltech.train" in line]
    assert len(trained) >= 4
    for line in trained:
        arguments = line.split("python -m caltech.train", 1)[1].split("#")[0].split()
        if "--multirun" in arguments:
            arguments.remove("--multirun")
            arguments = [a.split(",")[0] for a in arguments]
        shown = command(*arguments, "--cfg", "job")
        assert shown.returncode == 0, (line, shown.stderr)
