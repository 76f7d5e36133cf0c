"""Of all that there is of a study, which counts."""

import json
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest

from caltech.errors import InputError
from caltech.report.sources.asked import _agreeing
from caltech.report.sources.directories import found
from caltech.report.sources.kept import keep, kept
from caltech.report.sources.study import combine, completed
from tests.report.conftest import accuracies, made_up, trained


def test_which_run_of_a_key_counts():
    """A directory's finished one, the newest finished one, a directory's, the store's, a pruned."""
    finished = made_up("lr=1", started=1)
    bare = replace(finished, predictions=None)
    pruned, running = replace(bare, status="pruned"), replace(bare, status="running", started=2)
    newer = replace(finished, started=3)
    assert combine([], [pruned], []) == [pruned]
    assert combine([], [pruned], [running]) == [running]  # the same, that goes on
    assert combine([], [finished], [running]) == combine([], [finished], [pruned]) == [finished]
    assert combine([], [pruned], [finished]) == [finished]
    assert combine([], [], [newer, running, finished]) == [newer]
    assert combine([finished], [newer], [newer])[0].started == 1  # a directory is the truth
    assert combine([running], [pruned], [replace(running, status="failed", started=9)]) == [running]
    assert combine([running], [], [finished]) == [finished]
    assert combine([], [finished], [newer]) == combine([], [newer], [finished]) == [newer]


