"""A full disk: a small tmpfs where a test may mount one, else a limit on the size of files."""

import contextlib
import os
import resource
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from caltech import files
from caltech.cache import CachedArray
from caltech.config import build
from caltech.data import pixels
from caltech.errors import DiskError
from caltech.runs import checkpoint
from caltech.train import train
from caltech.training import features
from tests.faults.test_damage import SMALL
from tests.observers import KEY

FULL = "No space left|no space is left|File too large|disk is full"


@contextlib.contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[Path]:
    folder.mkdir()
    options = f"size={kilobytes}k"
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no right to mount a tmpfs here; the tests with a file size limit do the same")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def make_room(disk: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=200m", str(disk)], check=True)


@contextlib.contextmanager
def small_files(most: int) -> Iterator[None]:
    """No file of this process may grow beyond `most` bytes: writing fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def decoded(tree: Path, resize: int, cache: Path) -> CachedArray:
    files = [f"Faces/image_{index:04d}.jpg" for index in range(1, 13)]
    images = tree / "caltech101" / "101_ObjectCategories"
    return pixels.cached(pixels.of_files(images, files, resize), "x", cache)


def test_no_room_for_pixels_is_told_before_any_work(tree, tmp_path, monkeypatch):
    """Hundreds of megabytes on a disk of 400 kB: no image is decoded first."""
    monkeypatch.setattr(pixels, "decode", lambda *_: pytest.fail("decoded"))
    with small_disk(tmp_path / "disk", 400) as disk:
        array = decoded(tree, 4672, disk)
        with pytest.raises(DiskError, match=rf"{array.path} .*needs 786 MB.* kB are free"):
            array.read()
        assert not sum(path.stat().st_size for path in disk.rglob("*") if path.is_file())


def test_pixels_go_on_where_the_disk_was_full(tree, tmp_path, monkeypatch):
    """A memory map would end the process by SIGBUS."""
    monkeypatch.setattr(pixels, "BLOCK_BYTES", 2 * 64 * 64 * 3)
    expected = decoded(tree, 64, tmp_path / "other").read()
    array, decode, count = decoded(tree, 64, tmp_path), pixels.decode, []
    monkeypatch.setattr(pixels, "decode", lambda *given: count.append(1) or decode(*given))
    with small_files(70_000), pytest.raises(DiskError, match=rf"{array.path} .*File too large"):
        array.read()
    assert len(count) == 6  # 4 fit
    assert torch.equal(array.read(), expected)
    assert len(count) == 6 + 8
    assert {path.suffix for path in array.path.parent.iterdir()} == {".bin", ".json", ".lock"}


@pytest.mark.parametrize("limit", ["tmpfs", "file size"])
def test_features_go_on_where_the_disk_was_full(configure, tmp_path, monkeypatch, limit):
    monkeypatch.setattr(features, "ROWS_PER_BLOCK", 16)
    monkeypatch.setattr(files, "require_room", lambda *_: None)  # it was there at first
    cfg = configure("model=alexnet", "model.weights=null")  # 37 kB of features an image
    model = build(cfg.model, num_classes=5)[:1].eval()
    parts = (model, build(cfg.data), build(cfg.augment), build(cfg.precision), torch.device("cpu"))
    expected = features.extract(*parts, tmp_path / "other").views["plain"]
    row = expected[0].nbytes
    computed = []
    model.register_forward_hook(lambda module, given, values: computed.append(len(values)))

    def half_full() -> contextlib.AbstractContextManager:
        if limit == "file size":
            return small_files(40 * row)
        return contextlib.nullcontext()

    # Pages of 4 kB: the rows, the notes, folders.
    disk = small_disk(tmp_path / "disk", 16 + 40 * row // 1024)
    with disk if limit == "tmpfs" else contextlib.nullcontext(tmp_path / "disk") as folder:
        with half_full(), pytest.raises(DiskError, match=rf"{folder}/features/\w+\.bin .*needs"):
            features.extract(*parts, folder)
        if limit == "tmpfs":
            make_room(folder)
        first = sum(computed)
        found = features.extract(*parts, folder).views["plain"]
        assert torch.equal(found, expected)
        assert sum(computed) - first <= 60 - 16  # what was good is not computed again


@pytest.mark.parametrize("limit", ["tmpfs", "file size"])
def test_a_checkpoint_that_has_no_room_leaves_the_one_before(tmp_path, limit):
    def saved(path: Path, size: int, value: float) -> None:
        layer = nn.Linear(size, 100).requires_grad_(False)
        checkpoint.save(path, KEY, {"layer": layer}, {"value": value})

    disk = small_disk(tmp_path / "disk", 300)
    with disk if limit == "tmpfs" else contextlib.nullcontext(tmp_path) as folder:
        path = folder / "checkpoint.pt"
        for value in (1.0, 2.0):
            saved(path, 200, value)  # 80 kB each
        with (
            little_room(limit),
            pytest.raises(DiskError, match=rf"{path} .*({FULL}).*6\d\d kB"),
        ):
            saved(path, 1500, 3.0)
        left = {p.name for p in folder.iterdir()} - {"disk"}
        assert left <= {"checkpoint.pt", "previous_checkpoint.pt"}
        layer = nn.Linear(200, 100)
        assert checkpoint.load(path, KEY, {"layer": layer}) == {"value": 2.0}
        with little_room(limit), pytest.raises(DiskError, match=rf"{FULL}"):
            checkpoint.save_weights(folder / "best.safetensors", nn.Linear(1500, 100))
        assert not (folder / "best.safetensors").exists()


def little_room(limit: str) -> contextlib.AbstractContextManager:
    return small_files(150_000) if limit == "file size" else contextlib.nullcontext()


@pytest.mark.slow
@pytest.mark.parametrize("full", ["runs", "mlflow"])
def test_a_run_on_a_full_disk_is_one_error_and_goes_on_when_there_is_room(
    configure, tmp_path, full
):
    """With MLflow's store on it, or the runs: in every case the result is as on a large disk."""
    common = [*SMALL, "freeze=none", "num_epochs=3", "tracking=mlflow"]
    with small_disk(tmp_path / "disk", 24_000) as disk:
        store = disk if full == "mlflow" else tmp_path
        common += [f"tracking.uri=sqlite:///{store}/mlflow.db"]
        common += [f"tracking.artifacts={store}/artifacts"]
        runs = disk if full == "runs" else tmp_path
        cfg = configure(*common, f"output={runs}/multirun")
        expected = configure(*SMALL, "freeze=none", "num_epochs=3", "study=expected")
        train(expected)
        filler = disk / "filler"
        if full == "mlflow":
            build_store(cfg)
        fill(filler, leave=6_000_000 if full == "runs" else 0)
        with pytest.raises(DiskError, match=rf"{runs}.*({FULL})"):
            train(cfg)
        filler.unlink()
        train(cfg)
        for name in ("result.json", "last.safetensors", "best.safetensors"):
            found = (Path(cfg.directory) / name).read_bytes()
            assert found == (Path(expected.directory) / name).read_bytes()
        from mlflow import MlflowClient

        client = MlflowClient(cfg.tracking.uri)
        experiment = client.get_experiment_by_name("caltech")
        found = client.search_runs([experiment.experiment_id])
        assert [run.info.status for run in found] == ["FINISHED"]


def build_store(cfg) -> None:
    from caltech.tracking.tracker import MlflowRun

    tracking = cfg.tracking
    tracker = MlflowRun(tracking.uri, tracking.experiment, tracking.artifacts)
    tracker.open(Path(cfg.output), is_needed=True)


def fill(path: Path, leave: int) -> None:
    with path.open("wb") as file, contextlib.suppress(OSError):
        file.write(b"\0" * max(0, shutil.disk_usage(path.parent).free - leave))
        file.flush()
        os.fsync(file.fileno())
