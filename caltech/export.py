"""Take a trained run elsewhere: `python -m caltech.export run=KEY|best format=onnx to=FOLDER`."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from caltech.inference import command_line
from caltech.waiting import said

USAGE = """\
python -m caltech.export [run=KEY[,KEY...]|best] format=FORMAT to=FOLDER
                         [--calibrated]"""
DESCRIPTION = """\
Write a trained run's model to a new folder, in one of three formats.

  safetensors  weights, config and class names; caltech.predict reads it with
               run=FOLDER
  onnx         model.onnx: images (N, 3, crop, crop) uint8 to probabilities
               (N, classes); class names and sizes are in its metadata
  mlflow       a pyfunc model: image files' bytes to classes, for
               `mlflow models serve -m FOLDER --env-manager local`

run=KEY,KEY,KEY exports an ensemble, the mean of the runs' probabilities, as one
model: safetensors is a folder with one for each member, and onnx needs members
that see images of one size. --calibrated exports probabilities of logits / T,
and config.yaml, ensemble.json or ONNX's metadata say so.

The files written are then read again. Their probabilities on images of the
run's own test part are compared with the run's model, and with the answers
stored when it was tested. The largest difference is printed; beyond the
tolerance nothing is written and the exit code is 1.
"""
FORMATS = ("safetensors", "onnx", "mlflow")
NEXT = {
    "safetensors": "caltech predict IMAGE run={}",
    "mlflow": "mlflow models serve -m {} --env-manager local -h 127.0.0.1 -p 5001",
}
TOLERANCE = 1e-4  # of probabilities
# ONNX computes in float32 what was trained and tested in these.
ONNX_TOLERANCES = {"float32": TOLERANCE, "tf32": 1e-2, "float16": 1e-2, "bfloat16": 5e-2}
STORED_TOLERANCE = 1e-3  # what is rounded at a cut (freeze.store) may fall to the other side


def main(words: Sequence[str]) -> int:
    """The command; 0, or an error."""
    parser = command_line.Parser(USAGE, DESCRIPTION)
    parser.add_argument("--format", choices=FORMATS, required=True)
    parser.add_argument("--to", metavar="FOLDER", type=Path, required=True, help="a new folder")
    parser.add_argument("--tolerance", metavar="NUMBER", type=float,
        help="of probabilities (default: 1e-4, and 1e-2 if the run has precision=tf32; for ONNX, "
        "which computes in float32, and on a GPU, 1e-2 if it has amp, 5e-2 if bf16; for ONNX 1e-3 "
        "if freeze.store=bfloat16)")  # fmt: skip
    given = parser.read(words)
    command_line.require_there(given)
    from caltech.inference.formats import export

    predictor = command_line.load(given)
    members = getattr(predictor, "members", (predictor,))
    is_other = given.format == "onnx" or any(map(_is_asked_otherwise, members))
    usual = max(map(_onnx_tolerance, members)) if is_other else TOLERANCE
    tolerance = usual if given.tolerance is None else given.tolerance
    with said(f"writing {given.format} and comparing it with the run"):
        told = export(predictor, given.format, given.to.expanduser(), tolerance)
    print(f"{given.to}:\n{told}")
    if given.format in NEXT:
        print(f"next:\n  {NEXT[given.format].format(shlex.quote(str(given.to)))}")
    return 0


def _is_asked_otherwise(member: Any) -> bool:
    """Whether a model in its own format is asked by other operations than tested it.

    What a GPU tested in TF32 is asked in float32. In 16 bits it rounds each layer's sums, whose
    order is another with other numbers of images at a time.
    """
    is_short = member.precision.name in ("float16", "bfloat16")
    return member.precision.name == "tf32" or (is_short and _is_on_gpu(member))


def _is_on_gpu(member: Any) -> bool:
    return member.device.type == "cuda"


def _onnx_tolerance(member: Any) -> float:
    is_rounded = member.cfg.get("freeze", {}).get("store", "float32") != "float32"
    usual = ONNX_TOLERANCES[member.precision.name]
    return max(usual, STORED_TOLERANCE) if is_rounded else usual


if __name__ == "__main__":
    command_line.start(main)
