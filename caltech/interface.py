"""From Python, in a notebook for example: `caltech.fit("data=digits", "lr=0.1")`, `caltech.load()`.

The words are those of the command line, and so are runs, keys and directories: what one computed,
the other answers.
"""

import logging
import re
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import torch
from hydra import compose
from omegaconf import DictConfig, OmegaConf
from PIL import Image
from torch import Tensor, nn

from caltech.config import composing, project_root
from caltech.data import pixels
from caltech.errors import InputError
from caltech.inference.comparison import stored_answers
from caltech.inference.predictor import Predictor, own_data
from caltech.runs.directory import EXPORTED, RunDirectory
from caltech.runs.find import find
from caltech.train import train

if TYPE_CHECKING:
    from pandas import DataFrame


_alone = threading.Lock()  # held by whoever is in fit


@dataclass(frozen=True)
class Model:
    """A trained model that answers; `model, transform = caltech.load()` takes it apart."""

    predictor: Predictor

    def __iter__(self) -> Iterator[Any]:
        yield from (self.model, self.transform)

    @property
    def model(self) -> nn.Module:
        """Images (n, 3, crop, crop) uint8 to probabilities (n, classes), in eval mode.

        Nothing of it is trained: `model.requires_grad_()` is for one's own fine-tuning.
        """
        return self.predictor.network

    @property
    def classes(self) -> tuple[str, ...]:
        return self.predictor.classes

    def transform(self, image: str | Path | IO[bytes] | Image.Image) -> Tensor:
        """An image (3, crop, crop) uint8 as the model's test images were made."""
        of = self.predictor
        if isinstance(image, Image.Image):
            decoded = torch.from_numpy(pixels.fit(image, of.resize, of.upright).copy())
        else:
            decoded = of.read(Path(image).expanduser() if isinstance(image, str) else image)
        return of.crop(decoded[None])[0]

    def answer(self, *images: str | Path) -> "DataFrame":
        """A row for each image file: file, answer, probability."""
        from pandas import DataFrame

        of, rows = self.predictor, []
        for image in images:
            (probabilities,) = of.probabilities(of.read(Path(image).expanduser())[None])
            (best,) = of.rank(probabilities, 1)
            rows.append((str(image), best["class"], best["probability"]))
        return DataFrame(rows, columns=["file", "answer", "probability"])


@dataclass(frozen=True)
class Result:
    """A run that has ended.

    Attributes:
        key: of the run.
        directory: with all its files.
        accuracies: of the weights of the epoch of best validation accuracy, and of the last:
            "validation (best)", "test (best)", "validation (last)", "test (last)".
    """

    key: str
    directory: Path
    accuracies: Mapping[str, float]

    @cached_property
    def predictions(self) -> "DataFrame":
        """Of each test image: file, label, answer, probability; by the best epoch's weights.

        Raises:
            InputError: the data set is not there any more, or is another.
            DamagedError: the answers are not what the run wrote.
        """
        from pandas import DataFrame

        directory = RunDirectory(self.directory)
        data = own_data(directory, OmegaConf.load(directory.config))
        told = stored_answers(directory, directory.predictions("best"))
        return DataFrame(
            {
                "file": [data.files[row] for row in told["indices"]],
                "label": [data.classes[label] for label in told["labels"]],
                "answer": [data.classes[answer] for answer in told["predictions"]],
                "probability": told["confidences"],
            }
        )

    def load(self, weights: str = "best") -> Model:
        """The run's model and its transform."""
        return load(str(self.directory), weights=weights)


def fit(*words: str, config_dir: str | Path | None = None) -> Result:
    """Compute a run, or go on with it, or answer it, as `python -m caltech.train WORDS` does.

    A line an epoch goes to stdout, or to the program's own logging if it has one.

    Args:
        words: each as it is typed, "lr=0.1".
        config_dir: a folder of options of one's own, as --config-dir.

    Raises:
        InputError: a word is wrong, or the data or the weights are, or another thread is in fit.
    """
    if not _alone.acquire(blocking=False):  # torch's generators and Hydra's state are everyone's
        raise InputError(
            "caltech.fit is at work in another thread, and both would draw the same random "
            "numbers. Call one after the other, or in processes of their own (caltech sweep "
            "hydra/launcher=parallel)."
        )
    try:
        with _progress_shown():
            return _fit(words, config_dir)
    finally:
        _alone.release()


