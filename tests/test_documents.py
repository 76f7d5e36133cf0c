"""What documents say is so: commands compose, tables are kept numbers, the reference is made."""

import csv
import html
import itertools
import json
import re
import shlex
import statistics
import tomllib
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hydra import compose, initialize_config_dir

from caltech.__main__ import COMMANDS
from caltech.config import register
from caltech.flags import listed
from caltech.inference import command_line
from caltech.overview import typed
from caltech.settings import CONF, validate
from caltech.sweeps import seeds
from tests import documents
from tests.conftest import REPOSITORY

DOCUMENTS = [
    path
    for path in sorted(REPOSITORY.rglob("*.md"))
    if not any(part.startswith(".") or part in ("build", "kept") for part in path.parts)
]
COURSE = REPOSITORY / "multirun" / "course"


LINE = re.compile(
    r"(?:^|[\s`(;&])(?:python -m caltech\.(\w+)|caltech (\w+))(?=[\s`]|$)([^\n`|&;]*)"
)


def lines_of_code(path: Path) -> list[str]:
    """Lines of fenced blocks, and code inside of sentences."""
    text = path.read_text().replace("\\\n", " ")
    fenced = re.findall(r"^```(?:sh)?\n(.*?)^```", text, re.M | re.S)
    rest = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    return [*"\n".join(fenced).splitlines(), *re.findall(r"`([^`\n]+)`", rest)]


@cache
def commands() -> dict[str, list[str]]:
    """By module, what is typed after it in every document, each once; `caltech X` is the same."""
    found: dict[str, dict[str, None]] = {}
    for path, line in ((each, line) for each in DOCUMENTS for line in lines_of_code(each)):
        for module, name, words in LINE.findall(line.split("  #")[0]):
            command = COMMANDS.get(name)
            if not (module or command):
                assert path.name == "RESULTS.md", line  # there it is the code's version
                continue
            known = f"caltech.{module}" if module else command.module
            first = " ".join(command.first) if command else ""
            found.setdefault(known, {})[f"{first} {words}".strip()] = None
    return {module: [*words] for module, words in found.items()}


@cache
def composed(config: str, words: str):
    """Of each word of a sweep the first value."""
    register()
    words = re.sub(r"--(cfg|info) \w+", "", words)
    typed = [word for word in shlex.split(words) if not word.startswith("--")]
    with initialize_config_dir(config_dir=str(CONF)):
        return compose(config, [word.split(",")[0] for word in typed])


@pytest.mark.parametrize(
    ("module", "config"),
    [("train", "train"), ("report", "report"), ("tracking", "tell"), ("data", "train"),
     ("overview.ui", "tell")],
)  # fmt: skip
def test_commands_of_documents_compose(module, config):
    for words in commands()[f"caltech.{module}"]:
        if "ray_cluster" in words and find_spec("hydra_plugins.hydra_ray_launcher") is None:
            continue  # an extra: pip install -e '.[ray]'
        if "--config-dir" in words or ("=NAME" in words and "partition" not in words):
            continue  # of another folder, whose test is its own; a place for a name
        words = re.sub(r"^(audit|verify)", "", words) if module == "data" else words
        words = " ".join(map(listed, words.split())) if module == "report" else words
        cfg = composed(config, words)
        if config == "train":
            validate(cfg)


class Parsed(Exception):  # noqa: N818
    """The words were understood; nothing is to be done with them."""


@pytest.mark.parametrize(
    "module", ["predict", "export", "sweeps", "overview.runs", "overview.clean"]
)
def test_commands_of_documents_are_parsed(module, monkeypatch):
    read, of_overview = command_line.Parser.read, typed.read

    def stop(result: object) -> None:
        raise Parsed

    monkeypatch.setattr(command_line.Parser, "read", lambda *words: stop(read(*words)))
    monkeypatch.setattr(typed, "read", lambda *words: stop(of_overview(*words)))
    found = import_module(f"caltech.{module}")
    if module == "sweeps":
        found = import_module("caltech.sweeps.__main__")
        monkeypatch.setattr(found, "find", lambda *names: stop(names))
    assert commands()[f"caltech.{module}"]
    for words in commands()[f"caltech.{module}"]:
        with pytest.raises(Parsed):
            found.main(shlex.split(words))


def test_networks_of_documents_are_there():
    option = import_module("caltech.models.__main__")._option
    asked = [words.split() for words in commands()["caltech.models"]]
    for words in (words for words in asked if words and words[0] not in ("NAME", "--help")):
        assert option(*(word for word in words if "=" not in word))


def test_other_commands_of_documents_are_of_programs_that_are_named():
    """Their extras and test files are there."""
    programs = "caltech python python3 pip pytest git export eval mlflow createdb ray"
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    blocks = [re.findall(r"^```sh\n(.*?)^```", path.read_text(), re.M | re.S) for path in DOCUMENTS]
    lines = "\n".join(itertools.chain(*blocks)).replace("\\\n", " ").splitlines()
    assert len(lines) > 20
    for line in lines:
        for command in filter(None, re.split(r" && |; ", line.split("#")[0].strip())):
            program = re.sub(r"^(\w+=\S+ )+", "", command).split()[0]
            assert program in [*programs.split(), "cd", "."], line
    for extra in re.findall(r"\.\[(\w+)\]", "\n".join(path.read_text() for path in DOCUMENTS)):
        assert extra in extras["optional-dependencies"]
    for path in re.findall(
        r"pytest [^`\n]*?(tests/\S+?)[`\s]", "".join(map(Path.read_text, DOCUMENTS))
    ):
        assert (REPOSITORY / path).exists()


def test_links_to_the_world_are_whole_and_encrypted():
    """Those inside of the repository are looked at in test_house.py; there is no network here."""
    text = "\n".join(path.read_text() for path in DOCUMENTS)
    links = re.findall(r"\]\((\w+:[^)\s]*)\)", text) + re.findall(r"<(\w+:[^>\s]*)>", text)
    assert links
    for link in links:
        parts = urlsplit(link)
        assert parts.scheme == "https" or parts.hostname == "127.0.0.1", link
        assert "." in parts.hostname and "%%" not in link


def test_the_picture_shows_the_rows_of_the_course_s_table():
    """Its letters are text, and its size is that of a picture in a README."""
    text = documents.PICTURE.read_text("utf-8")
    assert len(text.encode()) < 60_000 and "<image" not in text
    assert (
        f"]({documents.PICTURE.relative_to(REPOSITORY)})" in (REPOSITORY / "README.md").read_text()
    )
    told = [html.unescape(each) for each in re.findall(r"<text[^>]*>([^<]*)</text>", text)]
    assert [
        documents.name_of(row) for row in documents.shown() if documents.name_of(row) not in told
    ] == []
    ours = sum(bool(row["TESTING ACC"]) for row in documents.shown())
    published = sum(bool(row["TESTING ACC published"]) for row in documents.shown())
    said = f"{ours} rows that were trained here, and the {published} numbers"
    assert said in (REPOSITORY / "README.md").read_text()


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
    cells = [line.split(" | ") for line in path.read_text().splitlines() if "experiment=" in line]
    command = "`(?:caltech train )?(.*?)`"
    return [(re.search(command, cell[1])[1], *cell[2:4]) for cell in cells if len(cell) > 3]


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
    text = "\n".join(path.read_text() for path in DOCUMENTS if path.name != "RESULTS.md")
    servers = re.findall(r".*mlflow (?:server|ui|models serve).*", text)
    assert len(servers) > 1 and "0.0.0.0" not in text
    for line in servers:
        assert re.search(r"(--host|-h) (127\.0\.0\.1|localhost)\b", line), line
