"""Hydra's composing with our checks: by the command line, before anything is written."""

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.types import RunMode

from caltech.config import register
from caltech.errors import InputError
from caltech.settings import CONF


@pytest.fixture
def typed(forks, tmp_path):
    """A command's one message; that it left nothing behind."""

    def run(*words: str, module: str = "caltech.train") -> str:
        (ended,) = forks.run(words, module=module)
        assert ended.code != 0 and not list(tmp_path.iterdir()), ended.output
        (line,) = ended.output.splitlines()
        assert line.startswith("error: ")
        return line.removeprefix("error: ")

    return run


@pytest.mark.parametrize("mode", [[], ["--multirun", "lr=0.1,0.2"]])
@pytest.mark.parametrize("word", ["study=../x", "study=/abs", "key=x", "study="])
def test_nothing_is_written_outside_of_a_study(typed, tmp_path, mode, word):
    typed(*mode, f"output={tmp_path}/multirun", word)


def test_a_value_of_a_sweep_is_refused_before_its_first_job(typed, tmp_path):
    own = ["--multirun", f"output={tmp_path}/multirun"]
    assert typed(*own, "study=ok,../x").startswith("study=../x is not allowed: ")
    assert typed(*own, "lr=0.1,abc").startswith("lr=abc is not allowed: it is a number")
    assert typed(*own, "model=alexnet,resnet19").endswith("Type model=alexnet,resnet18.")


def test_flags_are_told_from_keys(typed):
    assert typed("--lr=0.1").endswith("Type lr=0.1.")
    assert typed("-lr", "0.1").endswith("Type lr=0.1.")
    assert typed("--data.resize=32").endswith("Type data.resize=32.")
    assert typed("--mutirun", "lr=0.1,0.2").endswith("Type --multirun.")
    assert typed("\N{EN DASH}-multirun").endswith("Type --multirun.")
    assert "it is one of job, hydra, all" in typed("--cfg", "jobs")


def test_two_options_of_a_group_cannot_both_be(typed):
    message = "model=alexnet and model=timm cannot both be. Type model=alexnet or model=timm."
    assert typed("model=alexnet", "model=timm") == message


def test_a_place_that_cannot_be_written_is_one_message(typed):
    assert typed("output=/dev/null/x").startswith("/dev/null/x/default/")


def test_the_other_commands_tell_it_in_the_same_words(typed):
    assert typed("stude=x", module="caltech.report").endswith("Type study=x.")
    assert typed("audit", "data.rot=/x", module="caltech.data").endswith("Type data.root=/x.")
    assert typed("cat.jpg", "rnu=best", module="caltech.predict").endswith("Type run=best.")
    assert "Type format=onnx" in typed("format", "=", "onnx", module="caltech.export")


@pytest.mark.parametrize("body", ["a: [1", "- 1", "hydra: [1]", "lr: abc", "study: ${x"])
def test_a_file_that_is_no_config_is_named(typed, tmp_path_factory, body):
    folder = tmp_path_factory.mktemp("sent")
    (folder / "experiment").mkdir()
    (folder / "experiment" / "sent.yaml").write_text(f"# @package _global_\n{body}\n")
    message = typed(f"--config-dir={folder}", "experiment=sent")
    assert message.startswith("No config can be made of experiment=sent: ")


def test_a_home_is_not_needed(monkeypatch):
    register()
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("CALTECH_CACHE", raising=False)
    with initialize_config_dir(config_dir=str(CONF)):
        assert compose("train").cache == "~/.cache/caltech"
        monkeypatch.setattr("pwd.getpwuid", lambda uid: (_ for _ in ()).throw(KeyError(uid)))
        with pytest.raises(InputError, match=r"cache=~/\.cache/caltech .*Type cache=/tmp/caltech"):
            compose("train")
        monkeypatch.setenv("CALTECH_CACHE", "/somewhere")
        assert compose("train").cache == "/somewhere"


def test_a_file_whose_values_would_be_nowhere_is_told(typed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    (folder / "experiment").mkdir()
    (folder / "experiment" / "mine.yaml").write_text("lr: 0.5\n")
    message = typed("--config-dir", str(folder), "experiment=mine")
    assert message.startswith(f"{folder}/experiment/mine.yaml: its values ")
    assert message.endswith("Type # @package _global_ as its first line.")


def test_configs_that_are_not_there(typed):
    assert typed("--config-name", "zzz").startswith("There is no zzz.yaml among the configs.")
    assert typed("--config-dir", "/nowhere").startswith("--config-dir /nowhere is no folder")


def test_a_folder_beside_configs_that_has_a_key_s_name(typed, tmp_path_factory):
    """Of the run's own cache, say: Hydra would look for cache= among its options."""
    folder = tmp_path_factory.mktemp("conf")
    (folder / "cache").mkdir()
    message = typed("--config-dir", str(folder), f"cache={folder}/cache")
    assert f"there is a folder cache in --config-dir {folder}" in message
    assert typed("--config-path", "x").startswith("--config-path x is no folder")


def test_what_is_typed_and_does_nothing_is_told(capsys):
    register()
    for words, said in (
        (["schedule=constant", "step_size=3"], "step_size=3 does nothing here: schedule=constant"),
        (["schedule=cosine", "gamma=0.5"], "gamma=0.5 does nothing here: schedule=cosine"),
        (["lr=0.1", "seed=1", "lr=0.2"], "lr=0.1 does nothing here: lr=0.2 is typed after it."),
        (["batch_size=8", "micro_batch=8"], "micro_batch=8 does nothing here: a step has 8 images"),
        (["batch_size=8", "micro_batch=4"], ""),
        (["micro_batch=${batch_size}"], ""),
        (["optimizer=adam", "momentum=0.5", "lr=0.1", "step_size=3"], ""),
    ):
        with initialize_config_dir(config_dir=str(CONF)):
            loader = GlobalHydra.instance().hydra.config_loader
            loader.load_configuration("train", words, RunMode.RUN)
        told = capsys.readouterr().err
        assert told.startswith(f"warning: {said}") if said else told == ""


def test_an_option_of_ours_is_not_taken_in_place_of_a_user_s(typed, tmp_path_factory):
    """Hydra takes the first of two files of one name, and says nothing of the other."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "loss").mkdir()
    own = folder / "loss" / "focal.yaml"
    own.write_text("_target_: caltech.training.loss.cross_entropy\nlabel_smoothing: 0.3\n")
    message = typed("--config-dir", str(folder), "loss=focal")
    assert message.startswith(f"{own} has the name of ") and "another name" in message
    own.write_bytes((CONF / "loss" / "focal.yaml").read_bytes())  # a copy of ours is ours
    assert "has the name of" not in typed("--config-dir", str(folder), "loss=focal", "lr=x")
