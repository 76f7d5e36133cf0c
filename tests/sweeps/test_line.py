"""One line on a terminal, which is no wider than it and takes the place of the one before."""

import logging

import pytest

from caltech.sweeps import __main__ as command
from caltech.sweeps import line, records


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setattr(line, "is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")


def test_a_line_fits_and_is_replaced(terminal, tmp_path, capsys):
    jobs = {0: records.Record("key", "", "lr=1")}
    records.announce(tmp_path, jobs, 60, unit="trial")
    line.tell(tmp_path)
    line.draw("x" * 100)
    shown = capsys.readouterr().out
    assert shown == f"{'trial 0 of 60':<39}\r" + "x" * 38 + "\N{HORIZONTAL ELLIPSIS}\r"


def test_a_terminal_is_left_to_the_line(terminal, monkeypatch):
    def of(name: str, level: int) -> logging.LogRecord:
        return logging.LogRecord(name, level, "", 0, "", (), None)

    handler = logging.StreamHandler()
    monkeypatch.setattr(logging.getLogger(), "handlers", [handler])  # none that outlive the test
    line.quieten()
    assert not handler.filter(of("caltech.training.fit", logging.INFO))
    assert not handler.filter(of("caltech.runs.ending", logging.WARNING))
    assert handler.filter(of("caltech.tracking.store", logging.WARNING))
    assert handler.filter(of("caltech.sweeps.jobs", logging.INFO))


@pytest.mark.parametrize("typed", [["--watch"], ["watch=true"], []])
def test_a_sweep_can_be_watched(tmp_path, monkeypatch, typed):
    folder, seen = tmp_path / "mine" / "sweeps" / "1", []
    folder.mkdir(parents=True)
    records.announce(folder, {0: records.Record("key", "", "lr=1")}, 1)
    monkeypatch.setattr(command, "watch", seen.append)
    command.main(["mine", f"output={tmp_path}", *typed])
    assert seen == [folder] * bool(typed)
