"""A sweep's jobs as people see them."""

import sys

import pytest

from caltech.sweeps import records
from caltech.sweeps.records import Record
from caltech.sweeps.table import as_csv, outlook, own_words, show, table

LONG = "weight_decay=0.000123456789 gamma=0.0123456789 step_size=15 label=a-b-c"


def test_no_line_is_wider_than_the_terminal():
    jobs = [Record(f"{n:010x}", "", f"lr=0.{n} {LONG}{n}", "finished", 0.5, 9.0) for n in range(3)]
    shown = table(jobs, 80)
    assert max(map(len, shown.splitlines())) <= 80
    words = shown.split()
    assert all(f"{word}{n}" in words for n in range(3) for word in ("lr=0.", "label=a-b-c"))
    assert len(table(jobs, 1000).splitlines()) == 4


def test_hosts_are_told_where_there_are_several():
    one, other = Record("a", "", "", host="left"), Record("b", "", "", host="right")
    waiting = Record("c", "", "", "waiting")
    assert "right" in table([one, other, waiting], 80)
    assert "host" not in table([one, one, waiting], 80)


def test_the_mean_over_seeds_has_its_deviation():
    jobs = [Record("a", "", "", "finished", 0.9537, 1.0, deviation=0.0012), Record("b", "", "")]
    assert "0.9537 ± 0.0012 best" in table(jobs, 80)


def test_no_word_is_torn_in_80_columns():
    words = "lr=0.884123 weight_decay=2.8097280416e-05 gamma=0.90034 schedule.step_size=5"
    jobs = [Record("a" * 10, "", words, "finished", 0.9, 1000.0, test=0.9), Record("b", "", "")]
    lines = table(jobs, 80).splitlines()
    assert max(map(len, lines)) <= 80
    assert {"lr=0.884", "weight_decay=2.81e-05", "gamma=0.9"} <= {*" ".join(lines).split()}


def test_of_a_word_that_was_typed_twice_the_last_is_shown():
    typed = ("lr=0.1 data.root=/my data lr=0.2", "lr=0.2 data.root=/my data lr=0.1")
    assert own_words([Record("", "", words) for words in typed]) == [["lr=0.2"], ["lr=0.1"]]


def test_of_equals_none_is_told_to_be_the_best():
    jobs = [Record(name, "", "", "finished", 0.9, 1.0) for name in ("a", "b")]
    assert table(jobs, 80).count("0.9000 tied") == 2


def test_nothing_in_a_record_steers_a_terminal():
    assert "\x1b" not in table([Record("\x1b[2J", "", "lr=\x1b[31m", "\x07")], 80)


@pytest.mark.parametrize("status", ["missing", "waiting"])
def test_a_sweep_that_was_left_early_does_not_list_all_that_is_left(capsys, monkeypatch, status):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    begun = [Record("a", "", "lr=0.5", "interrupted"), Record("b", "", "lr=0.6", "failed")]
    show([begun[0], *(Record(f"{n}", "", f"lr={n}", status) for n in range(96)), begun[1]])
    printed = capsys.readouterr().out
    assert len(printed.splitlines()) < 12 and "and 91 more jobs" in printed
    assert "interrupted" in printed and "failed" in printed
    assert (f"96 of 98 jobs {status}" in printed) == (status == "missing")


def test_a_pruned_job_is_not_the_best():
    """Its value is of an epoch before its last; one that was finished may have been lower then."""
    jobs = [Record("a", "", "", "pruned", 0.85, 1.0), Record("b", "", "", "finished", 0.8, 1.0)]
    first, second = table(jobs, 80).splitlines()[1:]
    assert first.startswith("b") and "0.8000 best" in first
    assert second.startswith("a") and "best" not in second and "0.8500" in second


def test_a_killed_job_has_no_seconds_in_place_of_none():
    killed = Record("a", "", "lr=1", "interrupted")
    assert "0.0" not in table([killed], 80) + as_csv([killed])


def test_the_line_of_a_large_sweep_compares_no_job_with_another(tmp_path, monkeypatch):
    """It is told after each job: what takes the square of the jobs then takes their cube."""
    jobs = {n: Record(f"{n:04}", "", f"lr=0.{n:04} momentum=0.5") for n in range(300)}
    records.announce(tmp_path, jobs, 300)
    for number in range(200):
        with records.kept(tmp_path, number, jobs[number]):
            jobs[number].status, jobs[number].value = "finished", 0.5 + (number == 123) / 4
    monkeypatch.setattr(Record, "__eq__", lambda one, other: pytest.fail("compared"))
    assert outlook(tmp_path).startswith("job 200 of 300 · best 0.7500 (lr=0.0123)")
