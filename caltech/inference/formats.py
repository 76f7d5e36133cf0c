"""The forms in which a run is exported: written, read again, compared with the run, and then kept.

A form is a function that writes, and one that reads again and gives a function like
Predictor.probabilities: decoded pixels (n, resize, resize, 3) uint8 to (n, classes).
"""

import copy
import importlib.util
import json
import logging
import os
import warnings
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from omegaconf import OmegaConf
from torch import Tensor

from caltech import plugins
from caltech.config import targets_of
from caltech.errors import InputError
from caltech.files import making_folder, write_sealed_json
from caltech.inference.comparison import compare, files_of, reread, sample, sample_of_members
from caltech.inference.ensemble import Ensemble, load
from caltech.inference.predictor import Predictor
from caltech.runs import manifest, provenance
from caltech.runs.checkpoint import save_weights
from caltech.runs.directory import EXPORTED, RunDirectory
from caltech.settings import CONF, PACKAGE

if TYPE_CHECKING:
    from pandas import DataFrame


def export(predictor: Predictor | Ensemble, form: str, to: Path, tolerance: float) -> str:
    """Write the run in a form, read it again and compare; return what was found in a sentence.

    Raises:
        InputError: `to` exists, or a library is missing.
        CaltechError: the written model's answers differ by more than `tolerance`.
    """
    write, read = FORMATS[form]
    if to.exists():
        raise InputError(f"to={to} exists already. Nothing is overwritten: type another folder.")
    is_joined = isinstance(predictor, Ensemble)
    if is_joined and form == "onnx" and not predictor.is_of_one_size:
        raise InputError(
            "format=onnx takes images of one size, and the members of this ensemble see images of "
            "several. Type format=safetensors or format=mlflow, which take image files."
        )
    with making_folder(to) as folder:
        pixels, stored = sample_of_members(predictor) if is_joined else sample(predictor)
        if form == "mlflow" and is_joined and not predictor.is_of_one_size:
            # It is asked by files, and one file stands for the pixels of every size.
            pixels, stored = reread(predictor, pixels), {}
        write(predictor, folder, pixels)
        return compare(predictor, read(predictor, folder), pixels, stored, tolerance)


def write_safetensors(predictor: Predictor | Ensemble, folder: Path, pixels: Tensor) -> None:
    """A run's directory with no more than an answer needs, and without this machine's paths.

    Of an ensemble, a folder with one for each member and what joins them.
    """
    folder.mkdir()
    if isinstance(predictor, Ensemble):
        names = [str(number) for number, _ in enumerate(predictor.members, 1)]
        for name, member in zip(names, predictor.members, strict=True):
            write_safetensors(member, folder / name, pixels)
        told = {"members": names, "weights": predictor.weights}
        told |= {"temperature": predictor.temperature, "fitted_on": predictor.fitted_on}
        write_sealed_json(folder / EXPORTED, told)
        return
    run, to = predictor.directory, RunDirectory(folder)
    groups = {"key", "study", "model", "freeze", "augment", "precision"} & predictor.cfg.keys()
    cfg = OmegaConf.masked_copy(predictor.cfg, sorted(groups))
    seen = ("resize", "crop", "upright")  # what decides how an image is read
    cfg.data = {name: predictor.cfg.data[name] for name in seen if name in predictor.cfg.data}
    if predictor.fitted_on is not None:
        cfg.temperature, cfg.fitted_on = predictor.temperature, predictor.fitted_on
    to.config.write_text(OmegaConf.to_yaml(cfg))
    classes = {"classes": list(predictor.classes)}
    write_sealed_json(to.provenance, provenance.read(run) | classes)
    save_weights(to.weights(predictor.weights), predictor.network.model)
    if run.calibration.is_file():
        manifest.verify(run, [run.calibration])
        to.calibration.write_bytes(run.calibration.read_bytes())
    result = run.result.read_bytes()
    manifest.write(to, predictor.cfg.key, result)
    to.result.write_bytes(result)


def read_safetensors(predictor: Predictor | Ensemble, folder: Path) -> Callable[[Tensor], Tensor]:
    """By this package."""
    return load(folder, predictor.weights, predictor.device.type).probabilities


def write_onnx(predictor: Predictor | Ensemble, folder: Path, pixels: Tensor) -> None:
    """One file; views and members are averaged inside, so that nobody has to know of them.

    Raises:
        InputError: a library that it needs is not installed.
    """
    libraries = ("onnx", "onnxscript", "onnxruntime")
    if missing := [name for name in libraries if importlib.util.find_spec(name) is None]:
        raise InputError(f"format=onnx needs more libraries. Type: pip install {' '.join(missing)}")
    folder.mkdir()
    with warnings.catch_warnings():
        # torch 2.11 warns of what it does itself.
        warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning)
        program = torch.onnx.export(
            copy.deepcopy(predictor.network).cpu().to(memory_format=torch.contiguous_format),
            (predictor.crop(pixels)[:2],),
            input_names=["images"],
            output_names=["probabilities"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            verbose=False,
        )
    seen = predictor.members[0] if isinstance(predictor, Ensemble) else predictor
    about = {"classes": predictor.classes, "resize": seen.resize, "crop": seen.cfg.data.crop}
    about["run"] = _without_places(predictor.summary())
    program.model.metadata_props.update({name: json.dumps(v) for name, v in about.items()})
    program.save(folder / "model.onnx", external_data=False)


def _without_places(summary: dict[str, Any]) -> dict[str, Any]:
    """A summary without this machine's paths."""
    if "members" in summary:
        return summary | {"members": [_without_places(each) for each in summary["members"]]}
    return summary | {"directory": None}


def read_onnx(predictor: Predictor | Ensemble, folder: Path) -> Callable[[Tensor], Tensor]:
    """By onnxruntime on the CPU."""
    from onnxruntime import InferenceSession

    session = InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])

    def answer(pixels: Tensor) -> Tensor:
        batches = predictor.crop(pixels).contiguous().split(predictor.batch_size)
        found = [session.run(None, {"images": batch.numpy()})[0] for batch in batches]
        return torch.from_numpy(np.concatenate(found))

    return answer


def write_mlflow(predictor: Predictor | Ensemble, folder: Path, pixels: Tensor) -> None:
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
    members = getattr(predictor, "members", (predictor,))
    own = plugins.digests(target for each in members for target in targets_of(each.cfg))
    code += dict.fromkeys(plugins.places(own))
    save_model(
        folder,
        python_model=str(Path(__file__).with_name("serving.py")),
        artifacts={"run": str(run)},
        model_config={"weights": predictor.weights, "plugins": [*own]},
        code_paths=[str(path) for path in code],
        signature=ModelSignature(
            inputs=Schema([ColSpec("binary", "image")]),
            params=ParamSchema([ParamSpec("top", "long", 5)]),
        ),
        input_example=_table(pixels)[:1],
        pip_requirements=[r for r in metadata.requires("caltech") if "extra ==" not in r],
    )


def read_mlflow(predictor: Predictor | Ensemble, folder: Path) -> Callable[[Tensor], Tensor]:
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


def _table(pixels: Tensor | tuple[Tensor, ...]) -> "DataFrame":
    """Files as MLflow's model takes them."""
    import pandas

    return pandas.DataFrame({"image": files_of(pixels)})
