"""What documents say is so: commands compose, tables are kept numbers, the reference is made."""

import csv
import json
import re
import shlex
import statistics
from functools import cache
from importlib.util import find_spec

import pytest
from hydra import compose, initialize_config_dir

from caltech.config import register
from caltech.settings import CONF, validate
from caltech.sweeps import seeds
from tests import documents
from tests.conftest import REPOSITORY

DOCUMENTS = [
    path
    for path in sorted(REPOSITORY.rglob("*.md"))
    if not {"RESULTS.md", "table.md"} & {path.name} and "kept" not in path.parts
    if not any(part.startswith(".") or part == "build" for part in path.parts)
]
COURSE = REPOSITORY / "multirun" / "course"


def commands(module: str) -> list[str]:
    """The words after `python -m caltech.MODULE` in every document, each once."""
    found: dict[str, None] = {}
    for path in DOCUMENTS:
        text = path.read_text().replace("\\\n", " ")
        for words in re.findall(rf"python -m caltech\.{module}\b([^\n`|]*)", text):
            found[words.split("  #")[0].strip()] = None
    return [*found]


@cache
def composed(config: str, words: str):
    """Of each word of a sweep the first value."""
    register()
    words = re.sub(r"--(cfg|info) \w+", "", words)
    typed = [word for word in shlex.split(words) if not word.startswith("--")]
    with initialize_config_dir(config_dir=str(CONF)):
        return compose(config, [word.split(",")[0] for word in typed])


@pytest.mark.parametrize("config", ["train", "report", "tracking", "data"])
def test_commands_of_documents_compose(config):
    names = {"tracking": "tell", "data": "train"}
    typed = commands(config)
    assert typed
    for words in typed:
        if "ray_cluster" in words and find_spec("hydra_plugins.hydra_ray_launcher") is None:
            continue  # an extra: pip install -e '.[ray]'
        if "--config-dir" in words or ("=NAME" in words and "partition" not in words):
            continue  # of another folder, whose test is its own; a place for a name
        words = re.sub(r"^(audit|verify)", "", words) if config == "data" else words
        cfg = composed(names.get(config, config), words)
        if names.get(config, config) == "train":
            validate(cfg)


def test_modules_of_documents_are_there():
    named = {
        each
        for path in DOCUMENTS
        for each in re.findall(r"python -m ((?:caltech|tests)[\w.]*)", path.read_text())
    }
    assert len(named) > 8
    assert [each for each in named if find_spec(each) is None] == []


def test_the_reference_is_what_conf_says():
    assert documents.PLACE.read_text() == documents.reference(), "python -m tests.documents"


def test_the_readme_is_short():
    assert len((REPOSITORY / "README.md").read_bytes()) <= 9 * 1024


def rows(path) -> list[tuple[str, str, str]]:
    """Words, our accuracy and the published one of each row of a table of commands."""
    cells = [line.split(" | ") for line in path.read_text().splitlines() if "`experiment=" in line]
    return [(re.search("`(.*?)`", cell[1])[1], cell[2], cell[3]) for cell in cells if len(cell) > 3]


@pytest.mark.parametrize("path", [REPOSITORY / "README.md", COURSE / "README.md"], ids=str)
def test_a_row_s_command_is_of_the_kept_results_that_it_shows(path):
    """Nothing in the tables is typed by hand without being noticed."""
    shown = rows(path)
    assert len(shown) > 5
    for words, ours, published in shown:
        cfg = composed("train", words)
        if told := re.match(r"(\d+\.\d+) %", published):
            assert told[1] == f"{100 * cfg.published.test_accuracy:.2f}", words
        if ours == "not run here":
            assert not (COURSE / "kept" / f"{cfg.key}.json").exists()
            continue
        runs = seeds.repeated(cfg)
        kept = [json.loads((COURSE / "kept" / f"{run.key}.json").read_text()) for run in runs]
        values = [100 * each["metrics"]["test/accuracy"] for each in kept]
        assert ours.split(" ")[0] == f"{statistics.mean(values):.2f}", words
        if len(values) > 1:
            assert f"± {statistics.stdev(values):.2f} " in ours, words


def test_every_finished_row_of_the_course_is_in_its_document():
    """But for those on images of another size."""
    told = list(csv.DictReader((COURSE / "table.csv").read_text("utf-8").splitlines()))
    finished = [line for line in told if line["TESTING ACC"] and "crop=" not in line["Model"]]
    assert len(finished) > 10
    text = (COURSE / "README.md").read_text()
    assert all(f"{100 * float(line['TESTING ACC']):.2f}" in text for line in finished)


def test_servers_of_documents_bind_loopback():
    text = "\n".join(path.read_text() for path in DOCUMENTS)
    servers = re.findall(r".*mlflow (?:server|ui|models serve).*", text)
    assert len(servers) > 2 and "0.0.0.0" not in text
    for line in servers:
        assert re.search(r"(--host|-h) (127\.0\.0\.1|localhost)\b", line), line
