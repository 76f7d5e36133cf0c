"""A finished run as something that answers, rebuilt from its own files."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from omegaconf import DictConfig
from safetensors import SafetensorError
from torch import Tensor, nn

from caltech import arguments, plugins
from caltech.config import build, targets_of
from caltech.data import pixels
from caltech.data.augment import VIEWS, center_crop
from caltech.data.dataset import Dataset
from caltech.errors import InputError
from caltech.files import require_no_pipe
from caltech.models.until import round_as_trained
from caltech.runs import checkpoint, logits, manifest, provenance
from caltech.runs.directory import WEIGHTS, RunDirectory
from caltech.runs.result import Result
from caltech.settings import require_allowed
from caltech.training.device import choose_device
from caltech.training.features import BATCH
from caltech.training.memory import InParts
from caltech.training.precision import Precision

log = logging.getLogger(__name__)


class AveragedViews(nn.Module):
    """uint8 images (N, 3, H, W) to probabilities (N, classes), as a run's test computes them.

    Args:
        model: gives logits.
        views: names of the views (augment.VIEWS) whose logits are averaged.
        temperature: that logits are divided by (caltech.calibration).
    """

    def __init__(self, model: nn.Module, views: Sequence[str], temperature: float = 1.0) -> None:
        super().__init__()
        self.model = model
        self.views = tuple(views)
        self.temperature = temperature

    def forward(self, images: Tensor) -> Tensor:
        logits = torch.stack([self.model(VIEWS[name](images)) for name in self.views])
        logits = logits.float().mean(0)
        if self.temperature != 1:  # from the largest one, so that none becomes equal to it
            logits = (logits - logits.amax(1, keepdim=True)) / self.temperature
        return logits.softmax(1)


@dataclass(frozen=True)
class Predictor:
    """A finished run's model in eval mode, and what its images have to look like."""

    directory: RunDirectory
    cfg: DictConfig
    weights: str  # last or best
    measured: Mapping[str, float]  # metrics of their epoch
    network: AveragedViews
    classes: tuple[str, ...]
    precision: Precision
    device: torch.device
    fitted_on: int | None = None  # validation images, if it is calibrated

    @classmethod
    def load(
        cls, directory: RunDirectory, weights: str, device: str, calibrated: bool = False
    ) -> "Predictor":
        """Rebuild a finished run's model from the directory alone: no data, no download.

        Only config.targets can be called by the directory's config, and safetensors hold nothing
        but numbers.

        Args:
            calibrated: whether logits are divided by the temperature that fits the validation
                images; an export that was calibrated is so in any case.

        Raises:
            InputError: there are no such weights or device, the run is not finished, its files do
                not fit each other, it has no temperature, or it is of a time when class names were
                not kept and its data set is not here.
            DamagedError: a file is not what the run wrote.
        """
        require_allowed("device", device)
        if weights not in WEIGHTS:
            raise InputError(
                f"weights={weights} is not allowed: it is one of {', '.join(WEIGHTS)}. "
                f"Type weights={arguments.nearest(str(weights), WEIGHTS) or WEIGHTS[-1]}."
            )
        result, path = Result.read(directory, pruned_too=False), directory.weights(weights)
        require_no_pipe(path)
        if result is None:
            raise InputError(
                f"{directory} has no {directory.result.name} of a finished run. Type its training "
                "command again to finish it, or choose another with run=."
            )
        if not path.is_file():
            raise InputError(
                f"{directory} has no {manifest.lacking(path)}. Type its training command with "
                f"{manifest.again(path)}, or choose the other ones with weights=."
            )
        files = [directory.config, directory.provenance, *directory.model(weights)]
        manifest.verify(directory, files)
        plugins.load(())  # those of the environment: the directory's config names none
        cfg = manifest.read_config(directory.config)
        temperature, fitted_on = cfg.get("temperature", 1.0), cfg.get("fitted_on")
        if calibrated and fitted_on is None:
            temperature, fitted_on = logits.temperature_of(directory, weights)
        kept = provenance.read(directory)
        _tell_other_code(directory, kept, cfg)
        # Runs of the first versions did not keep them.
        classes = kept["classes"] if "classes" in kept else own_data(directory, cfg).classes
        where = choose_device(device, gpu_share=None)
        size = int(cfg.data.crop)
        model = build(cfg.model, num_classes=len(classes), load=False, size=size)
        try:
            checkpoint.load_weights(path, model)
        except (ValueError, SafetensorError) as error:
            raise InputError(
                f"{path} does not fit the model of config.yaml beside it: {error}. A library may "
                f"have changed it since; {directory.provenance} says what the run was made with."
            ) from error
        round_as_trained(model, cfg.get("freeze", {}), size)
        network = AveragedViews(model, build(cfg.augment).test, temperature).eval()
        network.to(where, memory_format=torch.channels_last)
        return cls(
            directory=directory,
            cfg=cfg,
            weights=weights,
            measured=getattr(result, weights),
            network=network,
            classes=tuple(classes),
            precision=build(cfg.precision),
            device=where,
            fitted_on=fitted_on,
        )

    @property
    def temperature(self) -> float:
        """That logits are divided by."""
        return self.network.temperature

    @property
    def resize(self) -> int:
        """Pixels of an image's short side before the centre crop."""
        return self.cfg.data.resize

    @property
    def upright(self) -> bool:
        """Whether images are turned as their EXIF orientation says."""
        return self.cfg.data.get("upright", False)

    @property
    def batch_size(self) -> int:
        """Images that are answered at a time."""
        return BATCH[self.device.type]

    def read(self, file: Path | IO[bytes]) -> Tensor:
        """Pixels (resize, resize, 3) uint8 of an image file; a broken one raises many types."""
        return torch.from_numpy(pixels.decode(file, self.resize, self.upright).copy())

    @staticmethod
    def stack(images: Sequence[Tensor]) -> Tensor:
        """Of what `read` gave of several images, what `probabilities` takes."""
        return torch.stack(list(images))

    def crop(self, pixels: Tensor) -> Tensor:
        """Centre crops (n, 3, crop, crop) of decoded pixels (n, resize, resize, 3), both uint8."""
        return center_crop(pixels, torch.arange(len(pixels)), self.cfg.data.crop)

    @torch.inference_mode()
    def probabilities(self, pixels: Tensor) -> Tensor:
        """(n, classes) float32 on the CPU, of decoded pixels (n, resize, resize, 3) uint8."""
        with self.precision.autocast(self.device):
            return torch.cat([*map(InParts(self._answered), pixels.split(self.batch_size))])

    def _answered(self, pixels: Tensor) -> Tensor:
        return self.network(self.crop(pixels).to(self.device)).cpu()

    def rank(self, probabilities: Tensor, count: int) -> list[dict[str, Any]]:
        """The `count` most probable classes of (classes,) probabilities, in falling order."""
        return ranked(self.classes, probabilities, count)

    def summary(self) -> dict[str, Any]:
        """Which run it is, and how good it was."""
        calibrated = {} if self.fitted_on is None else {"temperature": self.temperature}
        return {
            "key": self.cfg.key,
            "study": self.cfg.study,
            "directory": str(self.directory),
            "weights": self.weights,
            "epoch": self.measured["epoch"],
            "val/accuracy": self.measured["val/accuracy"],
        } | calibrated


