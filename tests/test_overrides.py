"""Words that were kept as one text are told apart, and the last of a name counts."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st

from caltech.flags import as_typed, listed, readable
from caltech.overrides import apart, effective, quoted, unquoted
from caltech.words import plain


def is_plain(text: str) -> bool:
    """What has no comma, and none of a text program's characters, which are told."""
    return plain(text) == text and "," not in text


@pytest.mark.parametrize(
    "words",
    [
        ["lr=0.1", "model=alexnet", "~schedule", "++data.root=/x"],
        ["data.root='/my images, lr=1'", "lr=2"],
        ["data.root=/my images/of 2026", "lr=2"],
        ["plugins=[one, a=b]", "published={a: 1, b: 2}", "start=\"'1234567e89'\""],
        ["label=it's", "lr=1", "hydra/sweeper=optuna", "pkg@data.x=1"],
        [],
    ],
)
def test_words_that_were_joined_are_told_apart(words):
    assert apart(" ".join(words)) == words


def test_of_one_name_the_last_counts():
    assert effective(["lr=1", "+x=1", "lr=2", "x=3", "~y"]) == ["lr=2", "x=3", "~y"]
    assert effective(["model.lr=1", "lr=1"]) == ["model.lr=1", "lr=1"]


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(st.text(st.characters(exclude_categories=("C", "Z")), min_size=1).filter(is_plain))
def test_a_path_of_any_letters_is_read_as_it_is_typed(name):
    """And is told as it is typed; what Hydra reads is left to it, as one value or as several."""
    typed = f"output=/{name} b"
    (word,) = readable([typed])
    read = OverridesParser.create().parse_override(word)
    assert word == typed or (read.value() == f"/{name} b" and as_typed(word) == typed)
    assert unquoted(quoted(name)) == name


@pytest.mark.parametrize(
    "word",
    ["lr=é", "output='/a é'", "output=[é]", "model=é", "output=", "study=\u2013" * 99],
)
def test_what_is_no_text_or_has_its_quotes_is_left_as_it_is(word):
    assert readable([word]) == [word]


def test_the_home_directory_is_where_runs_are_written(compose_in, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert compose_in("x", "output='~/runs'").output == f"{tmp_path}/runs"
    assert compose_in("x", "directory='~/one'").directory == f"{tmp_path}/one"


@pytest.mark.parametrize("name", ["2026_11_30", "1e3", "007", "0x10", "0.10", "-1_0", "Inf", "12"])
@pytest.mark.parametrize("key", ["study", "output", "data.root", "tracking.experiment"])
def test_a_name_that_reads_as_a_number_is_a_name(key, name):
    """2026_11_30 is the number 20261130 to Hydra, and the folder would be another."""
    (word,) = readable([f"{key}={name}"])
    assert str(OverridesParser.create().parse_override(word).value()) == name
    assert as_typed(word) == f"{key}={name}"


def test_names_in_a_list_are_names_too():
    assert readable(["data.root=é,b"]) == ["data.root='é',b"]
    assert readable(["study=2026_11,b c,x"]) == ["study='2026_11',b c,x"]
    assert listed("study=2026_11,2") == "study=['2026_11',2]"
    assert readable(["study=choice(1e3,b)"]) == ["study=choice(1e3,b)"]
    assert readable(["lr=1_0"]) == ["lr=1_0"]
