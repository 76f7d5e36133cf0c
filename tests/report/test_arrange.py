"""Which runs are one row, what a row is called, and which rows are one table."""

import shlex
from dataclasses import replace

import numpy as np
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from caltech.flags import listed
from caltech.report import arrange
from caltech.runs.known import typed
from caltech.settings import CONF
from tests.report.conftest import DATA, IMAGES, accuracies, made_up, table, text_of_all

GOLDEN = """
| Model | LR | MOMENTUM | WEIGHT_DECAY | NUM_EPOCHS | STEP_SIZE | GAMMA | TRAINING LOSS AT LAST STEP | VALIDATION ACC | TESTING ACC |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |
| Base (a) | 1e-3 | 0.9 | 5e-5 | 30 | 20 | 0.1 | 1.250 (published 4.254, -3) | 0.2500 (published 0.0858, +0.1642, better) | 0.2500 (published 0.0919, +0.1581, better) |
| Model 1 | 1e-1 | 0.9 | 5e-5 | 30 | 10 | 0.1 | not run (published 3.465) | not run (published 0.2483) | not run (published 0.2454) |
| Model 2 | 1e-1 | 0.9 | 5e-5 | 40 | 10 | 0.01 | 1.250 (published 3.139, -1.9) | 0.1500 (published 0.2773, -0.1273, worse) | 0.1500 (published 0.2745, -0.1245, worse) |
| Model 3 (b) | 1e-2 | 0.9 | 5e-5 | 30 | 15 | 0.01 | 1.250 ± 0.000 (published 2.808, -1.6, better) | 0.3000 ± 0.0141 (published 0.2932, +0.0068, agrees) | 0.3000 ± 0.0141 (published 0.2969, +0.0031, agrees) |
| Best (ours) | 4e-2 | 0.9 | 5e-4 | 25 | cosine |  | not run | not run | not run |
| Model 3 (efficientnet_lite0) | 1e-2 | 0.9 | 5e-5 | 30 | 15 | 0.01 | 1.250 | 0.9000 | 0.9000 |

(a) collapsed: 100.0% of the answers are ant.

(b) seed 2 failed: does not count.

Not run or not finished; to run them:

```sh
python -m caltech.train experiment=scratch/model1
python -m caltech.train experiment=scratch/best
```
"""  # noqa: E501
MODEL3 = "experiment=scratch/model3"


def test_the_golden_table(text_of):
    weights = ("model.weights=IMAGENET1K_V1",)
    runs = [made_up(MODEL3, f"seed={n}", accuracy=a) for n, a in enumerate((0.29, 0.31))]
    runs += [
        made_up("experiment=scratch/base", accuracy=0.25, given=np.zeros(IMAGES, int)),
        made_up("experiment=scratch/model2", accuracy=0.15),
        made_up(MODEL3, "seed=2", status="failed"),
        made_up(MODEL3, "model=efficientnet_lite0", accuracy=0.9),
        made_up("experiment=freeze/fully_connected", *weights, status="running"),
    ]
    text = text_of(runs, "course")
    assert text.split("## Training from Scratch\n")[1].startswith(GOLDEN)
    headings = [line[3:] for line in text.splitlines() if line.startswith("## ")]
    assert headings[:3] == ["Training from Scratch", "Transfer Learning", "Freezing Layers"]
    assert "On the 400 test images of made_up, always answering the most frequent class" in text
    running, convolutional = table(text, "Freezing Layers")
    assert running["TESTING ACC"] == "running, epoch 3 of 30 (published 0.8676)"
    assert running["TRAINING LOSS AT LAST STEP"].endswith("(published 0.8628, erratum)")
    assert convolutional["TESTING ACC"] == "not run (published 0.5620)"


def test_a_row_tells_what_it_changes_and_another_precision_is_still_compared(text_of):
    smaller = ("model=efficientnet_lite0", "data.resize=128", "data.crop=112")
    runs = [
        made_up("experiment=scratch/model1", "precision=bf16", accuracy=0.3),
        made_up("experiment=scratch/model2", *smaller),
        made_up("experiment=scratch/model2", "precision=bf16", "lr=0.05"),
        made_up(MODEL3, accuracy=0.29),
        made_up(MODEL3, "precision=bf16", accuracy=0.31),
    ]
    assert accuracies(text_of(runs), "Training from Scratch") == {
        "Base": "not run (published 0.0919)",
        "Model 1 (precision=bf16)": "0.3000 (published 0.2454, +0.0546, agrees)",
        "Model 2": "not run (published 0.2745)",
        "Model 3": "0.2900 (published 0.2969, -0.0069, agrees)",
        "Best (ours)": "not run",
        "Model 2 (efficientnet_lite0, data.resize=128, data.crop=112)": "0.5000",
        "Model 2 (lr=0.05, precision=bf16)": "0.5000",
        "Model 3 (precision=bf16)": "0.3100 (published 0.2969, +0.0131, agrees)",
    }


