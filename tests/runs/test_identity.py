"""A directory's name is its own: it goes with the directory, and not with a copy."""

import shutil

import pytest

from caltech.files import write_sealed_json
from caltech.runs import identity
from caltech.runs.directory import RunDirectory


@pytest.fixture
def known(tmp_path):
    (tmp_path / "a").mkdir()
    return tmp_path / "a", identity.renew(tmp_path / "a", goes_on=True)


def test_an_id_stays_and_attempts_are_counted(known):
    folder, first = known
    assert RunDirectory(folder).id == first.id and len(first.id) == 32
    assert identity.renew(folder, goes_on=True).attempt == 2
    assert identity.renew(folder, goes_on=False) == identity.read(folder)
    assert (identity.read(folder).id, identity.read(folder).attempt) == (first.id, 2)


def test_a_directory_that_was_moved_keeps_its_id(known):
    folder, first = known
    moved = folder.rename(folder.with_name("b % ü"))
    found = identity.renew(moved, goes_on=True)
    assert (found.id, found.path) == (first.id, str(moved))


@pytest.mark.parametrize("goes_on", [False, True])
def test_a_copy_has_an_id_of_its_own(known, goes_on):
    folder, first = known
    copy = shutil.copytree(folder, folder.with_name("b"))
    assert identity.renew(copy, goes_on).id != first.id
    assert identity.renew(folder, goes_on).id == first.id


def test_what_was_moved_over_file_systems_keeps_its_id_if_it_is_finished(known):
    folder, first = known
    for goes_on in (False, True):
        copy = shutil.copytree(folder, folder.with_name(f"copy {goes_on}"))
        folder.rename(folder.with_name(f"gone {goes_on}"))
        assert (identity.renew(copy, goes_on).id == first.id) is not goes_on
        folder.with_name(f"gone {goes_on}").rename(folder)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"id": 3}', '{"id": "x", "path": "y"}'])
def test_one_that_cannot_be_read_is_none(known, content):
    folder, first = known
    (folder / identity.NAME).write_text(content)
    assert identity.read(folder) is None and RunDirectory(folder).id is None
    assert identity.renew(folder, goes_on=True).id != first.id


def test_what_is_set_aside_is_another_run(tmp_path):
    directory = RunDirectory(tmp_path)
    with directory.claimed(waits=False):
        first = directory.id
        directory.result.touch()
        directory.set_aside()
        assert directory.id not in (None, first)


def test_a_copy_of_what_was_moved_before_is_a_copy(tmp_path):
    """The noted place is gone, but the run stands in a study beside it."""
    folder = tmp_path / "first" / "0123456789"
    folder.mkdir(parents=True)
    noted = identity.renew(folder, goes_on=False)
    moved = (tmp_path / "first").rename(tmp_path / "second") / folder.name
    copy = shutil.copytree(moved.parent, tmp_path / "third") / folder.name
    assert identity.is_stale(copy, is_finished=True) and identity.is_stale(moved, is_finished=True)
    assert identity.renew(copy, goes_on=False).id != noted.id
    assert identity.renew(moved, goes_on=False).id == noted.id
    assert not identity.is_stale(moved, is_finished=True)


def test_an_identity_that_was_harmed_is_the_one_that_stores_were_told(known):
    folder, first = known
    write_sealed_json(folder / identity.TOLD, {"id": first.id, "stores": {}})
    (folder / identity.NAME).write_text("")
    assert identity.renew(folder, goes_on=False).id == first.id
