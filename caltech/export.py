"""Take a trained run elsewhere: `python -m caltech.export run=KEY|best format=onnx to=FOLDER`."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from torch import Tensor

from caltech.errors import CaltechError, InputError
from caltech.inference import command_line, predictor
from caltech.inference.formats import FORMATS
from caltech.inference.predictor import Trained
from caltech.training.features import BATCH

USAGE = "python -m caltech.export [run=KEY|best] format=safetensors|onnx|mlflow to=FOLDER"
DESCRIPTION = """\
Write a trained run's model to a new folder, in one of three formats.

  safetensors  weights, config and class names; caltech.predict reads it with run=FOLDER
  onnx         model.onnx: images (N, 3, crop, crop) uint8 to probabilities (N, classes);
               class names and sizes are in its metadata
  mlflow       a pyfunc model for `mlflow models serve -m FOLDER --env-manager local`:
               image files' bytes to classes

The files written are then read again, and their probabilities on images of the run's own test part
compared with the run's model and with the answers stored when it was tested. The largest difference
is printed; beyond the tolerance nothing is written and the exit code is 1.
"""
IMAGES = 64  # compared, spread evenly over the test part
TOLERANCE = 1e-4  # of probabilities
# ONNX computes in float32 what was trained and tested in these.
ONNX_TOLERANCES = {"float32": TOLERANCE, "float16": 1e-2, "bfloat16": 5e-2}


@dataclass(frozen=True)
class Sample:
    """Images to compare answers on."""

    pixels: Tensor  # (n, resize, resize, 3) uint8
    predictions: Tensor | None  # (n,) classes answered in the run's own test; None without data
    confidences: Tensor | None  # (n,) their probabilities


def export(run: Trained, form: str, to: Path, tolerance: float) -> str:
    """Write the run in a form, read it again and compare; return what was found in a sentence.

    Raises:
        InputError: `to` exists, or a library is missing.
        CaltechError: the written model's answers differ by more than `tolerance`.
    """
    write, read = FORMATS[form]
    if to.exists():
        raise InputError(f"to={to} exists already. Nothing is overwritten: type another folder.")
    to.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=to.parent, prefix=f".{to.name}-") as temporary:
        folder = Path(temporary) / to.name
        images = sample(run)
        write(run, folder, images.pixels)
        found = compare(run, images, read(run, folder), tolerance)
        shutil.move(folder, to)
    return found


def compare(
    run: Trained, images: Sample, answer: Callable[[Tensor], Tensor], tolerance: float
) -> str:
    """Largest differences of probabilities from the run's model and from its stored answers."""
    batches = images.pixels.split(BATCH[run.device.type])
    answered = torch.cat([answer(batch) for batch in batches])
    expected = torch.cat([run.probabilities(batch) for batch in batches])
    difference = (answered - expected).abs().max().item()
    kind = "of noise (its data set is not here)"
    stored, told = 0.0, ""
    if images.predictions is not None:
        kind = "of its test part"
        confidences = answered.gather(1, images.predictions[:, None]).squeeze(1)
        stored = (confidences - images.confidences).abs().max().item()
        told = f" and by at most {stored:.1e} from the answers stored in its test"
    sentence = (
        f"on {len(answered)} images {kind}, probabilities differ by at most {difference:.1e} from "
        f"the run's model{told}; {tolerance:g} is tolerated"
    )
    # Not `>`: a difference that is not a number is none that is tolerated.
    if not max(difference, stored) <= tolerance:
        raise CaltechError(
            f"Nothing is exported: {sentence}. Type tolerance= for another, if the run was "
            "computed on another kind of device, for example."
        )
    return sentence


def sample(run: Trained) -> Sample:
    """Images of the run's test part with its stored answers; noise where its data are not."""
    path = run.directory.predictions(run.weights)
    try:
        data = predictor.own_data(run)
        stored = np.load(path)
    except (InputError, OSError):
        shape = (BATCH["cpu"] + 1, run.resize, run.resize, 3)
        random = torch.Generator().manual_seed(0)
        noise = torch.randint(256, shape, dtype=torch.uint8, generator=random)
        return Sample(noise, None, None)
    count = len(stored["indices"])
    chosen = np.linspace(0, count - 1, min(IMAGES, count)).astype(int)
    return Sample(
        data.pixels[torch.from_numpy(stored["indices"][chosen])],
        torch.from_numpy(stored["predictions"][chosen]),
        torch.from_numpy(stored["confidences"][chosen]),
    )


def main(words: Sequence[str]) -> int:
    """The command; 0, or an error."""
    parser = command_line.Parser(USAGE, DESCRIPTION)
    parser.add_argument("--format", choices=FORMATS, required=True)
    parser.add_argument("--to", metavar="FOLDER", type=Path, required=True, help="a new folder")
    parser.add_argument("--tolerance", metavar="NUMBER", type=float,
        help="of probabilities (default: 1e-4; for ONNX, which computes in float32, 1e-2 if the "
        "run has precision=amp, 5e-2 if bf16)")  # fmt: skip
    given = parser.read(words)
    run = command_line.load(given)
    usual = ONNX_TOLERANCES[run.precision.name] if given.format == "onnx" else TOLERANCE
    tolerance = usual if given.tolerance is None else given.tolerance
    print(f"{given.to}: {export(run, given.format, given.to.expanduser(), tolerance)}")
    return 0


if __name__ == "__main__":
    command_line.start(main)
