"""Where a finished run is, and a start from its weights."""

import numpy as np
import pytest
import torch

from caltech.config import build
from caltech.errors import InputError
from caltech.files import read_sealed_json
from caltech.runs.directory import RunDirectory
from caltech.train import train
from tests.observers import TINY, outcome


@pytest.fixture(scope="module")
def head(compose_in, tmp_path_factory):
    cfg = compose_in(tmp_path_factory.mktemp("head"), *TINY, "freeze=backbone")
    train(cfg)
    return cfg


def test_a_run_starts_from_another_one_s_best_weights(compose_in, head):
    tiny = [*TINY, "freeze=none", "num_epochs=1", "batch_size=64", "lr=1e-30"]
    cfg = compose_in(head.output, *tiny, f"start={head.key}")
    train(cfg)
    best = outcome(head)[2]
    for name, value in outcome(cfg)[1].items():
        if "running_" not in name and "num_batches" not in name:  # BatchNorm has seen a batch
            assert torch.allclose(value, best[name], rtol=0, atol=1e-20), name
    told = read_sealed_json(RunDirectory(cfg.directory).provenance)
    assert told["weights"]["name"].endswith(f", then the best of {head.key}")
    assert cfg.key != compose_in(head.output, *tiny).key


def test_another_model_cannot_start_from_it(compose_in, head):
    other = ["model=resnet18", "model.weights=null", f"start={head.key}"]
    with pytest.raises(InputError, match=r"start=.* cannot be the start of this model"):
        train(compose_in(head.output, *TINY[3:], *other))


def test_a_start_from_another_split_is_refused(compose_in, head, tmp_path):
    """What it was trained on may be what this run is tested on."""
    own, halves = [], np.array_split(build(head.data).files, 2)
    for name, files in zip(("train", "test"), halves, strict=True):
        (tmp_path / f"{name}.txt").write_text("\n".join(files))
        own.append(f"data.{name}_files={tmp_path}/{name}.txt")
    with pytest.raises(InputError, match=r"another split .*may be test images here"):
        train(compose_in(head.output, *TINY, *own, f"start={head.key}"))
