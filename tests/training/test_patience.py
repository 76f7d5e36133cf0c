"""A run that waits no longer is finished and tested, and everything that reads it says so."""

import json

import pytest

from caltech.overview import listing, runs
from caltech.report import render, rows
from caltech.report.sources import directories
from caltech.runs.directory import RunDirectory
from caltech.runs.progress import Progress
from caltech.runs.result import Result, state_of
from caltech.sweeps.study.trials import STATES
from caltech.train import train
from caltech.training.fit import Observer
from tests.observers import TINY

# Nothing is learned: no epoch is better than the first.
IDLE = ["freeze=backbone", "lr=1e-12", "num_epochs=9", "patience=2"]
TOLD = "after epoch 3 of 9: no higher validation accuracy than that of epoch 1 (patience=2)"


@pytest.fixture(scope="module")
def stopped(compose_in, tmp_path_factory) -> RunDirectory:
    cfg = compose_in(tmp_path_factory.mktemp("stopped"), *TINY, *IDLE)
    train(cfg, overrides=[*TINY, *IDLE])
    return RunDirectory(cfg.directory)


@pytest.mark.parametrize(
    ("accuracies", "ends"),
    [([0.5, 0.6, 0.6, 0.6], True), ([0.5, 0.6, 0.7, 0.6], False), ([0.5], False), ([], False),
     ([0.5, 0.5, 0.5], True)],
)  # fmt: skip
def test_equal_accuracy_is_no_rise(accuracies, ends):
    best = accuracies.index(max(accuracies)) + 1 if accuracies else 0
    progress = Progress([{"val/accuracy": each} for each in accuracies], best)
    assert (progress.stopped(9, 2) is not None) == progress.is_over(9, 2) == ends
    assert not progress.is_over(9, None) and progress.stopped(len(accuracies), 2) is None


def test_it_is_finished_tested_and_answered(stopped, compose_in, caplog):
    caplog.set_level("INFO")
    told = json.loads(stopped.result.read_text())
    assert (told["status"], told["stopped"], told["last"]["epoch"]) == ("finished", TOLD, 3)
    assert "test/accuracy" in told["last"] and stopped.weights("best").is_file()
    result = Result.read(stopped, pruned_too=False)
    result.log()
    assert f"stopped {TOLD}" in caplog.text
    assert state_of([stopped]) == "finished" and STATES[result.status].name == "COMPLETE"
    output = stopped.path.parents[1]
    assert train(compose_in(output, *TINY, *IDLE)) == result


def test_who_would_prune_at_the_same_epoch_does_not(configure):
    class Pruner(Observer):
        prunes = True

        def epoch(self, history):
            return len(history) == 3

    assert train(configure(*TINY, *IDLE), observer=Pruner()).status == "finished"


def test_a_list_and_a_report_say_so(stopped):
    study = stopped.path.parent
    listed = " ".join(runs.table("default", listing.listed(study)).split())
    assert "(stopped after epoch 3 of 9:" in listed
    (run,), unused = directories.found(study, [])
    assert unused == [] and run.stopped == "after epoch 3 of 9 (patience=2)"
    row = rows.Row("idle", (run,), run.params)
    (line,) = render.Sheet(rows.Table("mine", (row,), ("lr",), False), [run]).lines
    assert line.marks


def test_a_result_of_fewer_epochs_without_waiting_is_not_believed(stopped, monkeypatch):
    monkeypatch.setattr(directories, "decisive", changed(directories.decisive, patience=1))
    monkeypatch.setattr(directories, "fits", lambda *_: True)
    monkeypatch.setattr("caltech.report.sources.proof.fits", lambda *_: True)
    found, unused = directories.found(stopped.path.parent, [])
    assert found == [] and "3 epochs and not 9" in str(unused)


def changed(decisive, **values):
    return lambda config: decisive(config) | values
