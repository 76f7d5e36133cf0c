"""What a table says, in sentences."""

from dataclasses import replace

from caltech.report import conclusions, rows
from tests.report.conftest import LABELS, made_up


def table(*made: rows.Row) -> rows.Table:
    return rows.Table("Runs", made, (), False)


def row(name: str, score: float, *typed: str, **changed) -> rows.Row:
    run = made_up(*typed, **changed)
    metrics = run.metrics | {"val/best_accuracy": score, "test/best_accuracy": score}
    return rows.Row(name, (replace(run, metrics=metrics),), {})


def test_the_best_in_validation_comes_first_with_what_the_test_says_of_it():
    best, like = row("a", 0.9, accuracy=0.9), row("b", 0.8, accuracy=0.9)
    other = row("c", 0.7, accuracy=0.5)
    first, *rest = conclusions.of(table(other, best, like))
    assert first.startswith("Best in validation: a, with 90.00")
    assert "In the test it is significantly better than 1 of 2 others." in rest
    assert "Not significantly different from it: b." in rest


def test_no_row_is_the_best_by_images_that_it_was_trained_on():
    chosen = row("a", 0.99, "split=per_class", "split.train_on_validation=true")
    assert conclusions.of(table(chosen))[0].startswith("No row is the best in validation")
    assert conclusions.of(table(chosen, row("b", 0.5)))[0].startswith("Best in validation: b")


def test_what_does_not_count_is_said():
    constant = row("constant", 0.3, given=LABELS * 0)
    said = conclusions.of(table(constant, rows.Row("later", (), {})))
    assert any(each.startswith("Collapsed") and "constant" in each for each in said)
    assert said[-1] == "Not run: later."
    assert conclusions.of(table(rows.Row("later", (), {}))) == [
        "No row is finished.", "Not run: later.",
    ]  # fmt: skip


def test_a_long_list_of_names_is_cut():
    made = [rows.Row(str(number), (), {}) for number in range(9)]
    assert conclusions.of(table(*made))[-1] == "Not run: 0; 1; 2; 3; 4; 5; and 3 more."
