"""Arrays on disk: one suite on both kinds, decoded pixels and a frozen part's outputs."""

import dataclasses
import logging
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from caltech import cache as cache_module
from caltech import files
from caltech.cache import CachedArray
from caltech.data import pixels
from caltech.data.augment import Views
from caltech.data.sources import caltech101
from caltech.errors import DamagedError, DiskError
from caltech.files import read_sealed_json
from caltech.training import features
from caltech.training.precision import Precision
from tests.faults.test_damage import harmed

ROWS, BLOCK = 60, 16


class Stopped(BaseException):
    """As a kill: nothing catches it."""


class Frozen(nn.Module):
    """Gives a type that numpy does not know."""

    def forward(self, images: Tensor) -> Tensor:
        return images.to(torch.bfloat16)[:, :2]


@dataclasses.dataclass
class Kind:
    """An array of ROWS rows in blocks of BLOCK, seen from outside."""

    read: Callable[[Path], Tensor]  # with the cache's folder
    computed: list[int]  # the rows, as they are computed
    stops_at: int | None = None  # raises at that row

    def note(self, row: int) -> None:
        if row == self.stops_at:
            raise Stopped
        self.computed.append(row)


@pytest.fixture
def decoded(tree, tmp_path, monkeypatch) -> Kind:
    images = tree / "caltech101" / "101_ObjectCategories"
    names = caltech101(str(tree), False, 40, 32, None, None, str(tmp_path / "other")).files
    monkeypatch.setattr(pixels, "BLOCK_BYTES", BLOCK * 32 * 32 * 3)
    kind = Kind(
        lambda cache: pixels.cached(pixels.of_files(images, list(names), 32), "x", cache).read(), []
    )
    decode = pixels.decode

    def noting(path: Path, *how) -> np.ndarray:
        kind.note(names.index(path.relative_to(images).as_posix()))
        return decode(path, *how)

    monkeypatch.setattr(pixels, "decode", noting)
    return kind


@pytest.fixture
def frozen_outputs(tree, cache, monkeypatch) -> Kind:
    data = caltech101(str(tree), False, 40, 32, None, None, str(cache))
    parts = (Frozen(), data, Views(["plain"], ["plain"]))
    parts = (*parts, Precision("float32", False), torch.device("cpu"))
    monkeypatch.setattr(features, "ROWS_PER_BLOCK", BLOCK)
    monkeypatch.setitem(features.BATCH, "cpu", 4)
    kind = Kind(lambda cache: features.extract(*parts, cache).views["plain"], [])
    crop = features.center_crop

    def noting(images: Tensor, indices: Tensor, size: int) -> Tensor:
        for row in indices.tolist():
            kind.note(row)
        return crop(images, indices, size)

    monkeypatch.setattr(features, "center_crop", noting)
    return kind


@pytest.fixture(params=["decoded", "frozen_outputs"])
def kind(request) -> Kind:
    return request.getfixturevalue(request.param)


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "cache"


def only(folder: Path, pattern: str) -> Path:
    (path,) = folder.rglob(pattern)
    return path


def flip(path: Path, share: float) -> None:
    """Change the byte at that share of the file, in place."""
    place = int(share * path.stat().st_size)
    with path.open("rb+") as file:
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([255 - byte]))


def test_it_is_computed_once(kind, folder):
    first = kind.read(folder)
    assert torch.equal(kind.read(folder), first)
    assert sorted(kind.computed) == list(range(ROWS))


def test_several_at_once_compute_it_once(kind, folder):
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(kind.read, [folder] * 4))
    assert all(torch.equal(values, found[0]) for values in found)
    assert sorted(kind.computed) == list(range(ROWS))


@pytest.mark.parametrize(("stops_at", "kept"), [(3, 0), (40, 32), (59, 48)])
def test_what_was_killed_goes_on_at_the_first_missing_block(kind, folder, stops_at, kept):
    expected = kind.read(folder.with_name("expected"))
    kind.stops_at = stops_at
    with pytest.raises(Stopped):
        kind.read(folder)
    kind.computed, kind.stops_at = [], None
    assert torch.equal(kind.read(folder), expected)
    assert sorted(kind.computed) == list(range(kept, ROWS))
    assert not list(folder.rglob("*.partial"))


def test_going_on_writes_to_the_same_file(kind, folder):
    """A copy would need the room twice, where the disk may have been full."""
    kind.stops_at = 40
    with pytest.raises(Stopped):
        kind.read(folder)
    before, kind.stops_at = only(folder, "*.bin").stat().st_ino, None
    kind.read(folder)
    assert only(folder, "*.bin").stat().st_ino == before


@pytest.mark.parametrize("number", range(9))
@pytest.mark.parametrize("which", ["*.bin", "*.json"])
def test_damage_is_named_and_computed_again(kind, folder, caplog, which, number):
    expected = kind.read(folder).clone()
    harmed(only(folder, which), number)
    with caplog.at_level(logging.INFO):
        assert torch.equal(kind.read(folder), expected)
    assert only(folder, which).stem in caplog.text
    kind.computed = []
    assert torch.equal(kind.read(folder), expected) and not kind.computed