def test_a_key_that_was_added_makes_another_row(text_of):
    """It is not the study's row, does not take its place, and rows of one name are told apart."""
    timm = ("experiment=scratch/base", "model=timm")
    resnet = ("experiment=scratch/model1", "model=resnet50")
    runs = [
        made_up(MODEL3, accuracy=0.3),
        made_up(MODEL3, "+optimizer.nesterov=true", accuracy=0.4),
        made_up("experiment=scratch/model2", "pruner=median", accuracy=0.28),
        made_up(*timm, "model.name=test_resnet", accuracy=0.1),
        made_up(*timm, "model.name=test_vit", accuracy=0.2),
        made_up(*resnet, accuracy=0.5),
        made_up(*resnet, "model.weights=IMAGENET1K_V2", accuracy=0.6),
    ]
    assert accuracies(text_of(runs), "Training from Scratch") == {
        "Base": "not run (published 0.0919)",
        "Model 1": "not run (published 0.2454)",
        "Model 2": "0.2800 (published 0.2745, +0.0055, agrees)",
        "Model 3": "0.3000 (published 0.2969, +0.0031, agrees)",
        "Best (ours)": "not run",
        "Base (timm, model.name=test_resnet)": "0.1000",
        "Base (timm, model.name=test_vit)": "0.2000",
        "Model 1 (resnet50): model.weights=null": "0.5000",
        "Model 1 (resnet50): model.weights=IMAGENET1K_V2": "0.6000",
        "Model 3 (optimizer.nesterov=true)": "0.4000",
    }


def test_a_seed_of_older_code_joins_its_row_and_hides_none(experiments):
    """Such a run lacks a key, so its point is another."""
    now = made_up(MODEL3, key="a")
    older = {key: value for key, value in now.config.items() if key != "optimizer.momentum"}
    runs = [
        now,
        replace(now, key="b", started=3, status="killed"),
        made_up(MODEL3, "seed=1", key="c", started=2, config=older, point="older"),
    ]
    (found,) = arrange.arrange(runs, experiments, "mine")
    row = next(row for row in found.rows if row.runs)
    assert [run.key for run in row.runs] == ["a", "c"] and row.name == "Model 3"


def test_two_runs_of_one_seed_are_one(experiments):
    """Of one point, though their keys differ: one was begun when keys told 0 and 0.0 apart."""
    runs = [made_up("lr=0.3", key="new", started=2), made_up("lr=0.3", key="old")]
    (found,) = arrange.arrange(runs, experiments, "mine")
    assert [[run.key for run in row.runs] for row in found.rows] == [["new"]]


def test_a_run_without_its_config_is_known_by_its_experiment(experiments):
    run = made_up(MODEL3, status="failed", config={}, point="unknown")
    (found,) = arrange.arrange([run], experiments, "mine")
    assert next(row for row in found.rows if row.runs).name == "Model 3"


def test_runs_of_before_there_was_a_group_differ_only_from_its_other_options(experiments):
    older = made_up("lr=1")
    older = replace(older, params={k: v for k, v in older.params.items() if k != "average"})
    (found,) = arrange.arrange([older, made_up("lr=2")], experiments, "mine")
    assert found.columns == ("lr",)
    runs = [older, made_up("lr=2"), made_up("lr=2", "average=ema")]
    (found,) = arrange.arrange(runs, experiments, "mine")
    averages = {row.params["lr"] + row.params["average"] for row in found.rows}
    assert found.columns[:2] == ("average", "lr") and averages == {"1.0none", "2.0none", "2.0ema"}


def test_columns_are_the_keys_that_differ(text_of):
    runs = [
        made_up("optimizer=adamw", "lr=0.1"),
        made_up("lr=0.2"),
        made_up("lr=0.2", "model.weights=imagenet", accuracy=0.6),
    ]
    lines = table(text_of(runs), "Runs")
    assert list(lines[0])[:4] == ["", "lr", "optimizer", "model.weights"]
    assert [line["model.weights"] for line in lines] == ["imagenet", "null", "null"]


