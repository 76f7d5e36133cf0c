"""What is told of long work."""

import sys

import pytest

from caltech import waiting


@pytest.fixture
def log(monkeypatch, caplog):
    monkeypatch.setattr(waiting, "TELL_SECONDS", 0.0)
    caplog.set_level("INFO", "caltech.waiting")
    return caplog


def test_a_log_tells_how_far_it_is(log):
    assert [*waiting.counting("abc", 3, "reading", "letters")] == ["a", "b", "c"]
    assert log.messages == [f"reading: {done} of 3 letters, about 0 s left" for done in (1, 2)]


def test_a_terminal_has_a_bar_and_the_log_is_quiet(log, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert [*waiting.counting(range(5), 5, "reading", "letters")] == [*range(5)]
    assert (log.messages, capsys.readouterr()) == (
        [],
        ("", ""),
    )  # it took no time: not even the bar


def test_work_of_a_moment_is_not_told(caplog):
    caplog.set_level("INFO")
    assert sum(waiting.counting(range(100), 100, "reading", "letters")) == 4950
    assert not caplog.messages
