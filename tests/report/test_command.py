"""The command, from a run to its report."""

import errno
import json
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from caltech.errors import CaltechError, InputError
from caltech.flags import listed
from caltech.report import command
from caltech.report.sources import options, unknown
from caltech.report.sources.directories import found
from caltech.report.sources.kept import keep, kept
from caltech.train import train
from tests.conftest import REPOSITORY
from tests.report.conftest import accuracies, described, made_up, table, trained

TINY = ("model=timm", "model.name=test_resnet", "model.weights=null", "data.resize=40")


def test_a_run_is_reported_and_its_page_is_the_same_without_its_data(configure, store, make):
    places = [f"tracking.uri={store.uri}", f"tracking.artifacts={store.folder}/artifacts"]
    fast = ["num_epochs=2", "batch_size=16", "lr=0.1", "freeze=none"]
    cfg = configure("tracking=mlflow", *places, *fast, "study=real", *TINY, "data.crop=32")
    _, described_so = described(*TINY)
    train(cfg, {name: described_so.params[name] for name in options.GROUPS})
    data = [f"data.caltech101.{k}={cfg.data[k]}" for k in ("root", "resize", "crop", "cache")]
    make("real", "tracking=none", f"output={cfg.output}", *data)
    from_directory = files_of(Path(cfg.output) / "real")
    folder, text = make("real", *places[:1], *data)
    assert files_of(folder) == from_directory  # elsewhere, and from the store
    result = json.loads((Path(cfg.directory) / "result.json").read_text())
    assert accuracies(text, "Runs") == {"timm": f"{result['last']['test/accuracy']:.4f}"}
    answered = np.load(Path(cfg.directory) / "predictions_last.npz")
    (run,), _ = kept(folder / "kept")
    assert run.images("validation") == 10 and run.data["classes"][0] == "accordion"
    assert (run.predictions.last == answered["predictions"]).all()
    wrong = (answered["predictions"] != answered["labels"]).sum()
    assert wrong > 0
    gallery = (folder / "gallery.html").read_text()
    assert gallery.count("data:image/jpeg") == min(wrong, 24)

    written = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert "gallery.html beside this page" in (folder / "report.html").read_text()
    (folder / "gallery.html").unlink()
    make("real", *places[:1])
    assert not (folder / "gallery.html").exists()
    written.pop(folder / "gallery.html")
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == written


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("*.*")}


def test_a_study_that_is_not_there(make, tmp_path):
    (tmp_path / "another" / "kept").mkdir(parents=True)
    (tmp_path / "another" / "kept" / "KEY.json").touch()
    with pytest.raises(InputError, match=r"study=nowhere has no run .*: another"):
        make("nowhere", "tracking=none")
    with pytest.raises(InputError, match="the name of a folder in output"):
        make("..", "tracking=none")


def test_two_studies_are_one_report_whose_rows_say_which_they_are_from(make, tmp_path):
    first, both = trained(tmp_path / "one", "lr=1"), trained(tmp_path / "two", "lr=2")
    trained(tmp_path / "one", "lr=2")
    folder, text = make(["one", "two"], "tracking=none")
    assert folder.name == "one+two" and text.startswith("# Study one+two\n")
    told = {row["lr"]: row["from"] for row in table(text, "Runs")}
    assert told == {"1e0": "one", "2e0": "one and two"}  # the same key is the same run
    page = (folder / "report.html").read_text()
    assert f'href="../one/kept/{first.name}.json"' in page
    assert (tmp_path / "one" / "kept" / f"{both.name}.json").is_file()
    with pytest.raises(InputError, match="study=three has no run"):
        make(["one", "three"], "tracking=none")
    (folder / "kept").mkdir()
    with pytest.raises(InputError, match=r"one\+two is a study of its own.* would be lost"):
        make(["one", "two"], "tracking=none")


def test_two_studies_that_differ_in_a_run_are_two_rows_and_nobody_s_seeds_vanish(make, tmp_path):
    """As after an edit of the code. A third that says what the first does is in the first's row."""
    edited = {"accuracy": 0.6, "started": 9, "code": {"git": "later", "sha256": "e" * 16}}
    for seed in (0, 1):
        trained(tmp_path / "one", f"seed={seed}", accuracy=0.3)
    trained(tmp_path / "two", "seed=0", **edited)
    trained(tmp_path / "two", "seed=1", status="running")  # hides none that is finished
    trained(tmp_path / "three", "seed=2", accuracy=0.3)
    folder, text = make(["one", "two", "three"], "tracking=none")
    told = {row["from"]: row["TESTING ACC"] for row in table(text, "Runs")}
    assert told == {"one and three": "0.3000 ± 0.0000", "two": "0.6000"}
    assert "1: from=two / 2: from=one and three | 120 | 0 |" in text
    assert "significantly better than 1 of 1" in (folder / "report.html").read_text()
    (sweep := tmp_path / "two" / "sweeps" / "20261125T10Z-a").mkdir(parents=True)
    (sweep / f"{made_up().key}-0.json").touch()
    _, text = make(["one", "two"], "tracking=none", "sweeps=20261125")
    told = [row["from"] for row in table(text, "Runs")]
    assert told == [f"{sweep.name} in two", f"{sweep.name} in one"]


