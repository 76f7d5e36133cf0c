"""From Python: the same runs as from the command line, as often as one likes in a process."""

import contextlib
import shutil
import subprocess
import sys
import threading
from dataclasses import replace

import pytest
import torch
from hydra.core.global_hydra import GlobalHydra
from PIL import Image

import caltech
from caltech import config, interface
from caltech.errors import DamagedError, InputError
from caltech.inference.formats import export
from tests.conftest import REPOSITORY
from tests.examples.test_examples import HERE

WORDS = ("plugins=[tests.examples.parts]", "data=stripes", "model=small", "freeze=none",
         "num_epochs=2", "batch_size=8", "tracking=none", "device=cpu")  # fmt: skip


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    return tmp_path_factory.mktemp("interface")


@pytest.fixture(scope="module")
def result(output):
    return caltech.fit(*WORDS, "lr=0.2", f"output={output}", config_dir=HERE / "conf")


def test_import_alone_costs_nothing():
    program = "import sys, caltech; print({'torch', 'hydra', 'numpy'} & {*sys.modules})"
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, cwd=REPOSITORY, capture_output=True).stdout == b"set()\n"


def test_a_run_is_that_of_the_command_line_and_is_answered(result, output):
    again = caltech.fit(*WORDS, "lr=2e-1", f"output={output}", config_dir=HERE / "conf")
    other = caltech.fit(*WORDS, "lr=0.1", f"output={output}", config_dir=HERE / "conf")
    assert again == result and other.key != result.key
    assert result.directory == output / "default" / result.key
    assert 0 <= result.accuracies["test (best)"] <= 1
    assert not GlobalHydra.instance().is_initialized()  # nothing is left of ours


def test_progress_is_shown_unless_the_program_logs_by_itself(output):
    program = (
        f"import caltech; fit = lambda lr: caltech.fit(*{WORDS}, 'output={output}/shown', lr,"
        f" config_dir='{HERE / 'conf'}'); fit('lr=0.3'); import logging; print('own');"
        " logging.basicConfig(format='mine %(message)s', level='INFO'); fit('lr=0.4')"
    )
    command = [sys.executable, "-c", program]
    ended = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    before, after = ended.stdout.split("own\n")
    assert "epoch 2/2  lr 0.3" in before and "epoch" not in after
    assert ended.stderr.count("mine epoch") == 2


def test_keys_of_an_option_of_one_s_own_are_taken(output):
    words = (*WORDS, "num_epochs=1", "loss=poly", f"output={output}/own")
    ours, other = (
        caltech.fit(*words, f"loss.epsilon={epsilon}", config_dir=HERE / "conf")
        for epsilon in (2, 3.5)
    )
    assert ours.key != other.key
    with pytest.raises(InputError, match=r"loss\.epsilo is no key.*epsilon"):
        caltech.fit(*words, "loss.epsilo=2", config_dir=HERE / "conf")


@pytest.mark.parametrize(
    ("words", "said"),
    [(("pruner=median",), "pruner=median compares the jobs of a sweep"),
     (("--config-dir", "conf"), "--config-dir is a flag of the command line"),
     (("data=digits num_epochs=1",), r"fit\('data=digits', 'num_epochs=1'\)"),
     (("seeds=3",), "seeds=3 is of the command line"),
     (("output=/my out/x=1", "data=nothing"), "(?!.*several words)")],
)  # fmt: skip
def test_what_is_of_the_command_line_is_told(words, said):
    with pytest.raises(InputError, match=said):
        caltech.fit(*words)


def test_answers_that_were_edited_are_none(result, tmp_path):
    copied = shutil.copytree(result.directory, tmp_path / "copied")
    (copied / "predictions_best.npz").write_bytes(b"")
    with pytest.raises(DamagedError, match=r"predictions_best\.npz"):
        replace(result, directory=copied).predictions  # noqa: B018


