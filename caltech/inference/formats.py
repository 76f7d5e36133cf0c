"""The forms in which a run is exported: written, read again, compared with the run, and then kept.

A form is a function that writes, and one that reads again and gives a function like
Predictor.probabilities: decoded pixels (n, resize, resize, 3) uint8 to (n, classes).
"""

import copy
import importlib.util
import json
import logging
import os
from collections.abc import Callable, Mapping
from importlib import metadata
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor

from caltech.errors import CaltechError, DamagedError, DiskError, InputError
from caltech.files import making_folder, write_sealed_json
from caltech.inference.predictor import Predictor, own_data
from caltech.runs import manifest, provenance
from caltech.runs.checkpoint import save_weights
from caltech.runs.directory import RunDirectory
from caltech.settings import CONF, PACKAGE

if TYPE_CHECKING:
    from pandas import DataFrame

IMAGES = 64  # compared, spread evenly over the test part
ANSWERS = ("indices", "labels", "predictions", "confidences")  # as the test stores them
NOISE_IMAGES = 17  # where there is no test part: a batch on a CPU, and one more


def export(predictor: Predictor, form: str, to: Path, tolerance: float) -> str:
    """Write the run in a form, read it again and compare; return what was found in a sentence.

    Raises:
        InputError: `to` exists, or a library is missing.
        CaltechError: the written model's answers differ by more than `tolerance`.
    """
    write, read = FORMATS[form]
    if to.exists():
        raise InputError(f"to={to} exists already. Nothing is overwritten: type another folder.")
    with making_folder(to) as folder:
        pixels, stored = sample(predictor)
        write(predictor, folder, pixels)
        return compare(predictor, read(predictor, folder), pixels, stored, tolerance)


def sample(predictor: Predictor) -> tuple[Tensor, dict[str, Tensor]]:
    """Images of the run's test part and its stored answers; noise and none without its data.

    Returns:
        Pixels (n, resize, resize, 3) uint8; predictions and confidences (n,), or nothing.

    Raises:
        DamagedError: the answers are not what the run wrote.
    """
    path = predictor.directory.predictions(predictor.weights)
    stored = stored_answers(predictor.directory, path) if path.is_file() else None
    try:
        data = own_data(predictor.directory, predictor.cfg) if stored else None
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


def write_safetensors(predictor: Predictor, folder: Path, pixels: Tensor) -> None:
    """A run's directory with no more than an answer needs, and without this machine's paths."""
    folder.mkdir()
    run, to = predictor.directory, RunDirectory(folder)
    groups = {"key", "study", "model", "freeze", "augment", "precision"} & predictor.cfg.keys()
    cfg = OmegaConf.masked_copy(predictor.cfg, sorted(groups))
    seen = ("resize", "crop", "upright")  # what decides how an image is read
    cfg.data = {name: predictor.cfg.data[name] for name in seen if name in predictor.cfg.data}
    to.config.write_text(OmegaConf.to_yaml(cfg))
    classes = {"classes": list(predictor.classes)}
    write_sealed_json(to.provenance, provenance.read(run) | classes)
    save_weights(to.weights(predictor.weights), predictor.network.model)
    result = run.result.read_bytes()
    manifest.write(to, predictor.cfg.key, result)
    to.result.write_bytes(result)


def read_safetensors(predictor: Predictor, folder: Path) -> Callable[[Tensor], Tensor]:
    """By this package."""
    written, device = RunDirectory(folder), predictor.device.type
    return Predictor.load(written, predictor.weights, device).probabilities


def write_onnx(predictor: Predictor, folder: Path, pixels: Tensor) -> None:
    """One file; views are averaged inside, so that nobody has to know of them.

    Raises:
        InputError: a library that it needs is not installed.
    """
    libraries = ("onnx", "onnxscript", "onnxruntime")
    if missing := [name for name in libraries if importlib.util.find_spec(name) is None]:
        raise InputError(f"format=onnx needs more libraries. Type: pip install {' '.join(missing)}")
    folder.mkdir()
    program = torch.onnx.export(
        copy.deepcopy(predictor.network).cpu().to(memory_format=torch.contiguous_format),
        (predictor.crop(pixels[:2]),),
        input_names=["images"],
        output_names=["probabilities"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        dynamo=True,
        verbose=False,
    )
    about = {"classes": predictor.classes, "resize": predictor.resize}
    about |= {"crop": predictor.cfg.data.crop, "run": predictor.summary() | {"directory": None}}
    program.model.metadata_props.update({name: json.dumps(v) for name, v in about.items()})
    program.save(folder / "model.onnx", external_data=False)


def read_onnx(predictor: Predictor, folder: Path) -> Callable[[Tensor], Tensor]:
    """By onnxruntime on the CPU."""
    from onnxruntime import InferenceSession

    session = InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])

    def answer(pixels: Tensor) -> Tensor:
        batches = predictor.crop(pixels).contiguous().split(predictor.batch_size)
        found = [session.run(None, {"images": batch.numpy()})[0] for batch in batches]
        return torch.from_numpy(np.concatenate(found))

    return answer


def write_mlflow(predictor: Predictor, folder: Path, pixels: Tensor) -> None:
    """A pyfunc model of code, this package's own (serving.py), around a safetensors export.

    Its serving_input_example.json is a request that can be sent to a server as it is.
    """
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    from mlflow.models import ModelSignature
    from mlflow.pyfunc import save_model
    from mlflow.types import ColSpec, ParamSchema, ParamSpec, Schema

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    run = folder.with_name(f"{folder.name}-files") / "run"
    run.parent.mkdir()
    write_safetensors(predictor, run, pixels)
    # In a checkout conf/ is beside the package, which looks for it there.
    code = [PACKAGE] if CONF.is_relative_to(PACKAGE) else [PACKAGE, CONF]
    save_model(
        folder,
        python_model=str(Path(__file__).with_name("serving.py")),
        artifacts={"run": str(run)},
        model_config={"weights": predictor.weights},
        code_paths=[str(path) for path in code],
        signature=ModelSignature(
            inputs=Schema([ColSpec("binary", "image")]),
            params=ParamSchema([ParamSpec("top", "long", 5)]),
        ),
        input_example=_table(pixels[:1]),
        pip_requirements=[r for r in metadata.requires("caltech") if "extra ==" not in r],
    )


def read_mlflow(predictor: Predictor, folder: Path) -> Callable[[Tensor], Tensor]:
    """By MLflow."""
    from mlflow.pyfunc import load_model

    model = load_model(str(folder))

    def answer(pixels: Tensor) -> Tensor:
        rows = model.predict(_table(pixels), params={"top": len(predictor.classes)})
        named = [{top["class"]: top["probability"] for top in row["top"]} for row in rows]
        return torch.tensor([[row[name] for name in predictor.classes] for row in named])

    return answer


FORMATS = {
    "safetensors": (write_safetensors, read_safetensors),
    "onnx": (write_onnx, read_onnx),
    "mlflow": (write_mlflow, read_mlflow),
}


def _table(pixels: Tensor) -> "DataFrame":
    """Pixels as the bytes of PNG files, which keep them exactly."""
    import pandas

    files = [BytesIO() for _ in pixels]
    for image, file in zip(pixels, files, strict=True):
        Image.fromarray(image.numpy()).save(file, format="PNG")
    return pandas.DataFrame({"image": [file.getvalue() for file in files]})
