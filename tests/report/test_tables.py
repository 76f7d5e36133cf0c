"""What a number is shown as, and what is said of it."""

import csv
import io
from dataclasses import replace

import pytest

from caltech.report import render, rows, tables
from tests.report.conftest import DATA, accuracies, made_up, table, text_of_all


def row(*overrides: str, **changes) -> rows.Row:
    run = made_up(*overrides, **changes)
    return rows.Row("x", (run,), run.params)


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [("lr", "0.001", "1e-3"), ("lr", "0.05", "5e-2"), ("weight_decay", "5e-05", "5e-5"),
     ("gamma", "0.01", "0.01"), ("weight_decay", "0.0", "0"), ("model", "alexnet", "alexnet"),
     ("start", "1234567e89", "1234567e89")],
)  # fmt: skip
def test_parameters_are_written_as_in_the_study(name, value, shown):
    found = rows.Table("Runs", (rows.Row("x", (), {name: value}),), (name,), False)
    (column,) = tables.parameters(found)
    assert column.show(found.rows[0]) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(None, ""), (0.123, "0.12 s"), (42.4, "42 s"), (600, "10 min")]
)
def test_time_is_in_a_unit_that_fits(seconds, shown):
    column = next(each for each in tables.STATISTICS if each.name == "Training time")
    assert column.show(row(seconds=seconds)) == shown


def test_the_devices_of_all_seeds_are_shown_each_once():
    """Beside a training time that is the mean over them."""
    made = [("a", "2"), ("b", "1"), ("a", "2")]
    runs = [made_up(f"seed={n}", environment={"device": d, "threads": t})
            for n, (d, t) in enumerate(made)]  # fmt: skip
    column = next(each for each in tables.STATISTICS if each.name == "Device")
    assert column.show(rows.Row("x", tuple(runs), {})) == "a, 2 threads; b, 1 thread"
    assert column.show(rows.Row("x", (), {})) == ""


def test_a_column_that_is_listed_is_in_all_forms_and_is_explained(monkeypatch, text_of):
    added = tables.Column("Ants", lambda row: "some", explanation="Ants are counted.")
    monkeypatch.setattr(tables, "STATISTICS", (*tables.STATISTICS, added))
    runs = [made_up()]
    assert "| Ants |\n" in text_of(runs) and "\n- Ants are counted.\n" in text_of(runs)
    sheet = render.Sheet(rows.Table("Runs", (row(),), (), False), runs)
    (line,) = csv.DictReader(io.StringIO(render.spreadsheet([sheet])))
    assert line["Ants"] == "some"
    page = render.text_and_page("mine", [sheet], runs, {"Runs": []})[1]
    assert "<th>Ants</th>" in page and "<td>some</td>" in page
    assert "<li>Ants are counted.</li>" in page


def test_one_seed_that_cannot_carry_a_verdict_has_none(experiments):
    """By the images alone it would be better; with three seeds that are alike it is."""
    images = {"train": 600, "validation": 1446, "test": 2893}
    known = {"data": DATA | {"images": images}, "predictions": None}
    runs = [
        made_up("experiment=scratch/model2", f"seed={n}", accuracy=0.31, **known) for n in range(3)
    ]
    runs = [replace(run, metrics=run.metrics | {"test/accuracy": 0.31}) for run in runs]
    for count, verdict in ((1, "open"), (3, "better")):
        text = text_of_all(runs[:count], experiments)
        told = accuracies(text, "Training from Scratch")["Model 2"]
        assert told.startswith("0.3100") and told.endswith(
            f"(published 0.2745, +0.0355, {verdict})"
        )