def test_a_result_is_found_from_another_folder(output, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    words = (*WORDS, "num_epochs=1", "output=here")
    ours = caltech.fit(*words, config_dir=HERE / "conf")
    monkeypatch.chdir(output)
    assert len(ours.predictions) and ours.load().classes


def test_predictions_are_a_table_of_files(result):
    table = result.predictions
    assert list(table.columns) == ["file", "label", "answer", "probability"]
    assert set(table["label"]) == {"down", "across"} and table["file"][0] == "0/0"
    right = (table["label"] == table["answer"]).mean()
    assert right == pytest.approx(result.accuracies["test (best)"])


def test_a_sent_model_needs_nothing_else(result, output, tmp_path):
    """A directory that was moved, an export, the best of a folder: each answers the same."""
    exported = tmp_path / "export"
    export(result.load().predictor, "safetensors", exported, 1e-4)
    shutil.copytree(result.directory, tmp_path / "sent")
    image = Image.effect_noise((40, 30), 90)
    image.save(tmp_path / "noise.png")
    answers = []
    for run, place in ((exported, None), (tmp_path / "sent", None), ("best", output)):
        loaded = caltech.load(str(run), output=place)
        model, transform = loaded
        assert loaded.classes == ("down", "across")
        assert torch.equal(transform(image), transform(tmp_path / "noise.png"))
        answers.append(model(transform(image)[None]))
    assert torch.allclose(answers[0], answers[1])
    assert not answers[0].requires_grad and not model.training
    assert model.requires_grad_()(transform(image)[None]).requires_grad  # who asks for it
    (row,) = loaded.answer(tmp_path / "noise.png").to_dict("records")
    assert row["probability"] == pytest.approx(answers[2].max().item())


@pytest.mark.parametrize(
    ("given", "said"),
    [({"device": "tpu"}, "device=tpu is not allowed: it is one of auto, cpu"),
     ({"weights": "foo"}, "weights=foo is not allowed: it is one of last, best. Type weights=best"),
     ({"data": "nosuch"}, "is of data=stripes, and not of data=nosuch"),
     ({"study": "/abs"}, "it is the name of a folder in output, and no path")],
)  # fmt: skip
def test_what_is_asked_of_a_run_and_is_not_there_is_told(result, output, given, said):
    with pytest.raises(InputError, match=said):
        caltech.load(result.key, output=output, **given)


@pytest.mark.parametrize(
    ("word", "said"),
    [("lr=-1", "Type lr=1e-2"), ("modle=alexnet", "Type model=alexnet"),
     ("lr=0.1,0.2", "several values"), ("seeds=3", "fit is one run"),
     ("dry_run=true", "fit is one run"), (3, "is no word")],
)  # fmt: skip
def test_what_is_wrong_is_an_error_of_one_message(word, said):
    with pytest.raises(InputError, match=said):
        caltech.fit("data=digits", word)


def test_a_folder_of_options_that_is_not_there_is_told():
    with pytest.raises(InputError, match="config_dir=nowhere is no folder"):
        caltech.fit("data=digits", config_dir="nowhere")


def test_another_hydra_in_the_process_stays_as_it_is(monkeypatch):
    monkeypatch.setattr(GlobalHydra.instance(), "hydra", None)
    loader = object()
    monkeypatch.setattr(config.hydra._internal.hydra, "ConfigLoaderImpl", loader)
    with config.composing():
        assert config.hydra._internal.hydra.ConfigLoaderImpl is config.composer.Composer
    assert config.hydra._internal.hydra.ConfigLoaderImpl is loader
    assert GlobalHydra.instance().hydra is None


def test_two_threads_do_not_compute_at_once(result, output, monkeypatch):
    """They would draw one another's random numbers, and both results would be wrong."""
    said = []

    def refused():
        with pytest.raises(InputError, match="at work in another thread"):
            caltech.fit()
        said.append("so")

    def while_another_trains(*_):
        other = threading.Thread(target=refused)
        other.start()
        other.join()

    monkeypatch.setattr(interface, "train", while_another_trains)
    with contextlib.suppress(AttributeError):  # of what it gave: nothing was trained
        caltech.fit(*WORDS, "lr=0.2", f"output={output}", config_dir=HERE / "conf")
    assert said == ["so"]
    monkeypatch.undo()
    assert caltech.fit(*WORDS, "lr=0.2", f"output={output}", config_dir=HERE / "conf") == result
