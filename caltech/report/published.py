"""The rows that experiments define: the study's, with its numbers, and ours in its tables."""

from collections.abc import Sequence
from contextlib import nullcontext

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from caltech.keys import decisive, point_key
from caltech.report.rows import Published, flat
from caltech.settings import CONF
from caltech.tracking.description import chosen, hyperparameters

# Names in the experiments' files, and as metrics.
NUMBERS = {
    "train_loss": "train/loss_last_step",
    "val_accuracy": "val/accuracy",
    "test_accuracy": "test/accuracy",
}


def experiments(order: Sequence[str]) -> list[Published]:
    """Of every file in conf/experiment that names its table; first those of `order`, in it."""
    folder = CONF / "experiment"
    found = [str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml")]
    listed = [name for name in order if name in found]
    names = listed + sorted(set(found) - set(listed))
    # A command has initialised Hydra with conf/ already, and Hydra takes that once.
    is_ready = GlobalHydra.instance().is_initialized()
    with nullcontext() if is_ready else initialize_config_dir(config_dir=str(CONF)):
        composed = [_experiment(name) for name in names]
    return [experiment for experiment in composed if experiment is not None]


def _experiment(name: str) -> Published | None:
    cfg = compose("train", [f"experiment={name}"], return_hydra_config=True)
    if cfg.published is None:
        return None
    published = OmegaConf.to_container(cfg.published, resolve=True)
    params = hyperparameters(cfg) | chosen(cfg.hydra.runtime.choices)
    errata = published.get("errata", ())
    return Published(
        experiment=name,
        point=point_key(cfg),
        study=cfg.study,
        table=published["table"],
        name=published["row"],
        numbers={NUMBERS[key]: value for key, value in published.items() if key in NUMBERS},
        errata=tuple(NUMBERS[key] for key in errata),
        params={key: str(value) for key, value in params.items()},
        config=flat(decisive(cfg)),
    )
