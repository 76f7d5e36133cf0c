"""Numbers of things in words, and names that a terminal shows."""

import io

import pytest

from caltech.amounts import counted, printable, short, size_of
from caltech.errors import shown_as_messages


def test_one_thing_has_no_s():
    assert [counted(n, "file") for n in (0, 1, 2)] == ["0 files", "1 file", "2 files"]
    assert [counted(n, "class", "classes") for n in (1, 2)] == ["1 class", "2 classes"]


def test_a_word_has_three_digits_of_a_number_that_is_not_whole():
    assert short("lr=0.12345678") == "lr=0.123" and short("data.root=a.b") == "data.root=a.b"
    assert short("seed=4294967295") == "seed=4294967295" and short("start=1e5") == "start=1e5"


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"), (72, "72 B"), (999, "999 B"), (1000, "1.0 kB"), (9_960, "10 kB"),
        (410_000, "410 kB"), (999_600, "1.0 MB"), (13_200_000, "13 MB"), (1.7e9, "1.7 GB"),
        (1e13, "10 TB"), (1e16, "10000 TB"),
    ],
)  # fmt: skip
def test_bytes_are_in_the_unit_that_fits(count, shown):
    assert size_of(count) == shown


def test_a_name_is_one_line():
    assert printable("new\nline") == "new line" and printable("tab\tü\x1b[2J") == "tab ü?[2J"


@pytest.mark.parametrize(
    ("encoding", "shown"), [("utf-8", b"\xc3\xbc \xff"), ("ascii", b"\\xfc \\udcff")]
)
def test_any_name_can_be_printed_whatever_the_locale(monkeypatch, encoding, shown):
    """A letter beyond ASCII, and a byte of a file's name that is none of UTF-8."""
    stream = io.TextIOWrapper(io.BytesIO(), encoding)
    monkeypatch.setattr("sys.stdout", stream)
    with shown_as_messages():
        print("ü \udcff", end="")
    assert stream.buffer.getvalue() == shown