def test_runs_that_did_not_finish_are_marked_and_do_not_count(text_of):
    failed = {"status": "failed", "reason": "DivergedError: nan\nand more"}
    runs = [
        made_up("lr=0.1", accuracy=0.3),
        made_up("lr=0.2", accuracy=0.4),
        made_up("lr=0.3", status="pruned"),
        made_up("lr=0.4", **failed, data={"name": DATA["name"], "sha256": "d"}),
        made_up("lr=0.5", status="running"),
    ]
    text = text_of(runs)
    lines = table(text, "Runs")
    assert [line["lr"] for line in lines] == ["2e-1", "1e-1", "3e-1", "4e-1", "5e-1"]
    told = [line["TESTING ACC"] for line in lines]
    assert told == ["0.4000", "0.3000", "pruned after epoch 3", "failed", "running, epoch 3 of 30"]
    assert "(b) failed (DivergedError: nan): does not count." in text
    assert text.count(" / 2: ") == 1  # one pair for McNemar's test


def test_other_code_and_other_data_are_marked(text_of):
    runs = [
        made_up("lr=0.1", accuracy=0.2, code={"sha256": "old", "git": "old-git"}),
        made_up("lr=0.2", accuracy=0.4),
        made_up("lr=0.3", accuracy=0.3, data=DATA | {"sha256": "other"}),
        made_up("lr=0.4", accuracy=0.5),
    ]
    text = text_of(runs)
    assert list(accuracies(text, "Runs")) == ["1", "2", "3 (a)", "4 (b)"]
    assert f"(a) made from other data than most runs: {DATA['name']} other." in text
    assert "(b) made by other code than most runs: old-git (old)." in text
    assert text.count(": lr=0.3 / ") == 0  # no paired test on other images


def test_another_data_set_with_its_own_table_is_not_marked(text_of):
    runs = [made_up(f"lr=0.{n}", accuracy=0.1 * n) for n in (1, 2, 3)]
    digits = DATA | {"name": "digits", "sha256": "d"}
    runs += [made_up(f"lr=0.{n}", accuracy=0.1 * n, data=digits) for n in (4, 5)]
    text = text_of(runs)
    assert list(accuracies(text, "Runs on digits")) == ["1", "2"]
    assert "other data" not in text


def test_other_versions_are_marked_where_they_are_known(text_of):
    """Older runs tell of torch alone. Where a run was made is in its column."""
    known = {"device": "Abacus", "threads": "2", "torch": "9.9", "python": "3.99"}
    now = known | {"torchvision": "0.9", "pillow": "11"}
    other = now | {"torch": "9.9, then 10.0", "pillow": "12", "device": "Slide rule"}
    runs = [made_up(f"lr=0.{n}", accuracy=0.9 - 0.1 * n, environment=now) for n in (1, 2)]
    runs.append(made_up("lr=0.3", accuracy=0.6, environment=known | {"python": "4"}))
    assert "other versions" not in text_of(runs)
    text = text_of([*runs, made_up("lr=0.4", accuracy=0.5, environment=other)])
    assert "(a) made with other versions than most runs: torch 9.9, then 10.0, pillow 12." in text
    assert list(accuracies(text, "Runs")) == ["1", "2", "3", "4 (a)"]


def test_paired_tests_stay_within_a_data_set():
    """Of many rows, each data set's best is compared with the others on the same images."""
    run = made_up()

    def named(name: str, accuracy: float, data=DATA) -> rows.Row:
        known = replace(run, data=data, metrics={"val/best_accuracy": accuracy})
        return rows.Row(name, (known,), {})

    mine = [named(f"mine {n}", 0.5 + 0.01 * n) for n in range(12)]
    other = [named(f"other {n}", 0.9 + 0.01 * n, DATA | {"sha256": "o"}) for n in range(3)]
    pairs = rows.Table("Runs", (*mine, *other), (), False).pairs
    assert {pair.first for pair in pairs} == {"mine 11", "other 2"}
    assert len(pairs) == 11 + 2


def test_a_temperature_is_a_column_where_there_is_one(text_of):
    numbers = {"test/temperature": 0.7, "test/calibrated_error": 0.0123}
    numbers |= {"test/calibration_error": 0.0456}  # of all digits of the probabilities
    run = made_up()
    calibrated = replace(run, metrics=run.metrics | numbers)
    assert "Temperature" not in text_of([run]) and "Guo" not in text_of([run])
    text = text_of([calibrated])
    assert "| 0.0456 | 0.7000 | 0.0123 |" in text and "(Guo et al., 2017)" in text
