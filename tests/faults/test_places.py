"""Places that are no folders, cannot be written, or have no file locks: one message, or an answer.

Whole commands, as typed, each in a process of its own.
"""

import errno
import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from sklearn.datasets import load_digits

from caltech import predict
from caltech.data.pixels import enlarge
from caltech.errors import DiskError
from caltech.inference import command_line
from caltech.train import train
from tests.faults.test_damage import SMALL
from tests.faults.test_disk import small_disk
from tests.forks import TINY

FINISHED = "is finished already"


@pytest.fixture(scope="module")
def trained(forks, tmp_path_factory) -> Path:
    """A folder with a finished run in runs/default and caches in cache."""
    folder = tmp_path_factory.mktemp("trained")
    (ended,) = forks.run(typed(folder))
    assert ended.code == 0, ended.output
    return folder


@pytest.fixture
def copy(trained, tmp_path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "copy"))


def typed(folder: Path, *own: str) -> list[str]:
    places = [f"output={folder}/runs", f"cache={folder}/cache", "tracking=none"]
    return [*TINY, "num_epochs=1", "freeze=backbone", *places, *own]


def run_in(folder: Path) -> Path:
    (result,) = folder.glob("runs/default/*/result.json")
    return result.parent


def one_message(ended) -> None:
    assert ended.code == 1 and "Traceback" not in ended.output, ended.output
    assert sum(line.startswith("error: ") for line in ended.output.splitlines()) == 1, ended.output


@pytest.mark.parametrize("name", ["cache/features", "run"])
def test_a_file_where_a_folder_belongs(forks, copy, name):
    path = run_in(copy) if name == "run" else copy / name
    shutil.rmtree(path)
    path.write_text("a file")
    (ended,) = forks.run(typed(copy, "lr=0.3") if "cache" in name else typed(copy))
    one_message(ended)
    assert path.read_text() == "a file"


@pytest.mark.parametrize("name", ["run.lock", "train.log"])
def test_a_folder_where_a_file_belongs(forks, copy, name):
    path = run_in(copy) / name
    path.unlink(missing_ok=True)
    path.mkdir()
    (ended,) = forks.run(typed(copy))
    if ended.code:
        one_message(ended)
    else:
        assert FINISHED in ended.output and "Traceback" not in ended.output


def test_a_disk_that_is_read_only(forks, trained, tmp_path):
    """What is finished is answered by predict and can be exported elsewhere; training says why."""
    image = tmp_path / "digit.png"
    Image.fromarray(enlarge((load_digits().images[0] * 15).astype("uint8"), 32)).save(image)
    with small_disk(tmp_path / "disk", 100_000) as disk:
        shutil.copytree(trained, disk, dirs_exist_ok=True)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        own = [f"output={disk}/runs", "device=cpu"]
        predicted, exported = (
            forks.run(words, module=f"caltech.{module}")[0]
            for module, words in (
                ("predict", [str(image), *own]),
                ("export", ["format=safetensors", f"to={tmp_path}/to", *own]),
            )
        )
        assert (predicted.code, exported.code) == (0, 0), predicted.output + exported.output
        (refused,) = forks.run(
            ["format=safetensors", f"to={disk}/to", *own], module="caltech.export"
        )
        one_message(refused)
        for words in (typed(disk), typed(disk, "lr=0.3"), typed(disk, f"output={tmp_path}/runs")):
            (ended,) = forks.run(words)
            if ended.code:
                one_message(ended)
        assert ended.code == 0, ended.output  # the caches are complete: they need only be read


def test_a_file_system_without_locks_is_told(configure, monkeypatch):
    """ENOLCK, as NFS without its lock daemon gives it."""

    def refusing(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refusing)
    with pytest.raises(DiskError, match=r"\.lock cannot be written: .*has no file locks"):
        train(configure(*SMALL))


def test_what_is_another_user_s_is_told(tmp_path, capfd):
    (tmp_path / "run").mkdir(mode=0o700)
    child = os.fork()
    if not child:
        os.chmod(tmp_path, 0o700)  # noqa: PTH101
        os.seteuid(65534)
        words = [os.devnull, f"run={tmp_path}/run", f"output={tmp_path}"]
        sys.argv = ["caltech.predict", *words]
        try:
            command_line.start(predict.main)
        except SystemExit as ended:
            sys.stderr.flush()
            os._exit(ended.code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    told = capfd.readouterr().err
    assert code != 0 and told.startswith("error: ") and "Traceback" not in told, told
