"""The house itself: who imports whom, how large rooms are, what a wheel holds, where links lead."""

import ast
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

PACKAGE = REPOSITORY / "caltech"
MODULES = sorted(PACKAGE.rglob("*.py"))
FOLDERS = sorted({path.parent for path in MODULES} - {PACKAGE})


def test_imports_go_down_and_in_no_circle():
    """The contracts are in pyproject.toml; a module that stands on no floor breaks them, too."""
    program = "from importlinter.cli import lint_imports as lint; exit(lint(no_cache=True))"
    command = [sys.executable, "-c", program]  # in its own process: it sets up logging
    checked = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert "2 kept, 0 broken" in checked.stdout, checked.stdout


def test_a_folder_says_what_it_is_and_stays_small():
    for folder in FOLDERS:
        body = ast.parse((folder / "__init__.py").read_text()).body
        assert len(body) == 1 and isinstance(body[0].value.value, str), folder
        names = {path.stem for path in folder.glob("*.py")} - {"__init__", "__main__"}
        assert len(names) <= 12, folder
        assert all(name in body[0].value.value for name in names), folder
    assert max(len(path.read_text().splitlines()) for path in MODULES) <= 290


def test_every_relative_link_leads_somewhere():
    listed = ["git", "-C", str(REPOSITORY), "ls-files", "*.md"]
    documents = subprocess.run(listed, capture_output=True, text=True).stdout.split()
    documents = documents or [path.name for path in REPOSITORY.glob("*.md")]  # no git checkout
    links = 0
    for document in documents:
        path = REPOSITORY / document
        for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text()):
            target, _, anchor = link.partition("#")
            if re.match(r"\w+:", link):
                continue
            links += 1
            place = path.parent / target if target else path
            assert place.exists(), (document, link)
            if anchor:
                titles = re.findall(r"^#+ (.*)$", place.read_text(), re.MULTILINE)
                assert anchor in {
                    re.sub(r"[^\w -]", "", t.lower()).replace(" ", "-") for t in titles
                }
    assert links > 10


PROGRAM = """
import sys
from caltech import train
from caltech.report import typed
places, tiny = sys.argv[1:5], sys.argv[5:]
sys.argv = ["caltech.train", *places, *tiny]
train.main()
sys.argv = ["caltech.report", "study=default", *places]
typed.main()
print(train.__file__)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from the files that are there, without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    command = [sys.executable, "-m", "pip", "wheel", *options, "-w", str(folder), str(REPOSITORY)]
    built = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("*.whl")
    return path


def test_a_wheel_has_every_module_template_and_option(wheel):
    held = set(zipfile.ZipFile(wheel).namelist())
    templates = [*PACKAGE.rglob("*.jinja"), *PACKAGE.rglob("*.css")]
    for path in (*MODULES, *templates):
        assert str(path.relative_to(REPOSITORY)) in held
    for path in (REPOSITORY / "conf").rglob("*.yaml"):
        assert str(Path("caltech") / path.relative_to(REPOSITORY)) in held
    assert not [name for name in held if name.startswith("tests")]


def test_a_wheel_trains_and_reports_without_the_checkout(wheel, tmp_path):
    site = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet"]
    subprocess.run([*install, "--target", str(site), str(wheel)], check=True, capture_output=True)
    tiny = ["data=digits", "data.resize=32", "data.crop=32", "batch_size=256", "num_epochs=1"]
    tiny += ["model=timm", "model.name=test_resnet", "model.weights=null", "device=cpu"]
    places = [f"output={tmp_path}/multirun", f"cache={tmp_path}/cache"]
    places += [f"tracking.uri=sqlite:///{tmp_path}/mlflow.db", f"tracking.artifacts={tmp_path}/a"]
    ended = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM, *places, *tiny], capture_output=True, text=True,
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.endswith(f"{site}/caltech/train.py\n")
    assert "epoch 1/1" in ended.stdout
    report = tmp_path / "multirun" / "default"
    assert re.search(r"^\| timm.* \| 1e-1 \|", (report / "table.md").read_text(), re.MULTILINE)
    assert {"table.csv", "report.html", "kept"} <= {path.name for path in report.iterdir()}