def _tell_other_code(directory: RunDirectory, kept: Mapping[str, Any], cfg: DictConfig) -> None:
    """Warn if a plugin is not what the run was made with: the answers may be others."""
    before, now = kept.get("code", {}).get("plugins", {}), plugins.digests(targets_of(cfg))
    for name in (name for name in now if before.get(name, now[name]) != now[name]):
        log.warning(
            "%s was made with another %s (sha256 %s, and now %s): its answers may be others. Bring "
            "the module back, or train it anew.", directory, name, before[name][:8], now[name][:8],
        )  # fmt: skip


def ranked(classes: Sequence[str], probabilities: Tensor, count: int) -> list[dict[str, Any]]:
    """The `count` most probable classes of (classes,) probabilities, in falling order."""
    values, indices = probabilities.topk(min(count, len(classes)))
    pairs = zip(indices.tolist(), values.tolist(), strict=True)
    return [{"class": classes[index], "probability": value} for index, value in pairs]


def own_data(directory: RunDirectory, cfg: DictConfig) -> Dataset:
    """The data set that a run of this config was made from.

    Raises:
        InputError: it is not here, or has changed.
    """
    if "_target_" not in cfg.data:
        raise InputError(f"{directory} is an export, which does not say where its data are.")
    offline = {"download": False} if "download" in cfg.data else {}
    data = build(cfg.data, **offline)
    expected = provenance.read(directory)["data"]["sha256"]
    if data.digest != expected:
        raise InputError(
            f"The data set has changed since {directory} was made: SHA-256 {data.digest}, "
            f"and {expected} then."
        )
    return data
