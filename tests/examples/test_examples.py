"""Each example is run, and README.md beside it shows it as it is."""

import inspect
from pathlib import Path

import pytest

from caltech.files import read_sealed_json
from caltech.runs.result import FINISHED
from caltech.train import train
from tests.examples import parts

HERE = Path(__file__).parent
OWN = (f"hydra.searchpath=[{HERE / 'conf'}]", "plugins=[tests.examples.parts]")
SMALL = ("data=stripes", "model=small", "freeze=none", "num_epochs=2", "batch_size=8")


@pytest.fixture
def run(compose_in, tmp_path):
    def trained(*overrides: str):
        cfg = compose_in(tmp_path, "data=digits", *OWN, *overrides)
        return cfg, train(cfg)

    return trained


@pytest.mark.parametrize(
    "typed",
    ["loss=poly", "optimizer=sign lr=0.01", "schedule=halving", "augment=darker",
     "experiment=mine", "split=fraction"],
)  # fmt: skip
def test_each_part_of_one_s_own_trains(run, typed):
    cfg, result = run(*SMALL, *typed.split())
    assert result.status == FINISHED and result.best["test/accuracy"] > 0.4
    made_from = read_sealed_json(Path(cfg.directory) / "provenance.json")
    assert made_from["code"]["plugins"].keys() == {"tests.examples.parts"}


def test_the_document_shows_every_example_as_it_is():
    shown = (HERE / "README.md").read_text()
    for path in (HERE / "conf").glob("*/*.yaml"):
        assert path.read_text() in shown and str(path.relative_to(HERE)) in shown
    for name in ("Poly", "small_network", "SignDescent", "halving", "stripes", "Darker"):
        assert inspect.getsource(getattr(parts, name)) in shown