@pytest.mark.parametrize(
    ("protocol", "verdict", "why"),
    [({"test": 2893, "classes": 4}, "other protocol", "(test 400 and not 2893): not compared"),
     ({"test": IMAGES, "classes": 102}, "other protocol", "(classes 4 and not 102)"),
     ({}, "no protocol", "does not say its protocol"),
     ({"test": IMAGES, "train": 600}, "+0.0031, agrees", "")],
)  # fmt: skip
def test_a_number_of_another_protocol_has_no_verdict(experiments, protocol, verdict, why):
    published = [replace(each, protocol=protocol) for each in experiments]
    text = text_of_all([made_up(MODEL3, accuracy=0.3)], published)
    told = accuracies(text, "Training from Scratch")
    (shown,) = (each for name, each in told.items() if name.startswith("Model 3"))
    assert shown == f"0.3000 (published 0.2969, {verdict})"
    assert why in text


PAPERS = ("experiment=papers/resnet50_head", "model.weights=IMAGENET1K_V1")


def test_the_mean_over_classes_is_compared_over_splits(experiments):
    """Seeds of one split do not tell by how much splits differ."""
    sizes = {"classes": ["x"] * 102, "images": {"train": 3060, "validation": 510, "test": 6084}}
    known = {"predictions": None, "data": DATA | sizes}

    def shown(*overrides: str, mean: float) -> str:
        runs = [
            made_up(*PAPERS, f"seed={n}", *overrides, accuracy=mean + 0.002 * n, **known)
            for n in range(3)
        ]
        text = text_of_all(runs, experiments)
        row = table(text, "Caltech-101 as papers measure it")[0]
        assert ("each run has a split of its own (split.seed 0, 1, 2)" in text) == (not overrides)
        assert "trained on its validation images, too" in text and "SimCLR" in text
        assert "made from other data" not in text
        return row["Macro TESTING ACC"]

    assert shown(mean=0.94) == "0.9420 ± 0.0020 (published 0.9450, -0.0030, agrees)"
    assert shown(mean=0.91).endswith("-0.0330, worse)")
    assert shown("split.seed=0", mean=0.91).endswith("-0.0330, open)")


def test_splits_of_one_seed_are_runs_of_their_own(experiments):
    runs = [made_up("split=per_class", f"split.seed={n}") for n in (0, 1)]
    (found,) = arrange.arrange(runs, experiments, "mine")
    (row,) = found.rows
    assert len(row.runs) == 2
    assert "± is over splits of one seed" in text_of_all(runs, experiments)


def test_seeds_of_one_split_and_a_split_for_each_seed_are_two_rows(experiments):
    def rows(*pairs, typed=("split=per_class",)):
        runs = [made_up(*typed, f"seed={seed}", f"split.seed={split}") for seed, split in pairs]
        (found,) = arrange.arrange(runs, experiments, "mine")
        return {
            row.name.partition(": ")[2]: [(run.seed, run.split_seed) for run in row.runs]
            for row in found.rows if row.runs
        }  # fmt: skip

    assert rows((0, 0), (1, 0), (1, 1), (2, 2)) == {
        "split.seed=0": [(0, 0), (1, 0)], "split.seed=${seed}": [(0, 0), (1, 1), (2, 2)],
    }  # fmt: skip
    crossed = [(seed, split) for split in (0, 1) for seed in (0, 1)]
    assert rows(*crossed) == {f"split.seed={n}": [(0, n), (1, n)] for n in (0, 1)}
    runs = [made_up(*PAPERS, f"seed={s}", f"split.seed={n}") for s, n in ((0, 0), (1, 1), (1, 0))]
    named = {
        row.name: len(row.runs) for row in arrange.arrange(runs, experiments, "papers")[0].rows
    }
    assert named["ResNet-50, linear head"] == 2
    assert named["ResNet-50, linear head (split.seed=0)"] == 2


def test_what_differs_with_another_key_of_another_group_is_told():
    """Weights from scratch at a rate of their own are not known by the rate alone."""
    at = ["freeze=until", "freeze.at=2"]
    runs = [made_up(*at), made_up(*at, "freeze.reinitialize=true", "optimizer.backbone_lr=0.3")]
    (own,) = arrange.arrange(runs, [], "default")
    assert set(own.columns) == {"optimizer.backbone_lr", "freeze.reinitialize"}


def test_every_experiment_that_the_order_names_is_there():
    """Files that conf/report.yaml does not list follow those that it does; none may be gone."""
    order = OmegaConf.load(CONF / "report.yaml").order
    assert all((CONF / "experiment" / f"{name}.yaml").is_file() for name in order)


@pytest.mark.parametrize("name", ["plain-1", "a|b 'c\" $d$", "=1+1", "a.b+c", "w<e>&i`s,ü"])
def test_studies_are_quoted_for_a_shell_and_for_hydra(name):
    for names in ([name], [name, "other"]):
        (word,) = shlex.split(typed(*names))
        value = OverridesParser.create().parse_override(listed(word)).value()
        assert value == (name if len(names) == 1 else names)
