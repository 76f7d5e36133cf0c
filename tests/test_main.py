"""`caltech COMMAND`: the same as `python -m caltech.X`, and a table of what there is."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from caltech.__main__ import COMMANDS, main, table
from tests.forks import TINY, places

PROGRAM = """
import sys
from caltech.__main__ import main
sys.argv = ["caltech"]
main()
heavy = {"hydra", "omegaconf", "torch", "mlflow", "numpy"} & set(sys.modules)
sys.exit(f"imported: {heavy}" if heavy else 0)
"""


def test_alone_it_prints_a_table_and_imports_nothing():
    ended = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == f"{table()}\n"
    assert all(f"  {name} " in table() for name in COMMANDS)
    assert max(map(len, table().splitlines())) <= 80


def test_every_command_can_be_started():
    for command in COMMANDS.values():
        path = find_spec(command.module)
        is_folder = path.submodule_search_locations is not None
        path = find_spec(f"{command.module}.__main__") if is_folder else path
        assert "main(" in Path(path.origin).read_text()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("tarin data=digits", "tarin is no command. Type: caltech train data=digits"),
        ("Predict", "Type: caltech predict"),
        ("swep lr=1,2", "Type: caltech sweep lr=1,2"),
        ("lr=0.1", "Type: caltech train lr=0.1"),
        ("--multirun lr=1,2", "Type: caltech sweep lr=1,2"),
        ("qqqqqq", "Type: caltech --help"),
    ],
)
def test_an_unknown_word_is_one_message_with_the_nearest_right_one(forks, words, told):
    (ended,) = forks.run(words.split(), module="caltech")
    assert ended.code == 1
    assert ended.output.startswith("error: ") and told in ended.output
    assert ended.output.count("\n") == 1


@pytest.mark.parametrize(
    "name", ["predict", "export", "sweeps", "models", "runs", "clean", "audit", "ui", "completion"]
)
def test_help_fits_a_terminal(forks, name):
    (ended,) = forks.run([name, "--help"], module="caltech")
    assert ended.code == 0 and len(ended.output.splitlines()) > 2
    assert max(map(len, ended.output.splitlines())) <= 80, ended.output


def test_commands_keep_their_words_exit_codes_and_messages(forks, tmp_path):
    own = [*TINY, *places(tmp_path, tracking="none"), "num_epochs=1"]
    dry, bad, sweep, none = forks.run(
        ["train", *own, "dry_run=true"],
        ["train", *own, "lr=-1"],
        ["sweep", *own, "lr=0.1,0.2"],
        ["predict"],
        module="caltech",
    )
    assert dry.code == 0 and "new" in dry.output
    assert bad.code == 1 and bad.output.startswith("error: lr=-1.0 is not allowed")
    assert sweep.code == 0 and sweep.output.count("epoch 1/1") == 2
    assert none.code == 2 and none.output.startswith("error: ")


def test_ctrl_c_while_a_command_is_loaded_is_one_line(monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["caltech", "runs"])
    monkeypatch.setattr("caltech.__main__.runpy.run_module", interrupted)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
    assert capsys.readouterr() == ("", "interrupted\n")


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_terminal_alone_is_told_that_torch_is_loaded(monkeypatch, capsys, is_terminal):
    monkeypatch.setattr(sys, "argv", ["caltech", "train"])
    monkeypatch.setattr("caltech.__main__.runpy.run_module", lambda *_, **__: None)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: is_terminal, raising=False)
    main()
    assert ("loading torch" in capsys.readouterr().err) == is_terminal


def test_a_folder_that_was_removed_is_one_message(tmp_path):
    program = f"import os; os.chdir({str(tmp_path)!r}); os.rmdir({str(tmp_path)!r}); "
    program += (
        "import sys; sys.argv = ['caltech', 'train']; from caltech.__main__ import main; main()"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
    assert "The folder in which this is typed was removed" in ended.stderr
