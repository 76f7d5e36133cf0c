"""What a table says, in sentences."""

from dataclasses import replace

from caltech.report import conclusions, rows, statistics
from tests.report.conftest import DATA, LABELS, answers, made_up


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
    assert rest[0].endswith("by the best epochs' answers of all seeds, it is significantly better "
                            "than 1 of 2 others.")  # fmt: skip
    assert rest[-1].startswith("This compares one run of each")
    assert "Not significantly different from it: b." in rest


def test_what_is_compared_is_what_is_quoted():
    """Of the last epochs, row b would be the better one."""
    late = replace(made_up().predictions, last=answers(0.2), best=answers(0.9))
    early = replace(made_up().predictions, last=answers(0.9), best=answers(0.5))
    best, other = row("a", 0.9, predictions=late), row("b", 0.5, predictions=early)
    assert "better than 1 of 1 other." in " ".join(conclusions.of(table(other, best)))


def test_a_row_whose_best_epoch_s_test_is_not_known_is_not_compared():
    """As of runs of earlier code, or of a store that was told less."""
    run = row("b", 0.5, accuracy=0.5).runs[0]
    kept = {k: v for k, v in run.metrics.items() if k != "test/best_accuracy"}
    other = rows.Row("b", (replace(run, metrics=kept),), {})
    assert "significant" not in " ".join(conclusions.of(table(row("a", 0.9, accuracy=0.9), other)))


def test_rows_of_other_images_are_told_and_are_no_others_that_it_is_better_than():
    """Of the test, and of validation, by which they are ranked."""
    best, below = row("a", 0.9, accuracy=0.9), row("b", 0.5, accuracy=0.5)
    split = row("c", 0.7, "split=per_class", accuracy=0.5, data=DATA | {"sha256": "e" * 64})
    lost = rows.Row("d", (replace(below.runs[0], predictions=None),), {})
    said = conclusions.of(table(best, below, split, lost))
    assert said[1] == "Validated on other images, and not ranked beside it: c."
    assert "better than 1 of 1 other." in said[2]
    assert "Not compared with it in the test, for want of answers to the same images: c; d." in said


def test_code_that_a_run_went_on_by_is_shown_too():
    run = made_up(code={"git": "abc, then def", "sha256": f"{'1' * 16}, then {'2' * 16}"})
    assert run.version == "abc, then def (11111111, then 22222222)"


def seeds_of(name: str, *accuracies: float) -> rows.Row:
    runs = [row(name, each, f"seed={n}", accuracy=each).runs[0]
            for n, each in enumerate(accuracies)]  # fmt: skip
    return rows.Row(name, tuple(runs), {})


def test_seeds_that_differ_by_as_much_are_no_better_recipe():
    """The first seeds alone would differ: 360 right answers and 320 of the same 400."""
    best, other = seeds_of("a", 0.9, 0.75, 0.8), seeds_of("b", 0.8, 0.7, 0.85)
    assert best.compared(other) > 0.3 and other.compared(best) == best.compared(other)
    assert statistics.mcnemar(*(r.predictions.correct_at_best for r in (best, other)))[2] < 1e-6
    said = " ".join(conclusions.of(table(best, other)))
    assert "Not significantly different from it: b." in said and "one run of each" not in said
    sure = seeds_of("c", 0.7, 0.69, 0.71)
    assert seeds_of("d", 0.8, 0.81, 0.79).compared(sure) < 0.01
    assert seeds_of("e", 0.8).compared(sure) < 0.02  # its seeds are taken to differ as the other's


def test_rows_by_splits_are_compared_by_the_splits_they_share():
    def by_splits(name, *accuracies):
        typed = ["split=per_class", "split.seed=${seed}"]
        runs = [row(name, each, *typed, f"seed={n}", accuracy=each).runs[0]
                for n, each in enumerate(accuracies)]  # fmt: skip
        return rows.Row(name, tuple(runs), {})

    best, like = by_splits("a", 0.9, 0.8, 0.7), by_splits("b", 0.89, 0.81, 0.69)
    below = by_splits("c", 0.8, 0.7, 0.61)
    assert best.compared(like) > 0.5 and best.compared(below) < 0.05
    assert best.compared(by_splits("d", 0.9, 0.79)) > 0.5
    assert best.compared(by_splits("e", 0.9)) is None


def test_ties_are_told_and_a_number_is_no_second_colon():
    made = [row(f"{n}: lr={n}", 0.9 if n < 3 else 0.5, accuracy=0.9) for n in (1, 2, 3)]
    first, second, *_ = conclusions.of(table(*made))
    assert first.startswith("Best in validation: row 1 (lr=1), with 90.00")
    assert second == "As high in validation: row 2 (lr=2)."


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


def test_on_a_terminal_it_is_a_page_of_80_columns_and_the_best_come_first():
    made = [row(f"{'long ' * 20}{n}", 0.5 + n / 100, accuracy=0.9) for n in range(14)]
    lines = conclusions.brief("mine", [table(*made)]).splitlines()
    assert max(map(len, lines)) <= 80 and lines[0] == "Study mine"
    told = [line for line in lines if line.lstrip()[:2].isdigit()]
    assert told[0].split()[0] == "63.00" and len(told) == 12
    assert lines[-1] == "  and 2 more rows"