def test_only_the_damaged_blocks_are_computed_again(kind, folder, caplog):
    expected = kind.read(folder).clone()
    flip(only(folder, "*.bin"), share=20 / ROWS)
    flip(only(folder, "*.bin"), share=59 / ROWS)
    kind.computed = []
    assert torch.equal(kind.read(folder), expected)
    assert sorted(kind.computed) == [*range(16, 32), *range(48, ROWS)]
    assert "blocks 1, 3 do not match" in caplog.text


def test_a_repair_that_was_killed_goes_on(kind, folder):
    expected = kind.read(folder).clone()
    flip(only(folder, "*.bin"), share=20 / ROWS)
    flip(only(folder, "*.bin"), share=59 / ROWS)
    kind.stops_at = 50
    with pytest.raises(Stopped):
        kind.read(folder)
    kind.computed, kind.stops_at = [], None
    assert torch.equal(kind.read(folder), expected)
    assert sorted(kind.computed) == list(range(48, ROWS))


@pytest.mark.parametrize("lost", ["a block", "the note"])
def test_who_has_the_old_file_mapped_keeps_it(kind, folder, lost):
    """Cutting that file would end the process that has mapped it (SIGBUS)."""
    expected, mapped = kind.read(folder).clone(), kind.read(folder)
    path = only(folder, "*.bin")
    if lost == "a block":
        flip(path, share=20 / ROWS)
    else:
        only(folder, "*.json").unlink()
    before = path.stat().st_ino
    assert torch.equal(kind.read(folder), expected)
    assert path.stat().st_ino != before
    assert torch.equal(mapped[32:], expected[32:])


def test_a_change_of_the_values_does_not_reach_the_file(kind, folder):
    values = kind.read(folder)
    expected = values.clone()
    values += 1
    kind.computed = []
    assert torch.equal(kind.read(folder), expected) and not kind.computed


def test_a_lost_note_is_told(kind, folder, caplog):
    expected = kind.read(folder).clone()
    only(folder, "*.json").unlink()
    assert torch.equal(kind.read(folder), expected)
    assert "checksums are missing" in caplog.text


def test_the_note_says_what_the_file_is(kind, folder):
    """Caches of earlier versions are found by it: it must stay as it is."""
    values = kind.read(folder)
    note, data = read_sealed_json(only(folder, "*.json")), only(folder, "*.bin").read_bytes()
    assert list(note) == ["row_bytes", "shape", "dtype", "blocks"]
    assert (note["row_bytes"], note["shape"]) == (values[0].nbytes, list(values.shape))
    assert note["dtype"] == str(values.dtype).removeprefix("torch.")
    assert [rows for rows, _ in note["blocks"]] == [16, 16, 16, 12]
    block = data[16 * note["row_bytes"] : 32 * note["row_bytes"]]
    assert note["blocks"][1][1] == files.sum_of(block)


def test_a_disk_that_forgets_is_told(kind, folder, monkeypatch):
    monkeypatch.setattr(files, "write_at", lambda *_: None)
    with pytest.raises(DamagedError, match=rf"{folder}.*\.bin .*look after this disk"):
        kind.read(folder)


def counting(path: Path, row_bytes: int = 0) -> CachedArray:
    def compute(rows: range, done: Callable[[int], object]) -> Tensor:
        done(len(rows))
        return torch.tensor(rows)

    return CachedArray(path, 10, 4, compute, "counting %s", row_bytes)


def test_ensure_computes_what_is_missing_and_says_so(tmp_path):
    array = counting(tmp_path / "x.bin")
    assert (array.ensure(), array.ensure()) == (True, False)
    assert array.read().tolist() == list(range(10))
    with array.path.open("rb+") as file:
        file.truncate(30)
    assert array.ensure() and array.read().tolist() == list(range(10))


def test_what_is_discarded_is_computed_again(tmp_path):
    array = counting(tmp_path / "x.bin")
    array.ensure()
    array.discard()
    assert [path.name for path in tmp_path.iterdir()] == ["x.lock"]
    assert array.ensure()


def test_who_waits_for_another_process_says_so_and_how_far_that_is(tmp_path, monkeypatch):
    array = counting(tmp_path / "x.bin")
    monkeypatch.setattr(cache_module, "WAIT_SECONDS", 0.01)
    held, told = files.acquire(tmp_path / "x.lock"), []
    monkeypatch.setattr(
        cache_module.log,
        "info",
        lambda *said: (told.append(said[0] % said[1:]), held.lock.release()),
    )
    assert array.ensure()
    assert "another process computes them, and this one waits: 0 of 10 images" in told[0]


def test_no_room_is_told_before_any_work(tmp_path):
    array = counting(tmp_path / "x.bin", row_bytes=10**15)
    refusing = dataclasses.replace(array, compute=lambda *_: pytest.fail("computed"))
    with pytest.raises(DiskError, match=r"x\.bin .*needs 10000 TB"):
        refusing.read()


def test_progress_is_told_without_a_terminal(decoded, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("caltech.waiting.TELL_SECONDS", 0.0)
    with caplog.at_level("INFO"):
        decoded.read(tmp_path)
    assert re.search(r"\w+: \d+ of \d+ images, about \d+ s left", caplog.text)
