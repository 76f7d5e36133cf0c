"""Old run keys promise the same bits: runs by an earlier commit's code and by this one's."""

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.conftest import REPOSITORY

EARLIER = "8447d3f"
COMMON = ["model=timm", "model.name=test_resnet", "model.weights=null", "data.resize=40"]
COMMON += ["data.crop=32", "num_epochs=3", "batch_size=8", "device=cpu", "tracking=none"]
RUNS = {
    "full": ["freeze=none"],
    "cached": ["freeze=backbone", "augment=flip_both", "+optimizer.nesterov=true"],
    "cached, averaged": ["freeze=backbone", "average=ema", "average.decay=0.9"],
    "averaged": ["freeze=head", "average=ema", "augment=flip"],
    "crops": ["freeze=none", "augment=flip_crop", "optimizer=adam", "lr=0.001"],
    "bf16": ["freeze=none", "precision=bf16", "augment=flip_crop"],
    "amp": ["freeze=none", "precision=amp"],
    "trivial": ["freeze=none", "augment=trivial", "optimizer=adamw", "lr=0.001",
                "loss.label_smoothing=0.1", "schedule=cosine"],
    "dropout": ["model=torchvision", "model.name=mobilenet_v3_small", "freeze=none"],
}  # fmt: skip

COMPUTE = """
import sys
from hydra import compose, initialize_config_dir
from caltech.config import register
from caltech.settings import CONF
from caltech.train import train
register()
for line in sys.stdin.read().splitlines():
    with initialize_config_dir(config_dir=str(CONF)):
        cfg = compose("train", line.split())
    train(cfg)
"""


def compute(source: Path, tree: Path, output: Path) -> None:
    """All runs by the code in `source`, in one process."""
    common = [*COMMON, f"data.root={tree}", f"output={output}", f"cache={output}/cache"]
    lines = [" ".join([*common, *RUNS[run], f"study={i}"]) for i, run in enumerate(RUNS)]
    own = {"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", COMPUTE]
    subprocess.run(command, input="\n".join(lines), text=True, cwd=output, env=os.environ | own,
                   check=True)  # fmt: skip


@pytest.fixture(scope="module")
def both(tree, tmp_path_factory) -> tuple[Path, Path]:
    """Outputs of the earlier code and of this one's."""
    folder = tmp_path_factory.mktemp("bits")
    command = ["git", "-C", str(REPOSITORY), "archive", EARLIER, "caltech", "conf"]
    archived = subprocess.run(command, capture_output=True, check=False)
    if archived.returncode:
        pytest.skip(f"commit {EARLIER} is not in this checkout")
    with tarfile.open(fileobj=io.BytesIO(archived.stdout)) as archive:
        archive.extractall(folder / "source", filter="data")
    places = (folder / "earlier", folder / "now")
    for source, place in zip((folder / "source", REPOSITORY), places, strict=True):
        place.mkdir()
        compute(source, tree, place)
    return places


def weights(result: Path, name: str) -> dict[str, bytes]:
    """Of the whole network: what is frozen is in a file of its own by now."""
    files = [result.with_name(f"{each}.safetensors") for each in ("frozen", name)]
    loaded = [load_file(path) for path in files if path.is_file()]
    return {key: tensor.tobytes() for each in loaded for key, tensor in each.items()}


@pytest.mark.slow
@pytest.mark.parametrize("run", RUNS)
def test_results_weights_and_predictions_are_the_same_bytes(both, run):
    study = str(list(RUNS).index(run))
    (earlier,), (now,) = (list((place / study).glob("*/result.json")) for place in both)
    assert earlier.parent.name == now.parent.name  # the key
    assert earlier.read_bytes() == now.read_bytes()
    for name in ("last", "best"):
        assert weights(earlier, name) == weights(now, name)
        answers = [np.load(p.with_name(f"predictions_{name}.npz")) for p in (earlier, now)]
        for array in answers[0].files:
            assert answers[0][array].tobytes() == answers[1][array].tobytes(), array
