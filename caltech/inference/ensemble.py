"""Several finished runs that answer as one: the mean of their probabilities.

B. Lakshminarayanan, A. Pritzel, C. Blundell: Simple and Scalable Predictive Uncertainty Estimation
using Deep Ensembles, NeurIPS 2017. A calibrated ensemble has one temperature, of the mean: members
that are calibrated one by one are not calibrated together.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor, nn

from caltech.errors import DamagedError, InputError
from caltech.files import read_sealed_json
from caltech.inference.predictor import Predictor, ranked
from caltech.runs import logits
from caltech.runs.directory import EXPORTED, RunDirectory


class Mean(nn.Module):
    """Images to the mean of what networks give of them: (N, classes) probabilities."""

    def __init__(self, networks: Sequence[nn.Module], temperature: float) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.temperature = temperature

    def forward(self, images: Tensor) -> Tensor:
        return scaled(
            torch.stack([network(images) for network in self.networks]).mean(0), self.temperature
        )


def scaled(probabilities: Tensor, temperature: float) -> Tensor:
    """softmax(log(p) / T) of probabilities (N, classes)."""
    if temperature == 1:
        return probabilities
    powers = (probabilities / probabilities.amax(1, keepdim=True)).pow(1 / temperature)
    return powers / powers.sum(1, keepdim=True)


@dataclass(frozen=True)
class Ensemble:
    """What a Predictor is, of several; members may have other networks and image sizes.

    Decoded pixels are a tuple: one tensor for each way in which members read an image.
    """

    members: tuple[Predictor, ...]
    temperature: float = 1.0
    fitted_on: int | None = None

    @classmethod
    def of(cls, members: Sequence[Predictor], calibrated: bool = False) -> "Ensemble":
        """Join runs.

        Raises:
            InputError: they have other classes or other test images, or no temperature.
            DamagedError: a file is not what its run wrote.
        """
        directories = [member.directory for member in members]
        logits.require_alike(directories, [member.classes for member in members])
        fitted = logits.mean_temperature(directories, members[0].weights) if calibrated else ()
        return cls(tuple(members), *fitted)

    @property
    def classes(self) -> tuple[str, ...]:
        return self.members[0].classes

    @property
    def weights(self) -> str:
        return self.members[0].weights

    @property
    def device(self) -> torch.device:
        return self.members[0].device

    @property
    def batch_size(self) -> int:
        return self.members[0].batch_size

    @property
    def upright(self) -> bool:
        """Whether all members turn images as their EXIF orientation says."""
        return all(member.upright for member in self.members)

    @cached_property
    def forms(self) -> list[tuple[int, bool]]:
        """The ways in which members read an image: pixels of a side, and whether upright."""
        return list(dict.fromkeys((each.resize, each.upright) for each in self.members))

    @property
    def is_of_one_size(self) -> bool:
        return len(self.forms) == 1 and len({each.cfg.data.crop for each in self.members}) == 1

    @property
    def network(self) -> Mean:
        """All members in one, if they see images of one size."""
        return Mean([member.network for member in self.members], self.temperature).eval()

    def read(self, file: Path | IO[bytes]) -> tuple[Tensor, ...]:
        """Pixels of an image file in each form; a broken one raises many types."""
        return tuple(self.reader(form).read(_from_start(file)) for form in self.forms)

    def reader(self, form: tuple[int, bool]) -> Predictor:
        """The first member that reads images in a form."""
        return next(each for each in self.members if (each.resize, each.upright) == form)

    @staticmethod
    def stack(images: Sequence[tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """Of what `read` gave of several images, what `probabilities` takes."""
        return tuple(torch.stack(each) for each in zip(*images, strict=True))

    def crop(self, pixels: tuple[Tensor, ...]) -> Tensor:
        """What every member sees, if that is the same."""
        return self.members[0].crop(pixels[0])

    def probabilities(self, pixels: tuple[Tensor, ...]) -> Tensor:
        """(n, classes) float32 on the CPU, of decoded pixels in each form."""
        of = dict(zip(self.forms, pixels, strict=True))
        given = [each.probabilities(of[each.resize, each.upright]) for each in self.members]
        # In float64, so that the mean of equal members is each of them.
        return scaled(torch.stack(given).double().mean(0), self.temperature).float()

    def rank(self, probabilities: Tensor, count: int) -> list[dict[str, Any]]:
        """The `count` most probable classes of (classes,) probabilities, in falling order."""
        return ranked(self.classes, probabilities, count)

    def summary(self) -> dict[str, Any]:
        """Which runs it is of, and how good each was."""
        calibrated = {} if self.fitted_on is None else {"temperature": self.temperature}
        members = [member.summary() for member in self.members]
        keys = ",".join(member["key"] for member in members)
        return {"key": keys, "weights": self.weights, "members": members} | calibrated


def load(
    folder: Path, weights: str | None, device: str, calibrated: bool = False
) -> Predictor | Ensemble:
    """A run's directory or what was exported of one run or of several.

    Args:
        weights: of the "best" or the "last" epoch; None is the best, or what was exported.

    Raises:
        InputError: as Predictor.load; or an ensemble has other weights.
        DamagedError: as Predictor.load.
    """
    if not (folder / EXPORTED).is_file():
        return Predictor.load(RunDirectory(folder), weights or "best", device, calibrated)
    needs = {"members": list, "weights": str, "temperature": float}
    told = read_sealed_json(folder / EXPORTED, needs)
    names, fitted_on = told["members"], told.get("fitted_on")
    if not names or not all(isinstance(name, str) and name.isdecimal() for name in names):
        raise DamagedError(f"{folder / EXPORTED} was cut short or changed: it has no members.")
    if weights not in (None, told["weights"]):
        raise InputError(
            f"{folder} was exported with weights={told['weights']} alone. Type that, leave "
            f"weights={weights} out, or export the runs again with it."
        )
    members = [Predictor.load(RunDirectory(folder / n), told["weights"], device) for n in names]
    if calibrated and fitted_on is None:
        raise InputError(
            f"{folder} was exported without a temperature. Export the runs again with --calibrated."
        )
    return Ensemble(tuple(members), told["temperature"], fitted_on)


def stored(ensemble: Ensemble, chosen: np.ndarray) -> dict[str, Tensor]:
    """The answers that members' logits come to on some test images; nothing where they have none.

    Args:
        chosen: places in the test part.
    """
    directories = [member.directory for member in ensemble.members]
    try:
        likely = logits.mean_of(directories, ensemble.weights)["test"].logits[chosen]
    except InputError:
        return {}
    confidences, predictions = torch.from_numpy(np.exp(likely)).max(1)
    return {"predictions": predictions, "confidences": confidences.float()}


def _from_start(file: Path | IO[bytes]) -> Path | IO[bytes]:
    if not isinstance(file, Path):
        file.seek(0)
    return file
