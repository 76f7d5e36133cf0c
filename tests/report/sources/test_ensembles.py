"""Means of a study's runs: computed by their logits, kept, and another's or an edited one named."""

import dataclasses
import json
from pathlib import Path
from shutil import copytree, rmtree

import numpy as np
import pytest

from caltech.calibration import Scores
from caltech.errors import InputError
from caltech.report import typed
from caltech.report.sources import ensembles
from caltech.report.sources.directories import found
from caltech.runs import logits, manifest
from caltech.runs.directory import WEIGHTS, RunDirectory
from tests.report.conftest import IMAGES, LABELS, made_up, trained

ANSWERS = {"lr=1": 0.8, "lr=2": 0.7}


def with_logits(path: Path, answers: np.ndarray, sureness: float) -> str:
    """As a run keeps them: `sureness` is the logit of the answer; all others have 0."""
    directory = RunDirectory(path)
    values = sureness * np.eye(4, dtype=np.float32)[answers]
    validation = Scores(np.arange(IMAGES, 2 * IMAGES), LABELS, values)
    parts = {"test": Scores(np.arange(IMAGES), LABELS, values), "validation": validation}
    for name in WEIGHTS:
        logits.write(directory, name, parts)
    directory.images.write_text(
        "part,index,file\n" + "".join(f'test,{n},"ant/{n}.jpg"\n' for n in range(IMAGES))
    )
    manifest.renew(directory)
    return path.name


@pytest.fixture
def study(tmp_path) -> tuple[Path, list[str]]:
    """A study of two runs: the first answers 0.8 rightly and is surer than the second, 0.7."""
    folder, keys = tmp_path / "mine", []
    for sureness, (words, accuracy) in zip((3.0, 2.0), ANSWERS.items(), strict=True):
        path = trained(folder, words, accuracy=accuracy)
        keys.append(with_logits(path, made_up(words, accuracy=accuracy).predictions.last, sureness))
    return folder, keys


def test_the_surer_run_s_answers_are_the_mean_s(study):
    folder, keys = study
    ensembles.add(folder, found(folder, ())[0], keys)
    (ensemble,), unused = ensembles.kept(folder / "kept" / "ensembles")
    assert not unused and [each["key"] for each in ensemble.members] == keys
    assert ensemble.single == keys[0] and ensemble.pair == (0, 0, 1.0)
    assert ensemble.metrics["test/accuracy"] == ensemble.single_accuracy == 0.8
    e3, e2 = np.exp(3) / (np.exp(3) + 3), np.exp(2) / (np.exp(2) + 3)
    assert ensemble.predictions.confidences[0] == pytest.approx((e3 + e2) / 2, abs=1e-4)


def test_the_same_run_twice_is_the_run(study):
    folder, _ = study
    runs, _ = found(folder, ())
    of_one = ensembles._joined([runs[0]] * 2, [RunDirectory(folder / runs[0].key)] * 2)
    assert np.array_equal(of_one.predictions.last, runs[0].predictions.last)
    assert of_one.metrics["test/accuracy"] == runs[0].metrics["test/accuracy"]


def test_the_order_of_keys_is_no_other_ensemble(study):
    folder, keys = study
    runs, _ = found(folder, ())
    assert ensembles.add(folder, runs, keys) == ensembles.add(folder, runs, keys[::-1])


def test_an_edited_one_is_named_and_not_used(study):
    folder, keys = study
    path = ensembles.add(folder, found(folder, ())[0], keys)
    told = json.loads(path.read_text())
    told["metrics"]["test/accuracy"] = 0.99
    path.write_text(json.dumps(told))
    joined, (unused,) = ensembles.kept(path.parent)
    assert joined == [] and "does not match its checksum" in str(unused)


def test_the_row_stays_without_the_runs_directories(study, make):
    """Asked for once, it is in every report of the study, and of a clone that has kept/ alone."""
    folder, keys = study
    _, text = make("mine", "tracking=none", f"ensemble=[{','.join(map(repr, keys))}]")
    assert "## Ensembles" in text and "only the ensemble is right" in text
    page = (folder / "report.html").read_bytes()
    assert b"ant/399.jpg" in page and b"image 399" not in page
    for key in keys:
        rmtree(folder / key)
    make("mine", "tracking=none")
    assert (folder / "report.html").read_bytes() == page
    assert "Ensembles,mean of 2: " in (folder / "table.csv").read_text().replace('"', "")


def test_what_is_kept_alone_says_what_is_missing(study, make):
    folder, keys = study
    make("mine", "tracking=none")
    rmtree(folder / keys[0])
    with pytest.raises(InputError, match=r"the probabilities of all classes\. Copy the directory"):
        make("mine", "tracking=none", f"ensemble=[{','.join(map(repr, keys))}]")


def test_a_run_without_logits_and_no_run_are_one_message(study):
    folder, keys = study
    runs, _ = found(folder, ())
    with pytest.raises(InputError, match="0000000000 is no run of the study"):
        ensembles.add(folder, runs, [keys[0], "0000000000"])
    RunDirectory(folder / keys[1]).logits("best").unlink()
    with pytest.raises(InputError, match=r"has no logits.*Type .*its training command"):
        ensembles.add(folder, runs, keys)


def test_other_classes_are_named(study):
    folder, keys = study
    runs = [
        dataclasses.replace(run, data=run.data | {"classes": ["ant", "bee", "cow", "dog"]})
        if run.key == keys[1] else run
        for run in found(folder, ())[0]
    ]  # fmt: skip
    with pytest.raises(InputError, match=r"4 and 4 classes; not in both: "):
        ensembles.add(folder, runs, keys)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("ensemble=0123456789,1e23456789", 'ensemble=["0123456789","1e23456789"]'),
        ("ensemble=['0123456789', 1e23456789]", 'ensemble=["0123456789","1e23456789"]'),
        ("ensemble=null", "ensemble=null"),
        ("study=ensemble", "study=ensemble"),
    ],
)
def test_keys_are_texts_though_some_read_as_numbers(word, expected):
    assert typed._as_list(word) == expected


@pytest.mark.parametrize("value", ["0123456789", "best,0123456789", "0123456789,", "A,A"])
def test_what_is_no_ensemble_is_one_message(value):
    with pytest.raises(InputError, match=r"is no ensemble|has a key twice"):
        typed._as_list(f"ensemble={value.replace('A', '0123456789')}")


def test_a_moved_study_has_its_ensembles(study, tmp_path):
    folder, keys = study
    ensembles.add(folder, found(folder, ())[0], keys)
    copytree(folder, tmp_path / "moved")
    assert ensembles.kept(tmp_path / "moved" / "kept" / "ensembles")[0][0].pair == (0, 0, 1.0)
