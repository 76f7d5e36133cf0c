"""One MLflow store for all tests here: a fresh one costs five seconds."""

from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from caltech.train import train
from tests.observers import TINY, Doing, Stopped, stop


class Store:
    """Made by eight processes that opened it, empty, at the same moment."""

    def __init__(self, folder: Path, codes: list[int]) -> None:
        uri, self.folder, self.codes = f"sqlite:///{folder}/mlflow.db", folder, codes
        self.client = MlflowClient(uri)
        self.experiment = self.client.get_experiment_by_name("caltech")
        self.places = [
            "tracking=mlflow",
            f"tracking.uri={uri}",
            f"tracking.artifacts={folder}/files",
        ]

    def runs(self, cfg=None) -> list[Run]:
        own = f"tags.key = '{cfg.key}'" if cfg else "tags.key LIKE '_'"
        return list(self.client.search_runs([self.experiment.experiment_id], own))

    def epochs(self, run: Run, metric: str = "val/loss") -> list[int]:
        return [point.step for point in self.client.get_metric_history(run.info.run_id, metric)]


@pytest.fixture(scope="session")
def store(forks, tmp_path_factory) -> Store:
    folder = tmp_path_factory.mktemp("store")
    commands = [[str(folder), str(number)] for number in range(8)]
    ended = forks.run(*commands, module="tests.tracking.opening")
    return Store(folder, [one.code for one in ended])


@pytest.fixture
def tracked(configure, store):
    """Compose the config of a tiny run that is tracked there; each test has a rate of its own."""
    return lambda *overrides: configure(*TINY, *store.places, *overrides)


@pytest.fixture
def interrupted(tracked, store):
    """Config and MLflow run of a training that Ctrl-C ended somewhere."""

    def at(rate: str, **place: int):
        cfg = tracked(rate)
        with pytest.raises(Stopped):
            train(cfg, observer=Doing(stop, **place))
        (run,) = store.runs(cfg)
        return cfg, run

    return at
