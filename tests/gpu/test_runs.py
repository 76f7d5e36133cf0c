"""Whole runs on a GPU: gone on with, on a student's card, exported, and several at a time."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from caltech import export
from caltech.errors import OutOfMemoryError
from caltech.runs.result import Result
from caltech.train import train
from caltech.training import epoch, memory
from tests.gpu.test_gpu import DIGITS, FULL, HEAD
from tests.observers import Doing, terminate

pytestmark = pytest.mark.gpu

# Those that begin from another run, and those whose splits are of Caltech-101 alone, are left out.
EXPERIMENTS = ["beyond/lite0_head", "beyond/lite2_head", "beyond/resnet50",
               "depth/lite0 freeze.at=5", "depth/lite0_scratch freeze.at=2",
               "freeze/convolutional", "freeze/fully_connected", "scratch/base", "scratch/best",
               "scratch/model3", "transfer/model3"]  # fmt: skip
CARD = 6 << 30  # bytes of a student's


def test_resumed_without_deterministic_it_sees_the_same_images_in_the_same_order(
    configure, device, monkeypatch
):
    seen = []

    def noting(learner, batches, indices, at_a_time):
        seen.append(indices.tolist())
        return usual(learner, batches, indices, at_a_time)

    usual = epoch.step
    monkeypatch.setattr(epoch, "step", noting)
    own = [*DIGITS, *FULL, "num_epochs=2", "augment=flip_crop", f"device={device.type}"]
    train(configure(*own, "study=expected"))
    expected = seen.copy()
    seen.clear()
    with pytest.raises(SystemExit):
        train(configure(*own), observer=Doing(terminate, at_step=20))  # of 30
    assert len(seen) == 20
    train(configure(*own))
    assert seen == expected


@pytest.fixture
def small_card(cuda, monkeypatch):
    share = CARD / torch.cuda.get_device_properties(cuda).total_memory
    monkeypatch.setattr(memory, "SHARE", memory.SHARE * share)
    torch.cuda.set_per_process_memory_fraction(share)
    yield
    memory._pixels.clear()
    torch.cuda.set_per_process_memory_fraction(1.0)


NAMED: list[str] = []


@pytest.mark.usefixtures("small_card")
@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_on_a_student_s_card_it_runs_or_names_a_batch_that_does(configure, tell, experiment):
    """Two epochs on digits, enlarged to what the experiment's network takes."""
    own = f"experiment={experiment} data=digits num_epochs=2 device=cuda".split()
    own += [] if "lite2" in experiment else ["data.resize=256", "data.crop=224"]
    own += ["model.weights=null"] if configure(*own).model.get("name") else []
    said = ""
    try:
        train(configure(*own))
    except OutOfMemoryError as error:
        said = str(error)  # not the error, which holds on to what was on the card
    if said:
        named = re.search(r"Type (micro_batch=\d+)", said)
        assert named, said
        tell(named[1])
        NAMED.append(named[1])
        train(configure(*own, named[1]))


def test_the_student_s_card_was_too_small_for_one_at_least(cuda):
    assert NAMED


@pytest.mark.parametrize("form", ["safetensors", "onnx"])
@pytest.mark.parametrize("options", [HEAD, FULL], ids=["head", "full"])
@pytest.mark.parametrize("precision", ["fp32", "amp", "bf16"])
def test_a_run_of_the_device_is_exported(configure, device, tmp_path, form, options, precision):
    """The export compares its answers with those of the run's test.

    At a small rate, with which logits are small: rounding is a share of them.
    """
    own = [*DIGITS, *options, "lr=1e-4", f"precision={precision}", f"device={device.type}"]
    train(cfg := configure(*own))
    words = [f"format={form}", f"to={tmp_path / 'model'}", f"run={cfg.directory}"]
    assert export.main([*words, f"device={device.type}"]) == 0


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_sweep_in_processes_of_its_own(configure, device, tmp_path, tell, jobs):
    """Two share the one card; each gives what a run of its own gives."""
    own = [*DIGITS, *HEAD, f"device={device.type}", "deterministic=true", "tracking=none"]
    own += [f"cache={tmp_path / 'cache'}"]
    typed = [*own, f"output={tmp_path / 'swept'}", "lr=0.02,0.05,0.1"]
    parallel = ["hydra/launcher=parallel", f"hydra.launcher.n_jobs={jobs}"]
    command = [sys.executable, "-m", "caltech.train", "--multirun", *typed, *parallel]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = {}
    for path in (tmp_path / "swept").glob("default/*/result.json"):
        rate = re.search(r"^lr: (.*)$", (path.parent / "config.yaml").read_text(), re.MULTILINE)
        found[float(rate[1])] = path.read_text()
    assert sorted(found) == [0.02, 0.05, 0.1]
    cfg = configure(*own, "lr=0.05")
    assert isinstance(train(cfg), Result)
    assert found[0.05] == Path(cfg.directory, "result.json").read_text()
