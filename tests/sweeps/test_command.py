"""`caltech sweeps` writes its table where nothing is lost, and takes one study."""

import csv
import io
from pathlib import Path

import pytest

from caltech.errors import DiskError, InputError
from caltech.sweeps import __main__ as command
from caltech.sweeps import records
from caltech.sweeps.records import Record


@pytest.fixture
def sweeps(tmp_path):
    """Print the newest sweep of the studies one and other, with these words, too."""
    for study in ("one", "other"):
        folder = tmp_path / study / "sweeps" / "20260101T000000Z-abcdef"
        records.announce(folder, {0: Record("a" * 10, "", "lr=0.1")}, 1)
    return lambda *words: command.main([f"output={tmp_path}", *words])


def test_a_table_is_written_again_and_printed(sweeps, tmp_path, capsys):
    path = tmp_path / "new" / "table.csv"
    for _ in range(2):
        sweeps(f"csv={path}")
        assert f"table: {path}" in capsys.readouterr().out
    sweeps("csv=true")
    printed = capsys.readouterr().out
    assert printed == path.read_text()
    assert [row["key"] for row in csv.DictReader(io.StringIO(printed))] == ["a" * 10]


def test_what_is_no_table_of_ours_stays(sweeps, tmp_path, capsys):
    other = tmp_path / "mine.csv"
    other.write_text("key,label\n")
    for place, told in ((other, "would be lost"), (tmp_path, "Type csv=.*table.csv"),
                        (Path("/dev/null"), "would be lost")):  # fmt: skip
        with pytest.raises(InputError, match=told):
            sweeps(f"csv={place}")
    assert other.read_text() == "key,label\n" and capsys.readouterr().out == ""
    with pytest.raises(DiskError, match=r"cannot be written.*Type csv=FILE") as error:
        sweeps(f"csv={other}/table.csv")
    assert "output=" not in str(error.value)


@pytest.mark.parametrize(
    "words", [("one", "study=other"), ("study=one", "study=other"), ("one", "x", "sweep=y")]
)
def test_two_of_one_kind_cannot_both_be(sweeps, capsys, words):
    with pytest.raises(SystemExit):
        sweeps(*words)
    assert "cannot both be" in capsys.readouterr().err


@pytest.mark.parametrize("words", [("other",), ("study=other",), ("other", "study=other")])
def test_a_study_is_typed_either_way(sweeps, capsys, words):
    sweeps(*words, "sweep=2026")
    assert "of study other" in capsys.readouterr().out
