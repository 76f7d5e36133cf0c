"""One trained run and its exports for all tests of this folder; they are only read."""

from pathlib import Path
from shutil import copytree

import pytest

from caltech.inference.formats import export
from caltech.inference.predictor import Predictor
from caltech.runs.directory import RunDirectory
from caltech.train import train
from tests.conftest import composed

TINY = ["model=timm", "model.name=test_resnet", "model.weights=null", "freeze=none"]


@pytest.fixture(scope="session")
def images(tree: Path) -> Path:
    return tree / "caltech101" / "101_ObjectCategories"


@pytest.fixture(scope="session")
def predictor(finished: Path) -> Predictor:
    return Predictor.load(RunDirectory(finished), "best", "cpu")


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> RunDirectory:
    """The finished run once more, for a test to change."""
    return RunDirectory(copytree(finished, tmp_path / "copy"))


@pytest.fixture(scope="session")
def tiny(tree, cache, tmp_path_factory) -> Predictor:
    """Of few layers: torch's ONNX exporter takes a time for each."""
    own = [*TINY, "augment=flip_both", "num_epochs=2", "batch_size=8"]
    cfg = composed(tree, cache, tmp_path_factory.mktemp("tiny"), *own)
    train(cfg)
    return Predictor.load(RunDirectory(cfg.directory), "best", "cpu")


@pytest.fixture(scope="session")
def exported(tiny, tmp_path_factory):
    """The folder of the tiny run in a form, and what was told of it; each is made once."""
    made = {}

    def in_form(form: str) -> tuple[Path, str]:
        if form not in made:
            folder = tmp_path_factory.mktemp("exports") / form
            made[form] = folder, export(tiny, form, folder, 1e-4)
        return made[form]

    return in_form
