"""What all rows share that is not the default's is told once."""

import csv
import io

import pytest

from caltech.report import arrange, conclusions, render
from caltech.report.defaults import departures
from tests.report.conftest import made_up

LAMB = ("optimizer=timm", "optimizer.name=lamb", "mix=mixup", "mix.alpha=0.3")


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        (LAMB, "mix mixup, optimizer timm (lamb), model.weights null, mix.alpha 0.3"),
        (("loss=focal", "loss.gamma=1.5"), "loss focal, model.weights null, loss.gamma 1.5"),
        (("clip_norm=1", "+optimizer.nesterov=true", "num_epochs=2"),
         "num_epochs 2, clip_norm 1, model.weights null, optimizer.nesterov true"),
        (("optimizer.backbone_lr=0.1", "batch_size=8"),
         "batch_size 8, model.weights null, optimizer.backbone_lr 0.1"),
        (("schedule=step", "seed=3"), "model.weights null"),
    ],
)  # fmt: skip
def test_what_all_rows_share_is_told_where_it_is_not_the_default(typed, told):
    """And no column: what differs has one. Seeds and places decide no row."""
    runs = [made_up(*typed, f"lr={lr}", "study=other") for lr in (1, 2)]
    (table,) = arrange.arrange(runs, [], "mine")
    assert table.columns == ("lr",) and departures(table) == told


def test_it_is_on_the_page_in_the_spreadsheet_and_on_a_terminal():
    runs = [made_up(*LAMB, f"lr={lr}") for lr in (1, 2)]
    (table,) = arrange.arrange(runs, [], "mine")
    sheet = render.Sheet(table, runs)
    page = render.text_and_page("mine", [sheet], runs, {table.title: []})[1]
    assert page.count("optimizer timm (lamb)") == 1
    first, _ = csv.DictReader(io.StringIO(render.spreadsheet([sheet])))
    assert first["All rows"] == departures(table)
    assert "All rows: mix mixup, optimizer timm (lamb)" in conclusions.brief("mine", [table])


def test_published_rows_have_names_that_tell_it(experiments):
    table = arrange.arrange([made_up("experiment=scratch/model3")], experiments, "mine")[0]
    assert table.is_published and departures(table) == ""
