"""A job's config is composed once and kept until the job is launched."""

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from caltech.config import register
from caltech.settings import CONF
from caltech.sweeps.composed import ComposedOnce


class Loader:
    """One that counts, and whose config is the real one with another learning rate."""

    def __init__(self) -> None:
        register()
        with initialize_config_dir(config_dir=str(CONF)):
            self.config = compose("train", ["study=mine"], return_hydra_config=True)
        OmegaConf.set_readonly(self.config.hydra, True)
        self.asked = 0

    def load_sweep_config(self, master, overrides):
        self.asked += 1
        composed = self.config.copy()
        composed.lr = float(overrides[0].partition("=")[2])
        return composed


def test_the_configs_of_a_large_grid_are_composed_once_each():
    """They are those that were composed, with their keys, types and flags, and take little room."""
    loader, jobs = Loader(), [[f"lr={n / 1000}"] for n in range(1, 151)]
    once = ComposedOnce(loader, loader.config, most=1000)
    keys = [once.describe(job).key for job in jobs]
    assert len(b"".join(once.kept.values())) < 150 * 10_000
    for job, key in zip(jobs, keys, strict=True):
        given = once.load_sweep_config(loader.config, job)
        assert given.key == key and f"lr={given.lr}" == job[0]
    assert loader.asked == 150
    fresh = loader.load_sweep_config(loader.config, jobs[-1])
    assert OmegaConf.to_yaml(given) == OmegaConf.to_yaml(fresh)
    assert OmegaConf.get_type(given) is OmegaConf.get_type(fresh)
    assert OmegaConf.is_readonly(given.hydra) and OmegaConf.is_struct(given)
    assert (given._metadata, given.hydra._metadata) == (fresh._metadata, fresh.hydra._metadata)


def test_nothing_is_kept_for_jobs_of_other_processes():
    loader = Loader()
    once = ComposedOnce(loader, loader.config, most=0)
    once.describe(["lr=0.5"])
    assert not once.kept
    assert once.load_sweep_config(loader.config, ["lr=0.5"]).lr == 0.5
