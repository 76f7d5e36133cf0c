"""A small Caltech-101 tree of generated JPEGs, composed configs, and the real data if present."""

import copy
import os
from collections.abc import Iterator
from functools import lru_cache, partial
from pathlib import Path

# Before mlflow and torch are imported anywhere: no test may talk to the network.
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two tests at a time, each with one core

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig
from PIL import Image

from caltech.composer import Composer
from caltech.config import register
from caltech.settings import CONF
from caltech.train import train
from tests.forks import Driver, driver

REPOSITORY = Path(__file__).resolve().parent.parent
CATEGORIES = ("BACKGROUND_Google", "Faces", "Faces_easy", "accordion", "wild_cat", "yin_yang")


@pytest.fixture(scope="session")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Root of caltech101/101_ObjectCategories: 5 categories of 12 images and a background one.

    Every category has its own colour, so that a classifier has something to learn; sizes differ,
    some images are grey, one is CMYK, and there is the stray file of the real data set.
    """
    root = tmp_path_factory.mktemp("datasets")
    random = np.random.default_rng(0)
    for number, category in enumerate(CATEGORIES):
        folder = root / "caltech101" / "101_ObjectCategories" / category
        folder.mkdir(parents=True)
        for index in range(1, 13):
            height, width = random.integers(60, 140, 2)
            colour = np.array([40 * number, 200 - 30 * number, 128])
            noise = random.integers(-30, 30, (height, width, 3))
            image = Image.fromarray((colour + noise).clip(0, 255).astype(np.uint8))
            mode = {3: "L", 7: "CMYK"}.get(index, "RGB")
            image.convert(mode).save(folder / f"image_{index:04d}.jpg")
    (root / "caltech101" / "101_ObjectCategories" / "BACKGROUND_Google" / "tmp").write_text("x")
    return root


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all tests: sharing it is what users do, and it must not matter."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def compose_in(tree: Path, cache: Path):
    """Compose a config as the command line does, with an output folder and overrides."""
    return partial(composed, tree, cache)


@pytest.fixture
def configure(compose_in, tmp_path: Path):
    """The same with an output folder of the test's own."""
    return partial(compose_in, tmp_path / "multirun")


def composed(tree: Path, cache: Path, output: Path, *overrides: str) -> DictConfig:
    """Small images, no tracking."""
    own = [f"cache={cache}", "tracking=none", "device=cpu"]
    if "data=digits" not in overrides:
        own += [f"data.root={tree}", "data.resize=72", "data.crop=64"]
    cfg = copy.deepcopy(_of_words(*own, *overrides))
    if not any(word.startswith("output=") for word in overrides):
        cfg.output = str(output)
    return cfg


@lru_cache(32)  # of 80 kB each: with all that a soak composes, memory would seem to leak
def _of_words(*words: str) -> DictConfig:
    """Composing takes 0.1 s and a copy a tenth of it; tests differ in their output folders."""
    register()
    with initialize_config_dir(config_dir=str(CONF)):
        return compose("train", [*words])


LOADED: dict[tuple, DictConfig] = {}


@pytest.fixture
def composed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What words are compared with is composed once for all tests, and not once a command."""
    usual = Composer._loaded

    def loaded(self: Composer, *place: str) -> DictConfig:
        if place not in LOADED:
            LOADED[place] = usual(self, *place)
        return LOADED[place]

    monkeypatch.setattr(Composer, "_loaded", loaded)


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driver]:
    """Runs commands in children of one process that has imported everything."""
    with driver(tmp_path_factory.mktemp("forks")) as started:
        yield started


@pytest.fixture(scope="session")
def finished(tree: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory of a finished run on the generated tree that averages both mirrored views."""
    output = tmp_path_factory.mktemp("finished")
    cfg = composed(tree, cache, output, "augment=flip_both", "num_epochs=3", "batch_size=8")
    train(cfg)
    return Path(cfg.directory)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Root of the real Caltech-101, or a skip that says where it was looked for."""
    places = [os.environ.get("CALTECH101_ROOT"), REPOSITORY.parent / "shared" / "datasets"]
    for place in filter(None, places):
        if (Path(place) / "caltech101" / "101_ObjectCategories").is_dir():
            return Path(place)
    pytest.skip("no real Caltech-101 in CALTECH101_ROOT or ../shared/datasets")
