"""Whether an export answers as its run: on which images it is asked, and how much they differ."""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor

from caltech import plugins
from caltech.amounts import counted
from caltech.config import targets_of
from caltech.data.dataset import Dataset
from caltech.errors import CaltechError, DamagedError, DiskError, InputError
from caltech.inference.ensemble import Ensemble, scaled
from caltech.inference.ensemble import stored as answers_of
from caltech.inference.predictor import Predictor, own_data
from caltech.runs import manifest
from caltech.runs.directory import RunDirectory

log = logging.getLogger(__name__)

_asked: set[str] = set()  # models of plugins whose finished runs were asked

IMAGES = 64  # compared, spread evenly over the test part
ANSWERS = ("indices", "labels", "predictions", "confidences")  # as the test stores them
WARNED = 0.05  # a difference of probabilities that rounding to 16 bits does not make
NOISE_IMAGES = 17  # where there is no test part: a batch on a CPU, and one more


def sample(predictor: Predictor, data: Dataset | None = None) -> tuple[Tensor, dict[str, Tensor]]:
    """Images of the run's test part and its stored answers; noise and none without its data.

    Args:
        data: what the run was made from, if it is at hand.

    Returns:
        Pixels (n, resize, resize, 3) uint8; predictions and confidences (n,), or nothing.

    Raises:
        DamagedError: the answers are not what the run wrote.
    """
    path = predictor.directory.predictions(predictor.weights)
    stored = stored_answers(predictor.directory, path) if path.is_file() else None
    try:
        data = (data or own_data(predictor.directory, predictor.cfg)) if stored else None
    except (InputError, DiskError):
        data = None
    if data is None:
        shape = (NOISE_IMAGES, predictor.resize, predictor.resize, 3)
        random = torch.Generator().manual_seed(0)
        return torch.randint(256, shape, dtype=torch.uint8, generator=random), {}
    count = len(stored["indices"])
    limits = {"indices": len(data.labels), "predictions": len(predictor.classes)}
    if not all(0 <= stored[n].min() <= stored[n].max() < most for n, most in limits.items()):
        raise DamagedError(f"{path} was cut short or changed: it is not of the run's data.")
    chosen = np.linspace(0, count - 1, min(IMAGES, count)).astype(int)
    answers = {name: torch.from_numpy(values[chosen]) for name, values in stored.items()}
    return data.pixels[answers.pop("indices")], answers


def sample_of_members(ensemble: Ensemble) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """The same of several: pixels for each way in which members read an image."""
    samples = [sample(ensemble.reader(form)) for form in ensemble.forms]  # decoded once each
    if not all(stored for _, stored in samples):
        random = torch.Generator().manual_seed(0)
        shapes = [(NOISE_IMAGES, side, side, 3) for side, _ in ensemble.forms]
        draw = partial(torch.randint, 256, dtype=torch.uint8, generator=random)
        return tuple(draw(shape) for shape in shapes), {}
    count = len(samples[0][0])
    first = ensemble.members[0].directory
    total = len(stored_answers(first, first.predictions(ensemble.weights))["indices"])
    pixels = tuple(each for each, _ in samples)
    return pixels, answers_of(ensemble, np.linspace(0, total - 1, count).astype(int))