def test_two_studies_that_differ_in_an_experiment_are_both_compared(make, tmp_path):
    for name, accuracy in (("one", 0.3), ("two", 0.9)):
        trained(tmp_path / name, "experiment=scratch/model3", accuracy=accuracy)
    _, text = make(["one", "two"], "tracking=none")
    told = accuracies(text, "Training from Scratch")
    assert told["Model 3: from=one"].endswith("agrees)")
    assert told["Model 3: from=two"].endswith("better)")


def test_sweeps_of_a_study_are_one_report_and_other_runs_are_not_in_it(make, tmp_path):
    runs = [trained(tmp_path / "one", f"lr={n}") for n in (1, 2, 3)]
    for name, run in zip(("20261125T10Z-a", "20261126T10Z-b"), runs, strict=False):
        (tmp_path / "one" / "sweeps" / name).mkdir(parents=True)
        (tmp_path / "one" / "sweeps" / name / f"{run.name}-0.json").touch()
    folder, text = make("one", "tracking=none", "sweeps=[20261125,20261126]")
    assert folder.name == "one+20261125T10Z-a+20261126T10Z-b"
    assert [row["from"] for row in table(text, "Runs")] == folder.name.split("+")[1:]
    with pytest.raises(InputError, match=r"sweeps=1999 is no sweep of one .*20261126T10Z-b\."):
        make("one", "tracking=none", "sweeps=1999")


@pytest.mark.parametrize(
    ("typed", "taken"),
    [("study=a,b", "study=[a,b]"), ("study='a,b'", "study='a,b'"), ("order=a,b", "order=a,b")],
)
def test_a_list_of_studies_is_typed_with_commas(typed, taken):
    assert listed(typed) == taken


def test_a_study_with_a_comma_is_told_as_it_is_typed(tmp_path):
    """Hydra and a shell would each take it for something else."""
    trained(tmp_path / "w<e>&i|r$d_`s,ü", "lr=1")
    with pytest.raises(InputError) as told:
        unknown.require_known(OmegaConf.create({}), tmp_path, ["w<e>&i|r$d_`s", "ü"])
    (word,) = shlex.split(str(told.value).rpartition(" Type ")[2].rstrip("."))
    assert listed(word) == 'study="w<e>&i|r$d_`s,ü"'


def test_a_mistyped_study_is_told_before_anything_heavy_is_loaded(tmp_path):
    """Known are runs, what is kept, rows that are published, and what a store has."""
    (tmp_path / "mine" / "a").mkdir(parents=True)
    (tmp_path / "mine" / "a" / "config.yaml").touch()
    (tmp_path / "kept" / "kept").mkdir(parents=True)
    (tmp_path / "kept" / "kept" / "a.json").touch()
    with closing(sqlite3.connect(tmp_path / "a.db")) as store:
        store.executescript("CREATE TABLE tags (key, value); INSERT INTO tags VALUES ('study','s')")
    none, server = OmegaConf.create({}), OmegaConf.create({"uri": "http://127.0.0.1:9"})
    tracked = OmegaConf.create({"uri": f"sqlite:///{tmp_path}/a.db"})
    for tracking, study in ((none, "mine"), (none, "kept"), (none, "course"), (tracked, "s")):
        unknown.require_known(tracking, tmp_path, [study])
    unknown.require_known(server, tmp_path, ["other"])  # to ask it takes seconds
    for tracking in (none, tracked, OmegaConf.create({"uri": f"sqlite:///{tmp_path}/none.db"})):
        with pytest.raises(InputError, match=r"study=mien has no run .* Type study=mine\."):
            unknown.require_known(tracking, tmp_path, ["mine", "mien"])
    program = "import sys; import caltech.report.typed, caltech.predict, caltech.export; "
    program += "assert not {'torch', 'scipy', 'mlflow', 'matplotlib'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, check=True)


@pytest.mark.slow
def test_a_report_of_directories_and_kept_results_imports_neither_torch_nor_mlflow(tmp_path):
    trained(tmp_path / "mine", "lr=1")
    keep(tmp_path / "mine" / "kept", [made_up("lr=2")], [])
    code = (
        "import sys; from caltech.report.typed import main; main(); "
        "assert not {'torch', 'mlflow', 'torchvision'} & set(sys.modules)"
    )
    typed = ["study=mine", f"output={tmp_path}", f"tracking.uri=sqlite:///{tmp_path}/none.db"]
    own = {"cwd": tmp_path, "env": os.environ | {"PYTHONPATH": str(REPOSITORY)}}
    ended = subprocess.run(
        [sys.executable, "-c", code, *typed], capture_output=True, text=True, **own
    )
    assert (ended.returncode, ended.stderr) == (0, "") and "lr=2.0" in ended.stdout


