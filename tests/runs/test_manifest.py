"""Files of another run, or edited ones, are told from the run's own."""

import shutil

import pytest

from caltech.errors import DamagedError
from caltech.runs import manifest
from caltech.runs.directory import RunDirectory


@pytest.fixture
def directory(tmp_path) -> RunDirectory:
    directory = RunDirectory(tmp_path)
    for path in (directory.config, directory.weights("best"), directory.predictions("last")):
        path.write_text(path.name)
    manifest.write(directory, "0123456789", b"result")
    directory.result.write_bytes(b"result")
    return directory


def test_the_run_s_own_files_fit(directory):
    names = ["config.yaml", "result.json", directory.weights("best"), "predictions_last.npz"]
    manifest.verify(directory, names)


@pytest.mark.parametrize("name", ["config.yaml", "best.safetensors", "result.json", "other"])
def test_one_that_does_not_is_named(directory, name):
    (directory.path / name).write_text("another")
    with pytest.raises(DamagedError, match=rf"{name} is not the file that run 0123456789 wrote"):
        manifest.verify(directory, ["predictions_last.npz", name])


def test_a_manifest_stays_with_its_run(directory, tmp_path):
    shutil.copytree(tmp_path, tmp_path / "moved")
    manifest.verify(RunDirectory(tmp_path / "moved"), ["config.yaml"])