def reread(ensemble: Ensemble, pixels: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return ensemble.stack([ensemble.read(BytesIO(file)) for file in files_of(pixels)])


def stored_answers(directory: RunDirectory, path: Path) -> dict[str, np.ndarray]:
    """Indices (n,), labels (n,), predictions (n,) and confidences (n,) of a run's test.

    Raises:
        DamagedError: they are not what the run wrote.
    """
    manifest.verify(directory, [path])
    try:
        with path.open("rb") as opened, np.load(opened) as file:
            stored = {name: file[name] for name in ANSWERS}
    except Exception as error:  # numpy and zipfile raise many types for a broken file
        raise DamagedError(f"{path} was cut short or changed: {error}.") from error
    kinds = ["i", "i", "i", "f"]
    length = len(stored["indices"]) if stored["indices"].ndim == 1 else 0
    for name, kind in zip(ANSWERS, kinds, strict=True):
        if stored[name].shape != (length,) or stored[name].dtype.kind != kind or not length:
            raise DamagedError(f"{path} was cut short or changed: {name} is not what a test gives.")
    return stored


def compare(
    predictor: Predictor | Ensemble,
    answer: Callable[[Tensor], Tensor],
    pixels: Tensor | tuple[Tensor, ...],
    stored: Mapping[str, Tensor],
    tolerance: float,
) -> str:
    """Largest differences of probabilities from the run's model and from its stored answers, in
    lines of 80 columns.

    Args:
        answer: the exported model, decoded pixels (n, resize, resize, 3) uint8 to (n, classes).
        pixels, stored: what `sample` gave.

    Raises:
        CaltechError: one is larger than the tolerance, or no number.
    """
    answered = answer(pixels)
    kind, told = "of noise (its data set is not here)", ""
    if isinstance(predictor, Ensemble) and not stored:
        kind = "that have no stored answers"
    differences = [(answered - predictor.probabilities(pixels)).abs().max().item()]
    if stored:
        # The test's answers are not calibrated: p to the power of T, of all one, is softmax(z).
        likely = scaled(answered.double(), 1 / predictor.temperature).float()
        confidences = likely.gather(1, stored["predictions"][:, None]).squeeze(1)
        differences.append((confidences - stored["confidences"]).abs().max().item())
        kind = "of its test part"
        told = f"\n  {differences[1]:.1e} from the answers stored in its test"
    sentence = (
        f"on {counted(len(answered), 'image')} {kind}, probabilities differ by at most\n"
        f"  {differences[0]:.1e} from the run's model{told}\n  {tolerance:.1e} is tolerated"
    )
    # Not `>`, and not of the maximum: what is not a number is no difference that is tolerated.
    if not all(difference <= tolerance for difference in differences):
        raise CaltechError(
            f"Nothing is exported: {sentence}.\nType tolerance= for another, if the run computes "
            "with less precision\nthan float32, or was computed on another kind of device."
        )
    return sentence


def warn_if_other(directory: RunDirectory, cfg: DictConfig, data: Dataset) -> None:
    """Of a finished run of a plugin's model: whether it answers, built anew, as in its test. What
    training has put into something else than weights and buffers is in no file.

    A model is asked once a process, and not after each trial of a sweep.
    """
    asked = f"{cfg.model} {cfg.freeze} {plugins.digests(targets_of(cfg.model))}"
    is_own = plugins.adds(cfg.model._target_) and directory.predictions("best").is_file()
    if not is_own or asked in _asked:
        return
    _asked.add(asked)
    try:
        predictor = Predictor.load(directory, "best", cfg.device)
    except CaltechError as error:  # the run is finished, and is told of as others are
        log.warning("WARNING: the model cannot be built anew from its files: %s", error)
        return
    pixels, stored = sample(predictor, data)
    found = predictor.probabilities(pixels).gather(1, stored["predictions"][:, None]).squeeze(1)
    difference = (found - stored["confidences"]).abs().max().item()
    if not difference <= WARNED:
        log.warning(
            "WARNING: built anew from its files, the model answers otherwise than in its test, by "
            "probabilities that differ by %.2g: predict and export will, too. What it learns has "
            "to be in its parameters and buffers.", difference,
        )  # fmt: skip


def files_of(pixels: Tensor | tuple[Tensor, ...]) -> list[bytes]:
    """Pixels, of several sizes the largest, as the bytes of PNG files, which keep them exactly."""
    if isinstance(pixels, tuple):
        pixels = max(pixels, key=lambda each: each.shape[1])
    files = [BytesIO() for _ in pixels]
    for image, file in zip(pixels, files, strict=True):
        Image.fromarray(image.numpy()).save(file, format="PNG")
    return [file.getvalue() for file in files]
