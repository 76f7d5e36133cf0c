"""Words that were kept as one text are told apart, and the last of a name counts."""

import pytest

from caltech.overrides import apart, effective


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
