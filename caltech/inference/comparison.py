"""Whether an exported model answers as its run does: the images, and the largest differences."""

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from caltech.errors import CaltechError, InputError
from caltech.inference.predictor import Predictor, own_data

IMAGES = 64  # compared, spread evenly over the test part
NOISE_IMAGES = 17  # where there is no test part: a batch on a CPU, and one more


def sample(predictor: Predictor) -> tuple[Tensor, dict[str, Tensor]]:
    """Images of the run's test part and its stored answers; noise and none without its data.

    Returns:
        Pixels (n, resize, resize, 3) uint8; predictions and confidences (n,), or nothing.
    """
    try:
        data = own_data(predictor.directory, predictor.cfg)
        stored = np.load(predictor.directory.predictions(predictor.weights))
    except (InputError, OSError):
        shape = (NOISE_IMAGES, predictor.resize, predictor.resize, 3)
        random = torch.Generator().manual_seed(0)
        return torch.randint(256, shape, dtype=torch.uint8, generator=random), {}
    count = len(stored["indices"])
    chosen = np.linspace(0, count - 1, min(IMAGES, count)).astype(int)
    answers = {name: torch.from_numpy(values[chosen]) for name, values in stored.items()}
    return data.pixels[answers.pop("indices")], answers


def compare(
    predictor: Predictor,
    answer: Callable[[Tensor], Tensor],
    pixels: Tensor,
    stored: Mapping[str, Tensor],
    tolerance: float,
) -> str:
    """Largest differences of probabilities from the run's model and from its stored answers.

    Args:
        answer: the exported model, decoded pixels (n, resize, resize, 3) uint8 to (n, classes).
        pixels, stored: what `sample` gave.

    Raises:
        CaltechError: one is larger than the tolerance, or no number.
    """
    answered = answer(pixels)
    kind, told = "of noise (its data set is not here)", ""
    differences = [(answered - predictor.probabilities(pixels)).abs().max().item()]
    if stored:
        confidences = answered.gather(1, stored["predictions"][:, None]).squeeze(1)
        differences.append((confidences - stored["confidences"]).abs().max().item())
        kind = "of its test part"
        told = f" and by at most {differences[1]:.1e} from the answers stored in its test"
    sentence = (
        f"on {len(answered)} images {kind}, probabilities differ by at most {differences[0]:.1e} "
        f"from the run's model{told}; {tolerance:g} is tolerated"
    )
    # Not `>`, and not of the maximum: what is not a number is no difference that is tolerated.
    if not all(difference <= tolerance for difference in differences):
        raise CaltechError(
            f"Nothing is exported: {sentence}. Type tolerance= for another, if the run was "
            "computed on another kind of device, for example."
        )
    return sentence
