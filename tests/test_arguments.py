"""Words of the commands that Hydra does not read: errors are one line in our words."""

from pathlib import Path

import pytest

from caltech.arguments import Parser, nearest


def test_what_must_be_typed_is_told_with_what_it_is(capsys):
    made = Parser("caltech", "")
    made.add_argument("images", metavar="IMAGE", nargs="+", help="file, folder or glob")
    with pytest.raises(SystemExit):
        made.read([])
    said = "error: IMAGE is missing: file, folder or glob. Type --help to see more.\n"
    assert capsys.readouterr().err == said


@pytest.fixture
def parser() -> Parser:
    made = Parser("caltech", "")
    made.add_argument("images", metavar="IMAGE", nargs="*")
    made.add_argument("study", nargs="?")
    made.add_argument("--json", action="store_true")
    made.add_argument("--format", choices=("safetensors", "onnx", "mlflow"), required=True)
    made.add_argument("--to", metavar="FOLDER", type=Path)
    made.add_argument("--tolerance", type=float)
    return made


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("format=onxx", "format=onxx is not allowed: it is one of safetensors, onnx, mlflow. "
         "Type format=onnx"),
        ("--format ONNX", "Type format=onnx"),
        ("--format zzz", "Type format=safetensors"),
        ("--format", "format has no value: it is one of safetensors, onnx, mlflow."),
        ("--format=", "format has no value"),
        ("format=onnx to=", "to has no value. Type to=FOLDER"),
        ("--format --json", "format has no value"),
        ("", "format is missing: it is one of safetensors, onnx, mlflow. Type format=safetensors"),
        ("format=onnx format=mlflow", "format=onnx and format=mlflow cannot both be"),
        ("format=onnx --tolerance abc", "tolerance=abc is not allowed: it is a number. "
         "Type tolerance=1e-4"),
        ("format=onnx --jsn", "--jsn is no option. Type --json"),
        ("format=onnx json=true", "--json takes no value. Type --json"),
        ("frmat=onnx", "frmat=onnx is no option. Type format=onnx"),
        ("format = onnx", "format = onnx is torn apart by spaces. Type format=onnx"),
    ],
)  # fmt: skip
def test_each_mistake_is_one_line(parser, capsys, words, said):
    with pytest.raises(SystemExit) as stopped:
        parser.read(words.split())
    told = capsys.readouterr().err
    assert stopped.value.code == 2
    assert said in told and told.startswith("error: ") and told.count("\n") == 1
    assert "invalid" not in told and "argument" not in told and "expected" not in told


def test_a_value_can_be_typed_in_each_form_and_twice_the_same(parser):
    given = parser.read(["a.jpg", "format=onnx", "--to", "x", "study=mine", "--format", "onnx"])
    assert (given.format, given.to, given.study) == ("onnx", Path("x"), "mine")
    assert given.images == ["a.jpg"]


def test_the_nearest_is_found_in_any_case_or_is_none():
    assert nearest("Pohtos", ["photos", "Other"]) == "photos"
    assert nearest("zzz", ["photos"]) == ""
