"""The tables of kept results, and the README's, are the same bytes whatever else changes."""

import csv
import io
import re
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
    for path in (committed / "kept").iterdir():
        assert (tmp_path / study / "kept" / path.name).read_bytes() == path.read_bytes()


def test_readme_s_table_says_what_the_kept_report_says():
    """Nothing in it is typed by hand without being noticed: ours, deviations and published.

    Every finished row is in it, but for those on images of another size.
    """
    report = REPOSITORY / "multirun" / "course" / "table.csv"
    told = list(csv.DictReader(io.StringIO(report.read_text("utf-8"))))
    names = ("TESTING ACC", "TESTING ACC sd", "TESTING ACC published")
    known = {f"{100 * float(line[name]):.2f}" for line in told for name in names if line[name]}
    readme = (REPOSITORY / "README.md").read_text()
    first = re.search(r"(?:^\|.*\n)+", readme, re.MULTILINE).group().splitlines()[2:]
    shown = [cell for row in first for cell in row.split("|")[2:4]]
    numbers = re.findall(r"\d+\.\d\d", " ".join(shown))
    assert len(numbers) > 10 and set(numbers) <= known
    finished = [line for line in told if line["TESTING ACC"] and "crop=" not in line["Model"]]
    assert len(finished) > 10
    assert all(f"{100 * float(line['TESTING ACC']):.2f}" in numbers for line in finished)
