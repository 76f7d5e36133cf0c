"""What answers otherwise than its run is found out, also where only the stored answers say so."""

import numpy as np
import pytest
import torch

from caltech.errors import CaltechError
from caltech.inference.comparison import compare, sample
from caltech.inference.predictor import Predictor


def test_no_number_is_no_agreement(predictor):
    def spoilt(pixels):
        return predictor.probabilities(pixels) * torch.nan

    with pytest.raises(CaltechError, match="differ by at most nan"):
        compare(predictor, spoilt, *sample(predictor), 1.0)


@pytest.mark.parametrize("spoilt", [0.5, np.nan])
def test_stored_answers_of_another_model_are_noticed(copy, spoilt):
    """The comparison is not only of the rebuilt model with itself."""
    stored = dict(np.load(copy.predictions("best")))
    confidences = stored["confidences"] * np.float32(spoilt)
    np.savez(copy.predictions("best"), **stored | {"confidences": confidences})
    predictor = Predictor.load(copy, "best", "cpu")
    with pytest.raises(CaltechError, match="from the answers stored in its test"):
        compare(predictor, predictor.probabilities, *sample(predictor), 1e-4)


def test_without_its_data_a_run_is_compared_on_noise(copy):
    copy.predictions("best").unlink()
    predictor = Predictor.load(copy, "best", "cpu")
    pixels, stored = sample(predictor)
    assert len(pixels) > predictor.batch_size and not stored
    found = compare(predictor, predictor.probabilities, pixels, stored, 1e-4)
    assert "of noise (its data set is not here)" in found
