"""Files of another run, and directories that hold another one: named, and not used."""

import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from caltech import export, predict
from caltech.errors import CaltechError, DamagedError, DiskError, HeldError, InputError
from caltech.files import read_sealed_json, write_json, write_sealed_json
from caltech.inference import formats
from caltech.keys import ADDED
from caltech.runs.directory import RunDirectory, previous_of
from caltech.runs.find import find
from caltech.runs.manifest import keys_of
from caltech.train import train
from tests.observers import TINY, Doing, Stopped, assert_equal, outcome, stop

OWN = [*TINY, "freeze=none", "batch_size=30"]


TWO = ["lr=0.05"], ["lr=0.02"]


@pytest.fixture(scope="module")
def trained(compose_in, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("trained")
    for own in TWO:
        train(compose_in(output, *OWN, *own))
    return output


@pytest.fixture
def two(trained, configure):
    """Configs of two finished runs that differ in their learning rate."""
    shutil.copytree(trained, configure().output)
    return [configure(*OWN, *own) for own in TWO]


def as_of_earlier_code(directory: RunDirectory) -> None:
    """Take away what was added after commit 8447d3f."""
    for path in (directory.manifest, directory.identity, directory.history):
        path.unlink(missing_ok=True)
    provenance = read_sealed_json(directory.provenance)
    names = ("python", "torch", "platform", "device", "threads", "host")
    environment = {name: provenance["environment"][name] for name in names}
    config = OmegaConf.load(directory.config)
    for name in (*ADDED, "data.split"):
        group, _, key = name.rpartition(".")
        (config.get(group, {}) if group else config).pop(key, None)
    OmegaConf.save(config, directory.config)
    del provenance["key"]
    write_sealed_json(directory.provenance, provenance | {"environment": environment})
    if directory.checkpoint.is_file():
        saved = torch.load(directory.checkpoint, weights_only=True)
        del saved["key"], saved["progress"]["started"], saved["progress"]["origin"]
        for epoch in saved["progress"]["history"]:
            del epoch["ended"]
        torch.save(saved, directory.checkpoint)


def test_the_checkpoint_of_another_run_is_refused_and_stays(two, configure):
    stopped = [configure(*OWN, f"lr={cfg.lr}", "study=stopped") for cfg in two]
    for cfg in stopped:
        with pytest.raises(Stopped):
            train(cfg, observer=Doing(stop, at_epoch=1))
    a, b = (RunDirectory(cfg.directory) for cfg in stopped)
    own = a.checkpoint.read_bytes()
    shutil.copy(b.checkpoint, a.checkpoint)
    with pytest.raises(InputError, match=rf"is of run {two[1].key}, and this is run {two[0].key}"):
        train(stopped[0])
    assert a.checkpoint.read_bytes() == b.checkpoint.read_bytes() and not a.result.exists()
    shutil.copy(b.checkpoint, before := previous_of(a.checkpoint))
    with pytest.raises(InputError, match=f"{before} is of run {two[1].key}, .* Move both"):
        train(stopped[0])
    before.unlink()
    a.checkpoint.write_bytes(own)
    train(stopped[0])
    assert_equal(outcome(stopped[0]), outcome(two[0]))


@pytest.mark.parametrize("what", ["data", "weights"])
def test_a_checkpoint_of_the_same_key_that_is_of_other_data_is_refused(configure, what):
    """As one that was copied from a machine whose images under this name are others."""
    cfg = configure(*OWN)
    with pytest.raises(Stopped):
        train(cfg, observer=Doing(stop, at_epoch=1))
    directory = RunDirectory(cfg.directory)
    saved = torch.load(directory.checkpoint, weights_only=True)
    saved["progress"]["origin"][what] = 64 * "0"
    torch.save(saved, directory.checkpoint)
    with pytest.raises(InputError, match=f"is of run {cfg.key}, but from other {what}. Move it"):
        train(cfg)
    assert not directory.result.exists()


@pytest.mark.parametrize("is_old", [False, True])
def test_a_directory_that_holds_another_run_is_refused_before_any_work(
    configure, monkeypatch, is_old
):
    place = f"directory={configure().output}/x"
    first = configure(*OWN, place, "lr=0.05")
    train(first)
    if is_old:
        as_of_earlier_code(RunDirectory(first.directory))
    before = outcome(first)
    second = configure(*OWN, place, "lr=0.5")
    with monkeypatch.context() as patched:
        patched.setattr("caltech.train.build", lambda *_: pytest.fail("it works"))
        with pytest.raises(InputError, match=rf"x holds run {first.key}, and this .* {second.key}"):
            train(second)
    assert_equal(outcome(first), before)
    train(first)  # is answered


def test_a_folder_of_other_files_is_no_place_for_a_run(configure):
    """rerun=true would move them aside; a study's own folder is such a one, too."""
    folder = Path(configure().output) / "photos"
    folder.mkdir(parents=True)
    (folder / "a.jpg").touch()
    for place in (folder, folder.parent):
        with pytest.raises(
            InputError, match=r"holds no run, and other files: (a\.jpg|photos)\. Noth"
        ):
            train(configure(*OWN, f"directory={place}"))
    assert [path.name for path in folder.parent.rglob("*")] == ["photos", "a.jpg"]
    begun = RunDirectory(folder.parent / "begun")
    begun.path.mkdir()
    for path in (begun.log, begun.lock, begun.holder, *begun.checkpoints):
        path.touch()  # as Hydra makes it, or a process leaves it that was killed early
    begun.require_no_others()


def test_a_typed_key_is_refused(configure):
    with pytest.raises(InputError, match=r"key=abc is not allowed.*Leave key="):
        configure(*OWN, "key=abc")


@pytest.mark.parametrize("own", [{"micro_batch": "x"}, {"batch_size": "x"}])
def test_a_config_of_other_kinds_of_values_has_no_key_and_is_told(configure, own):
    plain = OmegaConf.to_container(configure(*OWN, "micro_batch=8"))
    with pytest.raises(DamagedError, match="holds other values than it wrote"):
        keys_of(OmegaConf.create(plain | {"key": "0123456789"} | own))


FILES = ["config.yaml", "provenance.json", "best.safetensors", "result.json"]


@pytest.fixture
def asking(two, tree, tmp_path):
    """Commands that use a finished run, with a word for each."""
    image = str(tree / "caltech101" / "101_ObjectCategories" / "Faces" / "image_0004.jpg")
    run, to = [f"run={two[0].directory}", "device=cpu"], f"to={tmp_path}/to"
    started = OmegaConf.merge(two[1], {"start": two[0].key, "key": "${run_key:}"})
    return {
        "predict": lambda: predict.main([image, *run]),
        "export": lambda: export.main(["format=safetensors", to, *run]),
        "start": lambda: train(started),
    }


@pytest.mark.parametrize("name", [*FILES, "predictions_best.npz"])
def test_a_file_of_another_run_is_named_and_not_used(two, asking, caplog, name):
    a, b = (Path(each.directory) for each in two)
    shutil.copy(b / name, a / name)
    for word, command in asking.items():
        if name == "predictions_best.npz" and word != "export":
            continue
        with pytest.raises(CaltechError) as error:
            command()
        assert f"{a / name} is not" in str(error.value) + caplog.text, word
    assert not (Path(two[0].output).parent / "to").exists()


def test_an_edited_config_is_named_and_not_used(two, asking):
    path = RunDirectory(two[0].directory).config
    for old, new in (("crop: 32", "crop: 24"), ("resize: 40", "resize: 48")):
        whole = path.read_text()
        path.write_text(whole.replace(old, new))
        for command in asking.values():
            with pytest.raises(DamagedError, match=r"config\.yaml is not"):
                command()
        with pytest.raises(DamagedError, match=r"config\.yaml is not .*rerun=true"):
            train(two[0])
        path.write_text(whole)


def test_of_a_run_of_earlier_code_the_config_is_known_by_its_key(two, asking):
    directory = RunDirectory(two[0].directory)
    as_of_earlier_code(directory)
    for command in asking.values():
        command()
    train(two[0])
    directory.config.write_text(directory.config.read_text().replace("crop: 32", "crop: 24"))
    with pytest.raises(DamagedError, match=rf"config\.yaml is not the config of run {two[0].key}"):
        asking["predict"]()


def test_the_best_run_is_of_those_whose_files_are_their_own(two, caplog):
    output = Path(two[0].output)
    best = find("best", None, None, output)
    shutil.copytree(best.path, best.path.with_name("0123456789"))
    path = best.provenance
    path.write_bytes(path.read_bytes().replace(b"caltech101", b"caltech102"))
    other = find("best", None, None, output)
    assert other.path.name not in (best.path.name, "0123456789")
    assert f"{path} is not the file" in caplog.text and "holds run" in caplog.text
    with pytest.raises(DamagedError, match=r"is named as run 0123456789, and holds run"):
        find("0123456789", None, None, output)


def test_a_result_of_another_run_is_computed_again(two, caplog):
    a, b = (RunDirectory(each.directory) for each in two)
    expected = outcome(two[0])
    shutil.copy(b.result, a.result)
    train(two[0])
    assert f"{a.result} is not the file" in caplog.text and "without a result" in caplog.text
    assert_equal(outcome(two[0]), expected)


def test_an_unfinished_run_of_earlier_code_goes_on(configure):
    expected, cfg = (configure(*OWN, "num_epochs=3", f"study={name}") for name in "ab")
    train(expected)
    with pytest.raises(Stopped):
        train(cfg, observer=Doing(stop, at_epoch=1))
    as_of_earlier_code(RunDirectory(cfg.directory))
    train(cfg)
    assert_equal(outcome(cfg), outcome(expected))
    told = read_sealed_json(RunDirectory(cfg.directory).history)
    assert told["started"] is None and ["ended" in e for e in told["epochs"]] == [False, True, True]


def test_a_copied_study_has_runs_of_its_own(configure):
    cfg = configure(*OWN, "study=c1")
    with pytest.raises(Stopped):
        train(cfg, observer=Doing(stop, at_epoch=1))
    shutil.copytree(Path(cfg.output) / "c1", Path(cfg.output) / "c2")
    copy = configure(*OWN, "study=c2")
    train(cfg), train(copy)
    assert RunDirectory(cfg.directory).id != RunDirectory(copy.directory).id
    assert_equal(outcome(cfg), outcome(copy))


def test_two_that_train_one_run_without_locks_end_as_one(configure):
    """The second takes over in the middle of the first: that stops, and nothing is lost."""
    expected, cfg = (configure(*OWN, "num_epochs=4", f"study={name}") for name in "ab")
    train(expected)

    def second() -> None:
        RunDirectory(cfg.directory).lock.unlink()  # as if it did not reach the other host
        train(cfg)

    with pytest.raises(HeldError, match="taken over by another process"):
        train(cfg, observer=Doing(second, at_epoch=2))
    assert_equal(outcome(cfg), outcome(expected))
    assert not RunDirectory(cfg.directory).holder.exists()


def test_a_file_that_another_process_removed_where_locks_do_not_reach_is_told_as_that(
    configure, monkeypatch
):
    cfg = configure(*OWN)

    def taken_over(*_) -> None:
        write_json(
            RunDirectory(cfg.directory).holder, {"token": "of another", "pid": 1, "host": "x"}
        )
        raise DiskError("its temporary file is gone")

    monkeypatch.setattr("caltech.runs.checkpoint.save", taken_over)
    with pytest.raises(HeldError, match="taken over by another process"):
        train(cfg)


def test_a_folder_of_any_name_can_be_moved(configure, compose_in, tree, tmp_path, capsys):
    """Finished runs answer and are exported, and unfinished ones go on, where they are now."""
    image = str(tree / "caltech101" / "101_ObjectCategories" / "Faces" / "image_0004.jpg")
    place = "100% a?b#c 'd' \"e\" new\nline ünï çødé 例 ;&$d"

    def cfg_in(folder: Path, *own: str):
        cfg = compose_in(tmp_path, *OWN, *own)
        cfg.output = str(folder)
        return cfg

    finished, killed = cfg_in(tmp_path / place), cfg_in(tmp_path / place, "seed=1")
    train(finished)
    with pytest.raises(Stopped):
        train(killed, observer=Doing(stop, at_epoch=1))
    ids = [RunDirectory(each.directory).id for each in (finished, killed)]
    moved = (tmp_path / place).rename(tmp_path / f"moved {place}")
    predict.main([image, f"run={finished.key}", f"output={moved}", "device=cpu", "--json"])
    to = tmp_path / "x" / place
    words = ["format=safetensors", f"to={to}", "device=cpu"]
    assert export.main([*words, f"run={finished.key}", f"output={moved}"]) == 0
    predict.main([image, f"run={to}", "device=cpu"])
    killed.output = finished.output = str(moved)
    train(killed), train(finished)
    assert [RunDirectory(each.directory).id for each in (finished, killed)] == ids
    assert not (tmp_path / place).exists()


def test_an_export_that_is_killed_leaves_nothing_behind(finished, tmp_path, monkeypatch):
    words = ["format=safetensors", f"run={finished}", "device=cpu"]
    child = os.fork()
    if not child:
        formats.compare = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        export.main([*words, f"to={tmp_path}/model"])
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert [path.name.endswith(".partial") for path in tmp_path.iterdir()] == [True]
    export.main([*words, f"to={tmp_path}/model"])
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: (path.unlink(), os.mkfifo(path))])
def test_a_finished_run_tells_which_of_its_files_are_gone(configure, caplog, harm):
    train(cfg := configure(*OWN))
    directory = RunDirectory(cfg.directory)
    directory.weights("last").unlink()  # as caltech clean last does
    train(cfg)
    assert "it had when it ended" not in caplog.text
    harm(directory.weights("best"))
    train(cfg)
    assert "WARNING: it has no best.safetensors; it had when it ended." in caplog.text
    with directory.history.open("a") as file:
        file.write(" ")
    train(cfg)
    assert "history.json: not as the run wrote it." in caplog.text