@contextmanager
def _progress_shown() -> Iterator[None]:
    """On stdout, unless the program around us has set up logging: then it decides."""
    ours = logging.getLogger("caltech")
    if ours.hasHandlers():
        yield
        return
    handler, level = logging.StreamHandler(sys.stdout), ours.level
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    try:
        yield
    finally:
        ours.removeHandler(handler)
        ours.setLevel(level)


def _fit(words: tuple[str, ...], config_dir: str | Path | None) -> Result:
    cfg, choices = _composed(words, config_dir)
    if cfg.seeds is not None or cfg.dry_run:
        given = "dry_run=true" if cfg.dry_run else f"seeds={cfg.seeds}"
        raise InputError(
            f"{given} is of the command line, and fit is one run. Leave it out; "
            "for several seeds: [caltech.fit(..., f'seed={n}') for n in range(5)]."
        )
    if choices["pruner"] != "none":
        raise InputError(
            f"pruner={choices['pruner']} compares the jobs of a sweep, and fit is one run. Leave "
            "it out, or type it beside caltech sweep."
        )
    result = train(cfg, choices, words)
    accuracies = {
        f"{part} ({name})": measured[key]
        for name, measured in (("best", result.best), ("last", result.last))
        for part, key in (("validation", "val/accuracy"), ("test", "test/accuracy"))
    }
    return Result(result.key, Path(cfg.directory).absolute(), accuracies)


def load(
    run: str = "best",
    study: str | None = None,
    data: str | None = None,
    weights: str = "best",
    output: str | Path | None = None,
    device: str = "auto",
) -> Model:
    """A trained model: neither its data set nor pretrained weights are needed.

    Args:
        run: a key, the path of a run's directory or of an export (format=safetensors), or "best",
            the finished run of highest validation accuracy.
        study, data: where to look for it.
        weights: of the "best" or the "last" epoch.
        output: where the studies are.

    Raises:
        InputError: there is no such run, weights or device, or the run is not whole.
    """
    place = Path(output or f"{project_root()}/multirun").expanduser()
    directory = find(str(Path(run).expanduser()), study, data, place)
    if (directory.path / EXPORTED).is_file():
        raise InputError(
            f"{run} is an ensemble, and load gives one network. Give the folder of a member, "
            f"{directory.path / '1'}, or type caltech predict IMAGE run={run}."
        )
    predictor = Predictor.load(directory, weights, device)
    predictor.network.requires_grad_(False)
    return Model(predictor)


def _composed(
    words: tuple[str, ...], config_dir: str | Path | None
) -> tuple[DictConfig, dict[str, str]]:
    """The config of a run, and the option of each group."""
    for word in words:
        if not isinstance(word, str):
            raise InputError(f"{word!r} is no word: type them as on the command line, 'lr=0.1'.")
        if word.startswith("-"):
            raise InputError(f"{word} is a flag of the command line. Give config_dir= instead.")
        if re.fullmatch(r"[^\s'\"\[{(]+=[^\s'\"\[{(]*\s+[\w.+~@]+=.*", word):
            given = ", ".join(map(repr, word.split()))
            raise InputError(f"{word!r} is several words. Give them apart: caltech.fit({given}).")
    if config_dir is not None and not Path(config_dir).is_dir():
        raise InputError(
            f"config_dir={config_dir} is no folder. Give the folder that has your options, "
            "loss/mine.yaml for one of them."
        )
    own = [] if config_dir is None else [f"hydra.searchpath=['{Path(config_dir).absolute()}']"]
    with composing():
        cfg = compose("train", [*own, *words], return_hydra_config=True)
    choices = OmegaConf.to_container(cfg.hydra.runtime.choices)
    OmegaConf.set_struct(cfg, False)
    del cfg["hydra"]
    return cfg, choices
