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


@pytest.mark.parametrize(
    ("content", "said"),
    [("lr;momentum\n0.1;0.9", "commas between them"), ('lr\n"0.1,0.2"', "job 1 has several values"),
     ("lr,momentum\n0,1;0,9", "commas between them|there are 2 names"),
     ('seed\n1\n"range(1,3)"', "job 2 has several values in seed=range")],
)  # fmt: skip
def test_what_a_spreadsheet_may_make_of_it_is_told(typed, content, said):
    with pytest.raises(InputError, match=said):
        lists.taken(typed(content))


def test_quotes_within_a_cell_are_one_value(typed):
    lists.taken(typed("data.root\n\"'/a,b'\""))
    assert lists.jobs() == [["data.root='/a,b'"]]


@pytest.mark.parametrize(
    "name", ["output", "study", "cache", "storage", "tracking", "tracking.uri"]
)
def test_a_sweep_has_one_place(typed, name):
    with pytest.raises(InputError, match=f"{name}=a,b is several places.*Type its command once"):
        split(f"{name}=a,b")
    lists.taken(typed(f"{name},lr\na,1\nb,2"))
    with pytest.raises(InputError, match=f"{name}=a,b is several places"):
        split("seed=1")
