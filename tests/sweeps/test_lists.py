"""sweep=FILE.csv: each line is a job."""

import pytest

from caltech.errors import InputError
from caltech.sweeps import lists
from tests.sweeps.test_sweepers import split


@pytest.fixture
def typed(tmp_path):
    """Words with a file of this content."""

    def words(content: bytes | str, *more: str) -> list[str]:
        path = tmp_path / "jobs.csv"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return ["--multirun", f"sweep={path}", *more]

    yield words
    lists.taken([])


def test_each_line_is_a_job(typed):
    content = "\ufefflr, momentum\r\n0.1,0.9\r\n\r\n0.01, null\r\n"
    assert lists.taken(typed(content, "seed=3")) == ["--multirun", "seed=3"]
    lines = [["lr=0.1", "momentum=0.9"], ["lr=0.01", "momentum=null"]]
    assert lists.jobs() == lines
    assert split("seed=3") == [["seed=3", *line] for line in lines]
    assert split("seed=3,4")[2] == ["seed=4", *lines[0]]
    assert lists.columns() == {"lr": ["0.1", "0.01"], "momentum": ["0.9", "null"]}
    assert lists.taken(["lr=1"]) == ["lr=1"] and lists.jobs() == []


@pytest.mark.parametrize(
    "content",
    ["", "lr", "lr,lr\n1,2", "lr,\n1,2", "lr\n1,2", "lr,gamma\n1", "lr,gamma\n1,", b"\xff\n\xfe",
     'lr\n"1'],
)  # fmt: skip
def test_what_is_no_list_is_told(typed, content):
    with pytest.raises(InputError, match=r"^sweep=.*jobs\.csv"):
        lists.taken(typed(content))


def test_a_list_where_it_cannot_be_is_told(typed, tmp_path):
    words = typed("lr\n1")
    for wrong in (words[1:], [*words, "hydra/sweeper=optuna"], ["-m", f"sweep={tmp_path}/no.csv"]):
        with pytest.raises(InputError, match="sweep="):
            lists.taken(wrong)