def test_two_reports_at_once_remove_the_pictures_of_an_earlier_one(tmp_path, monkeypatch):
    (tmp_path / "pictures").mkdir()
    gone = tmp_path / "pictures" / "1-sweep.png"  # listed, and then removed by the other
    monkeypatch.setattr(Path, "glob", lambda folder, pattern: [gone])
    command.write(tmp_path, {})


UNWRITABLE = ("of_another_user", "a file in its place", "kept is a file", "table.md is a folder")


@pytest.mark.parametrize("how", UNWRITABLE)
def test_a_folder_that_cannot_be_written_is_one_error(make, tmp_path, monkeypatch, how):
    folder = tmp_path / "mine"
    trained(folder, "lr=1")
    if how == "of_another_user":
        monkeypatch.setattr(Path, "mkdir", refused)  # of root nothing is refused
    elif how == "a file in its place":
        trained(tmp_path / "other", "lr=1")
        shutil.rmtree(folder)
        folder.write_text("")
    else:
        path = folder / how.split()[0]
        path.write_text("") if "kept" in how else path.mkdir()
    with pytest.raises(CaltechError, match=r"(cannot|may not) be written|has no run"):
        make("mine", "tracking=none")


def refused(path: Path, *args, **kwargs) -> None:
    raise PermissionError(errno.EACCES, "Permission denied", str(path))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_what_another_user_may_not_read_is_named_and_not_write_is_an_error():
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        folder = Path(place) / "mine"
        paths = [trained(folder, overrides) for overrides in ("lr=1", "lr=2", "lr=3")]
        keep(folder / "kept", [made_up("lr=4")], [])
        (paths[0] / "config.yaml").chmod(0)
        paths[1].chmod(0)
        (folder / "kept").chmod(0)
        os.seteuid(65534)
        try:
            runs, unused = found(folder, ())
            unused += kept(folder / "kept")[1]
            with pytest.raises((OSError, CaltechError)):
                command.write(folder, {"table.md": b""})
        finally:
            os.seteuid(0)
        assert [run.params["lr"] for run in runs] == ["3.0"]
        named = [paths[0].name, paths[1].name, "kept"]
        assert sorted(each.name for each in unused) == sorted(named)
        assert all("Permission denied" in each.why for each in unused)


def test_the_command_line_of_which_a_pipe_reads_a_line(tmp_path):
    """Without runs it is a list of what to run; nothing but the report is written."""
    command = f"{sys.executable} -m caltech.report tracking=none output=out | head -n 1"
    own = {"cwd": tmp_path, "env": os.environ | {"PYTHONPATH": str(REPOSITORY)}}
    shown = subprocess.run(command, shell=True, capture_output=True, text=True, **own)
    assert (shown.stdout, shown.stderr) == ("# Study course\n", "")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    folder = tmp_path / "out" / "course"
    assert sorted(path.name for path in folder.iterdir()) == [
        "report.html",
        "table.csv",
        "table.md",
    ]
    text = (folder / "table.md").read_text()
    named = re.findall(r"^python -m caltech.train experiment=(\S+)$", text, re.MULTILINE)
    files = REPOSITORY.glob("conf/experiment/*/*.yaml")
    files = [path for path in files if "study: course" in path.read_text()]
    assert sorted(named) == sorted(f"{path.parent.name}/{path.stem}" for path in files)


def test_a_gallery_of_one_s_own_images_has_their_names(tree, compose_in, tmp_path, make):
    """By the run's own directory; no image is decoded but those that are shown."""
    images = tree / "caltech101" / "101_ObjectCategories"
    own = [f"data.root={images}", f"cache={tmp_path / 'cache'}", "data.name=photos"]
    fast = [*TINY, "data.crop=32", "num_epochs=1", "freeze=none", "data.cache_pixels=false"]
    cfg = compose_in(tmp_path, "data=digits", "data=folder", *own, *fast, "study=mine")
    train(cfg)
    folder, _ = make("mine", "tracking=none")
    assert re.search(r"<br>wild_cat/image_\d{4}\.jpg<", (folder / "gallery.html").read_text())
    assert not (tmp_path / "cache" / "pixels").exists()


def test_a_study_may_have_a_number_for_its_name(make, tmp_path):
    trained(tmp_path / "2026", "seed=0")
    folder, text = make(2026, "tracking=none")  # as Hydra reads it
    assert folder.name == "2026" and table(text, "Runs")
