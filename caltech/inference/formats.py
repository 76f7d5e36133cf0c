"""The forms in which a run is exported: each a function that writes, and one that reads again.

What is read again is a function like Predictor.probabilities: decoded pixels
(n, resize, resize, 3) uint8 to (n, classes).
"""

import copy
import importlib.util
import json
import logging
import os
import shutil
from collections.abc import Callable
from importlib import metadata
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import torch
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor

from caltech.errors import InputError
from caltech.files import read_sealed_json, write_sealed_json
from caltech.inference.predictor import Predictor
from caltech.runs.directory import RunDirectory
from caltech.settings import CONF, PACKAGE

if TYPE_CHECKING:
    from pandas import DataFrame


def write_safetensors(predictor: Predictor, folder: Path, pixels: Tensor) -> None:
    """A run's directory with no more than an answer needs, and without this machine's paths."""
    folder.mkdir()
    run, to = predictor.directory, RunDirectory(folder)
    cfg = OmegaConf.masked_copy(predictor.cfg, ["key", "study", "model", "augment", "precision"])
    cfg.data = {name: predictor.cfg.data[name] for name in ("resize", "crop")}
    to.config.write_text(OmegaConf.to_yaml(cfg))
    provenance = read_sealed_json(run.provenance)
    write_sealed_json(to.provenance, provenance | {"classes": list(predictor.classes)})
    shutil.copyfile(run.result, to.result)
    shutil.copyfile(run.weights(predictor.weights), to.weights(predictor.weights))


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
    with TemporaryDirectory() as temporary:
        run = Path(temporary) / "run"
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
