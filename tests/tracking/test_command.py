"""`python -m caltech.tracking`: a store gets the runs that it lacks, and the exit code is true."""

import json
import shutil
from pathlib import Path

import pytest

from caltech.errors import InputError
from caltech.flags import with_study
from caltech.runs.directory import RunDirectory
from caltech.train import train
from tests.observers import TINY


@pytest.mark.parametrize(
    ("typed", "taken"),
    [
        (["course"], ["study=course"]),
        (["course", "output=x"], ["study=course", "output=x"]),
        (["study", "course"], ["study", "course"]),
        (["--cfg", "job"], ["--cfg", "job"]),
        (["output=x"], ["output=x"]),
    ],
)
def test_a_study_is_named_by_a_word_alone_too(typed, taken):
    assert with_study(typed) == taken


def test_a_second_study_is_not_dropped():
    with pytest.raises(InputError, match=r"one and study=two cannot both be\. Type study=one,two"):
        with_study(["one", "study=two"])


def test_nobody_is_told_by_tracking_none(forks, tmp_path):
    (tmp_path / "multirun" / "mine" / "x").mkdir(parents=True)
    (tmp_path / "multirun" / "mine" / "x" / "config.yaml").touch()
    words = ["mine", "tracking=none", f"output={tmp_path}/multirun"]
    (ended,) = forks.run(words, module="caltech.tracking")
    assert (ended.code, ended.output.count("tells nobody")) == (1, 1)


def test_a_study_is_told_to_a_store_that_lacks_it(forks, configure, store, tmp_path):
    first, second = (configure(*TINY, rate) for rate in ("lr=0.41", "lr=0.42"))
    for cfg in (first, second):
        train(cfg)  # without a tracker
    places = [f"output={first.output}", *store.places[1:]]

    def command(*arguments: str) -> tuple[int, str]:
        (ended,) = forks.run([*places, *arguments], module="caltech.tracking")
        return ended.code, ended.output

    assert command() == (0, "default: 2 told now\n")
    assert command() == (0, "default: 2 known already\n")
    shutil.copytree(Path(first.output) / "default", Path(first.output) / "copy")
    assert command("study=copy") == (0, "copy: 2 told now\n")  # runs of their own
    assert command() == (0, "default: 2 known already\n")
    assert [run.info.status for run in store.runs(first)] == ["FINISHED"] * 2
    assert {run.data.tags["study"] for run in store.runs(first)} == {"default", "copy"}
    code, said = command("study=nothing")
    assert code == 1 and "Studies in" in said and "default" in said
    assert command("tracking.uri=http://127.0.0.1:9")[0] == 1
    assert command("study=../x")[0] == 1

    damaged = RunDirectory(second.directory)
    weights = damaged.weights("best")
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    damaged.mlflow.unlink()
    other = f"tracking.experiment={tmp_path.name}"
    code, said = command(other)
    assert code == 1
    assert "1 told now" in said and "1 not told" in said
    assert str(weights) in said
    assert json.loads(damaged.result.read_text())["key"] == second.key
