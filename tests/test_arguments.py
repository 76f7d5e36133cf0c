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
        ("format =onnx to=x", "format =onnx is torn apart by spaces. Type format=onnx.\n"),
        ("format = to=x", "format has no value: it is one of safetensors"),
        ("a.jpg =onnx", "=onnx has no name before it. Type format=onnx"),
        ("study=a study=b format=onnx", "study=a and study=b cannot both be"),
        ("a.jpg --study=a study=b format=onnx", "study=a and study=b cannot both be"),
        ("format=onnx top=2", "top=2 is no option. Options are format=, study=, to=, tolerance=."),
        ("format=onnx --top 2", "--top is no option."),
        ("-x.png format=onnx", "-x.png is no option. Type -- -x.png at the end"),
        ("format=onnx -- to=x", "to=x stands after --, where no options are. Type to=x before --"),
        ("format=onnx -- --json", "--json stands after --"),
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


def test_a_place_and_an_option_of_its_name_cannot_both_be(capsys):
    for words in (["one", "study=two"], ["study=two", "one"], ["--study=two", "one"]):
        made = Parser("caltech", "")
        made.add_argument("study", nargs="?")
        with pytest.raises(SystemExit):
            made.read(words)
        assert "study=one and study=two cannot both be" in capsys.readouterr().err
    made = Parser("caltech", "")
    made.add_argument("study", nargs="?")
    assert made.read(["one", "study=one"]).study == "one"


@pytest.mark.parametrize("words", [["format=onnx", "--", "-x.png"], ["--", "-x.png"]])
def test_after_two_dashes_a_name_may_begin_with_one(words):
    made = Parser("caltech", "")
    made.add_argument("images", nargs="+")
    made.add_argument("--format")
    assert made.read(words).images == ["-x.png"]
    made = Parser("caltech", "")
    made.add_argument("images", nargs="+")
    made.add_argument("--format")
    assert made.read(["a=b/x.png", *words, "c"]).images == ["a=b/x.png", "-x.png", "c"]


def test_the_nearest_is_found_in_any_case_or_is_none():
    assert nearest("Pohtos", ["photos", "Other"]) == "photos"
    assert nearest("zzz", ["photos"]) == ""