def test_a_report_is_remade_from_kept_results(store, make, caplog):
    """From the store, without its files, and without the store; what was edited is made anew."""
    files = [store.add("study=kept", f"seed={seed}", accuracy=0.3) for seed in (0, 1)]
    tracking = f"tracking.uri={store.uri}"
    folder, _ = make("kept", tracking)

    def written() -> dict[str, bytes]:
        return {str(p): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    before = written()
    assert len(before) == 3 + 4
    for path in (folder / "kept").glob("*.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"seconds": 1e6}))
    make("kept", tracking)
    assert written() == before and "made again: it does not match its checksum" in caplog.text
    for path in files:
        shutil.rmtree(path)
    make("kept", tracking)
    assert written() == before
    for path in folder.glob("*.*"):
        path.unlink()
    make("kept", "tracking=none")
    assert written() == before


def test_what_was_kept_completes_a_directory_of_the_very_run(tmp_path):
    trained(tmp_path, "lr=1", is_old=True)
    (run,), _ = found(tmp_path, ())
    known = replace(run, started=7, experiment="mine", params=run.params | {"model": "a_name"})
    lost = replace(run, predictions=None)
    told = completed(lost, [known])
    assert (told.started, told.experiment, told.params["model"]) == (7, "mine", "a_name")
    assert told.predictions is run.predictions
    assert completed(run, [replace(known, metrics={})]) is run


def other(run, rounding: float, **changes):
    """As another machine computes it: losses in another order of sums."""
    history = run.history | {"val/loss": [v * (1 + rounding) for v in run.history["val/loss"]]}
    return replace(run, history=history, seconds=9.0, started=5, **changes)


@pytest.mark.parametrize("rounding", [0.0, 1e-5])
def test_what_a_colleague_kept_stays_if_it_is_the_same_run_but_for_rounding(
    tmp_path, make, caplog, rounding
):
    folder = tmp_path / "mine"
    trained(folder, "lr=1")
    keep(folder / "kept", [other(found(folder, ())[0][0], rounding)], [])
    before = {path: path.read_bytes() for path in (folder / "kept").iterdir()}
    text = make("mine", "tracking=none")[1]
    assert {path: path.read_bytes() for path in (folder / "kept").iterdir()} == before
    shutil.rmtree(folder / made_up("lr=1").key)
    clone = make("mine", "tracking=none")[1]
    assert clone.rpartition("\nAll runs")[0] == text.rpartition("\nAll runs")[0]
    assert not caplog.messages


OTHERS = ({"rounding": 1e-3}, {"rounding": 0.0, "code": {"git": "x", "sha256": "other"}})


@pytest.mark.parametrize("changes", OTHERS)
def test_what_was_kept_of_other_numbers_or_code_is_replaced_and_told_once(
    tmp_path, make, caplog, changes
):
    """So a rerun of this machine is kept, and a colleague's result can be taken back."""
    folder = tmp_path / "mine"
    key = trained(folder, "lr=1", accuracy=0.6).name
    (run,), _ = found(folder, ())
    keep(folder / "kept", [other(run, **changes)], [])
    make("mine", "tracking=none")
    (message,) = caplog.messages
    here = "here: validation 0.6000, test 0.6000"
    assert f"{key} (kept: validation 0.6000, test 0.6000; {here}" in message
    assert f"git checkout -- {folder}/kept/{key}.csv {folder}/kept/{key}.json`" in message
    assert ("by other code" in message) == ("code" in changes)
    (now,), _ = kept(folder / "kept")
    assert (now.history, now.code) == (run.history, run.code)
    make("mine", "tracking=none")
    assert caplog.messages == [message]


def test_a_study_on_disk_is_reported_without_a_store(tmp_path, make, caplog):
    """tracking=none, or a store that does not answer: one warning. Then it is an error alone."""
    folder = tmp_path / "mine"
    trained(folder, "lr=1", accuracy=0.3)
    trained(folder, "lr=2", status="running")
    _, text = make("mine", "tracking=none")
    assert accuracies(text, "Runs") == {"1": "0.3000", "2 (a)": "interrupted after epoch 3"}
    assert "(a) interrupted after epoch 3: does not count." in text and not caplog.messages
    (tmp_path / "no.db").write_text("this is no database")
    nowhere = f"tracking.uri=sqlite:///{tmp_path}/no.db"
    assert make("mine", nowhere)[1] == text
    (message,) = caplog.messages
    assert "cannot be read" in message and str(folder) in message
    with pytest.raises(InputError, match="cannot be read"):
        make("another", nowhere)


def test_where_rows_are_from_is_told_and_is_no_part_of_the_report(tmp_path, make, store):
    """So that it is the same wherever it is made."""
    folder = tmp_path / "whence"
    trained(folder, "lr=1", "seed=0", accuracy=0.3)
    keep(folder / "kept", [made_up("lr=1", "seed=1", accuracy=0.3)], [])
    store.add("study=whence", "lr=3", accuracy=0.4)
    told = make("whence", f"tracking.uri={store.uri}")[1].split("\n")[-3:]
    assert sorted(told) == sorted([
        f"From {folder}: 2: lr=1.0 (seed 0).",
        f"From {folder / 'kept'}: 2: lr=1.0 (seed 1).",
        f"From the store {store.uri}: 1: lr=3.0.",
    ])  # fmt: skip
    before = {path: path.read_bytes() for path in folder.glob("*.*")}
    told = make("whence", "tracking=none")[1].split("\n")
    assert f"From {folder / 'kept'}: 1: lr=3.0; 2: lr=1.0 (seed 1)." in told
    assert {path: path.read_bytes() for path in folder.glob("*.*")} == before


def test_what_is_not_used_is_told_in_the_report(tmp_path, make, caplog):
    trained(tmp_path / "mine", "lr=1")
    path = trained(tmp_path / "mine", "lr=2")
    (path / "result.json").write_text("{}")
    _, text = make("mine", "tracking=none")
    line = f"{path.name} is not used:"
    assert f"\n- {line}" in text and [m for m in caplog.messages if m.startswith(line)]
    assert line in (tmp_path / "mine" / "report.html").read_text()


@pytest.mark.parametrize("suffix", ["json", "csv"])
def test_what_this_report_mends_is_told_on_the_terminal_alone(tmp_path, make, caplog, suffix):
    """As after a conflict in git: the next report has the same bytes."""
    key = trained(tmp_path / "mine", "lr=1").name
    folder, whole = make("mine", "tracking=none")
    path = folder / "kept" / f"{key}.{suffix}"
    before = path.read_text()
    path.write_text(f"<<<<<<< HEAD\n{before}=======\n{before}>>>>>>> theirs\n")
    assert make("mine", "tracking=none")[1] == whole and path.read_text() == before
    assert [m for m in caplog.messages if m.startswith(f"kept/{key}.{suffix} is made again: ")]
    path.write_text("")
    shutil.rmtree(tmp_path / "mine" / key)
    if suffix == "csv":  # which nobody has any more
        assert f"kept/{key}.csv is not used" in make("mine", "tracking=none")[1]


@pytest.mark.parametrize("name", ["with space", "100%_?#&+", "a'b\"c", "é$(x)`y`", "-[*]"])
def test_a_study_that_was_moved_is_the_same(tmp_path, make, name):
    """And one that was copied, whatever the folders are called."""
    trained(tmp_path / name, "lr=1")
    make(name, "tracking=none")

    def written(folder) -> dict[str, bytes]:
        return {
            str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()
        }

    before = written(tmp_path / name)
    place = tmp_path / f"moved {name}"
    place.mkdir()
    for moves in (shutil.copytree, shutil.move):
        shutil.rmtree(place / name, ignore_errors=True)
        moves(tmp_path / name, place / name)
        make(name, "tracking=none", f"output='{quoted(str(place))}'")
        assert written(place / name) == before


def quoted(text: str) -> str:
    return text.replace("'", "\\'")


def test_a_run_of_two_studies_is_one_row_if_it_differs_by_rounding_or_one_says_less():
    run = made_up()
    near = {name: value * (1 + 1e-7 * ("loss" in name)) for name, value in run.metrics.items()}
    less = {name: v for name, v in run.metrics.items() if name != "test/accuracy_per_class"}
    other = run.metrics | {"test/accuracy": 0.9}
    for metrics, rows in ((near, 1), (less, 1), (other, 2)):
        studies = {"one": [run], "two": [replace(run, metrics=metrics)]}
        found = {name: SimpleNamespace(runs=runs) for name, runs in studies.items()}
        assert len(_agreeing(found, run.point)) == rows
