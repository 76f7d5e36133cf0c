"""The tables of kept results, and the README's, are the same bytes whatever else changes."""

import shutil

import pytest

from tests.conftest import REPOSITORY

STUDIES = sorted(path.parent.name for path in REPOSITORY.glob("multirun/*/kept"))


@pytest.fixture
def compared(experiments):
    """The published numbers as they are."""
    return experiments


@pytest.mark.parametrize("study", STUDIES)
def test_tables_of_kept_results_are_the_same_bytes(study, make, tmp_path):
    committed = REPOSITORY / "multirun" / study
    shutil.copytree(committed / "kept", tmp_path / study / "kept")
    make(study, "tracking=none")
    for name in ("table.md", "table.csv"):
        assert (tmp_path / study / name).read_bytes() == (committed / name).read_bytes()
    for path in (path for path in (committed / "kept").rglob("*") if path.is_file()):
        made = tmp_path / study / path.relative_to(committed)
        assert made.read_bytes() == path.read_bytes()
