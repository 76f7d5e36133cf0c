"""A finished run as something that answers: found by its key, rebuilt from its own files."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from safetensors import SafetensorError
from torch import Tensor, nn

from caltech.config import build
from caltech.data.augment import VIEWS, center_crop
from caltech.data.dataset import Dataset
from caltech.errors import InputError
from caltech.files import read_sealed_json
from caltech.models.classifier import Classifier
from caltech.runs import checkpoint
from caltech.runs.directory import RunDirectory
from caltech.runs.result import Result
from caltech.training.device import choose_device
from caltech.training.precision import Precision

WEIGHTS = ("best", "last")


class Answers(nn.Module):
    """uint8 images (N, 3, H, W) to probabilities (N, classes), as a run's test computes them.

    Args:
        model: gives logits.
        views: names of the views (augment.VIEWS) whose logits are averaged.
    """

    def __init__(self, model: nn.Module, views: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.views = tuple(views)

    def forward(self, images: Tensor) -> Tensor:
        logits = [self.model(VIEWS[name](images)) for name in self.views]
        return torch.stack(logits).float().mean(0).softmax(1)


@dataclass(frozen=True)
class Trained:
    """A finished run's model in eval mode, and what its images have to look like."""

    directory: RunDirectory
    cfg: DictConfig
    weights: str  # best or last
    answers: Answers
    classes: tuple[str, ...]
    precision: Precision
    device: torch.device

    @property
    def model(self) -> Classifier:
        return self.answers.model

    @property
    def resize(self) -> int:
        """Pixels of an image's short side before the centre crop."""
        return self.cfg.data.resize

    def crop(self, pixels: Tensor) -> Tensor:
        """Centre crops (n, 3, crop, crop) of decoded pixels (n, resize, resize, 3), both uint8."""
        return center_crop(pixels, torch.arange(len(pixels)), self.cfg.data.crop)

    @torch.inference_mode()
    def probabilities(self, pixels: Tensor) -> Tensor:
        """(n, classes) float32 on the CPU, of decoded pixels (n, resize, resize, 3) uint8."""
        images = self.crop(pixels).to(self.device)
        with self.precision.autocast(self.device):
            return self.answers(images).cpu()

    def rank(self, probabilities: Tensor, count: int) -> tuple[tuple[str, float], ...]:
        """The `count` most probable classes of (classes,) probabilities, in falling order."""
        values, indices = probabilities.topk(min(count, len(self.classes)))
        names = [self.classes[index] for index in indices.tolist()]
        return tuple(zip(names, values.tolist(), strict=True))

    def summary(self) -> dict[str, Any]:
        """Which run it is, and how good it was."""
        result = getattr(Result.read(self.directory, pruned_too=False), self.weights)
        return {
            "key": self.cfg.key,
            "study": self.cfg.study,
            "directory": str(self.directory),
            "weights": self.weights,
            "epoch": result["epoch"],
            "val/accuracy": result["val/accuracy"],
        }


def load(directory: RunDirectory, weights: str, device: str) -> Trained:
    """Rebuild a finished run's model from the directory alone: no data, no download.

    Only config.caltech's whitelisted callables can be called by the directory's config, and
    safetensors hold nothing but numbers.

    Raises:
        InputError: the run is not finished, its files do not fit each other, or it is of a time
            when class names were not kept and its data set is not here.
    """
    path = directory.weights(weights)
    for needed in (directory.result, path):
        if not needed.is_file():
            raise InputError(
                f"{directory} has no {needed.name}: the run is not finished. Type its training "
                "command again to go on with it, or choose another with run=."
            )
    if Result.read(directory, pruned_too=False) is None:
        raise InputError(
            f"{directory} has no result of a finished run. Type its training command again, or "
            "choose another run with run=."
        )
    cfg = OmegaConf.load(directory.config)
    classes = _class_names(directory, cfg)
    where = choose_device(device)
    model = build(cfg.model, num_classes=len(classes), load=False)
    try:
        checkpoint.load_weights(path, model)
    except (RuntimeError, SafetensorError) as error:
        raise InputError(
            f"{path} does not fit the model of config.yaml beside it: {error}. A library may have "
            f"changed it since; {directory.provenance} says what the run was made with."
        ) from error
    model.eval().to(where, memory_format=torch.channels_last)
    return Trained(
        directory=directory,
        cfg=cfg,
        weights=weights,
        answers=Answers(model, build(cfg.augment).test).eval(),
        classes=classes,
        precision=build(cfg.precision),
        device=where,
    )


def own_data(trained: Trained) -> Dataset:
    """The data set that the run was made from.

    Raises:
        InputError: it is not here, or has changed.
    """
    return _data(trained.directory, trained.cfg)


def _class_names(directory: RunDirectory, cfg: DictConfig) -> tuple[str, ...]:
    kept = read_sealed_json(directory.provenance)
    # Runs of the first versions did not keep them.
    return tuple(kept["classes"]) if "classes" in kept else _data(directory, cfg).classes


def _data(directory: RunDirectory, cfg: DictConfig) -> Dataset:
    if "_target_" not in cfg.data:
        raise InputError(f"{directory} is an export, which does not say where its data are.")
    offline = {"download": False} if "download" in cfg.data else {}
    data = build(cfg.data, **offline)
    expected = read_sealed_json(directory.provenance)["data"]["sha256"]
    if data.digest != expected:
        raise InputError(
            f"The data set has changed since {directory} was made: SHA-256 {data.digest}, "
            f"and {expected} then."
        )
    return data
