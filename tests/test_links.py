"""One place on the disk under several names, each of which is a whole file."""

from pathlib import Path

import pytest

from caltech.links import link, write_shared


@pytest.fixture
def one(tmp_path) -> Path:
    write_shared(tmp_path / "one", b"x" * 5000, [])
    return tmp_path / "one"


def test_equal_bytes_are_kept_once_and_each_name_lives_by_itself(one, tmp_path):
    other = tmp_path / "folder" / "other"
    write_shared(other, b"x" * 5000, [tmp_path / "none", one, other])
    assert other.samefile(one)
    write_shared(one, b"y" * 5000, [other])
    assert (one.read_bytes()[:1], other.read_bytes()[:1]) == (b"y", b"x")
    one.unlink()
    assert other.read_bytes() == b"x" * 5000
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "other"]


def test_a_harmed_file_is_not_shared(one, tmp_path):
    one.write_bytes(b"x" * 4999 + b"y")
    write_shared(tmp_path / "other", b"x" * 5000, [one])
    assert (tmp_path / "other").read_bytes() == b"x" * 5000


def test_where_there_are_no_links_it_is_written(one, tmp_path, monkeypatch):
    def refuse(*_: object) -> None:
        raise OSError

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    assert not link(one, tmp_path / "other")
    write_shared(tmp_path / "other", b"x" * 5000, [one])
    assert not one.samefile(tmp_path / "other")


def test_a_name_that_is_there_already_stays(one):
    assert link(one, one) and one.read_bytes() == b"x" * 5000
