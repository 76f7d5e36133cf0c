"""The forms in which a run is exported: each a function that writes, and one that reads again."""

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

import torch
from omegaconf import OmegaConf
from PIL import Image
from torch import Tensor

from caltech.errors import InputError
from caltech.files import read_sealed_json, write_sealed_json
from caltech.inference import predictor
from caltech.inference.predictor import Trained
from caltech.runs.directory import RunDirectory
from caltech.settings import CONF, PACKAGE

if TYPE_CHECKING:
    from pandas import DataFrame


def write_safetensors(run: Trained, folder: Path, pixels: Tensor) -> None:
    """A run's directory with no more than an answer needs, and without this machine's paths."""
    folder.mkdir()
    cfg = OmegaConf.masked_copy(run.cfg, ["key", "study", "model", "augment", "precision"])
    cfg.data = {"resize": run.cfg.data.resize, "crop": run.cfg.data.crop}
    to = RunDirectory(folder)
    to.config.write_text(OmegaConf.to_yaml(cfg))
    provenance = read_sealed_json(run.directory.provenance)
    write_sealed_json(to.provenance, provenance | {"classes": list(run.classes)})
    shutil.copyfile(run.directory.result, to.result)
    shutil.copyfile(run.directory.weights(run.weights), to.weights(run.weights))


def read_safetensors(run: Trained, folder: Path) -> Callable[[Tensor], Tensor]:
    """The folder's model: decoded pixels (n, resize, resize, 3) uint8 to (n, classes)."""
    return predictor.load(RunDirectory(folder), run.weights, run.device.type).probabilities


def write_onnx(run: Trained, folder: Path, pixels: Tensor) -> None:
    """One file; views are averaged inside, so that nobody has to know of them."""
    _require("onnx", "onnxscript", "onnxruntime")
    folder.mkdir()
    answers = copy.deepcopy(run.answers).cpu().to(memory_format=torch.contiguous_format)
    program = torch.onnx.export(
        answers,
        (run.crop(pixels[:2]),),
        input_names=["images"],
        output_names=["probabilities"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        dynamo=True,
        verbose=False,
    )
    about = {"classes": run.classes, "resize": run.resize, "crop": run.cfg.data.crop}
    about |= {"run": run.summary() | {"directory": None}}
    program.model.metadata_props.update({name: json.dumps(v) for name, v in about.items()})
    program.save(folder / "model.onnx", external_data=False)


def read_onnx(run: Trained, folder: Path) -> Callable[[Tensor], Tensor]:
    """As read_safetensors, by onnxruntime on the CPU."""
    from onnxruntime import InferenceSession

    session = InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])

    def answer(pixels: Tensor) -> Tensor:
        images = run.crop(pixels).contiguous().numpy()
        return torch.from_numpy(session.run(["probabilities"], {"images": images})[0])

    return answer


def write_mlflow(run: Trained, folder: Path, pixels: Tensor) -> None:
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
        write_safetensors(run, Path(temporary) / "run", pixels)
        # In a checkout conf/ is beside the package, which looks for it there.
        code = [PACKAGE] if CONF.is_relative_to(PACKAGE) else [PACKAGE, CONF]
        save_model(
            folder,
            python_model=str(Path(__file__).with_name("serving.py")),
            artifacts={"run": str(Path(temporary) / "run")},
            model_config={"weights": run.weights},
            code_paths=[str(path) for path in code],
            signature=ModelSignature(
                inputs=Schema([ColSpec("binary", "image")]),
                params=ParamSchema([ParamSpec("top", "long", 5)]),
            ),
            input_example=_table(pixels[:1]),
            pip_requirements=[r for r in metadata.requires("caltech") if "extra ==" not in r],
        )


def read_mlflow(run: Trained, folder: Path) -> Callable[[Tensor], Tensor]:
    """As read_safetensors, by the pyfunc model."""
    from mlflow.pyfunc import load_model

    model = load_model(str(folder))

    def answer(pixels: Tensor) -> Tensor:
        rows = model.predict(_table(pixels), params={"top": len(run.classes)})
        named = [{top["class"]: top["probability"] for top in row["top"]} for row in rows]
        return torch.tensor([[row[name] for name in run.classes] for row in named])

    return answer


FORMATS = {
    "safetensors": (write_safetensors, read_safetensors),
    "onnx": (write_onnx, read_onnx),
    "mlflow": (write_mlflow, read_mlflow),
}


def _require(*libraries: str) -> None:
    missing = [name for name in libraries if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"format=onnx needs more libraries. Type: pip install {' '.join(missing)}")


def _table(pixels: Tensor) -> "DataFrame":
    """Pixels as the bytes of PNG files, which keep them exactly."""
    import pandas

    files = [BytesIO() for _ in pixels]
    for image, file in zip(pixels, files, strict=True):
        Image.fromarray(image.numpy()).save(file, format="PNG")
    return pandas.DataFrame({"image": [file.getvalue() for file in files]})
