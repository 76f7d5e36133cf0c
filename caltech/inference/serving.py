"""An exported run as MLflow serves it: the bytes of image files in, classes out.

MLflow executes a copy of this file when it loads the model (export.py, format=mlflow).
"""

from io import BytesIO
from typing import Any

import torch
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PythonModel
from pandas import DataFrame

from caltech.data.pixels import decode
from caltech.inference import predictor
from caltech.runs.directory import RunDirectory
from caltech.training.features import BATCH


class ServedRun(PythonModel):
    """Answers a table whose column `image` has image files' bytes (in JSON: base64)."""

    def load_context(self, context: Any) -> None:
        folder = RunDirectory(context.artifacts["run"])
        self.run = predictor.load(folder, context.model_config["weights"], "auto")

    # MLflow reads a schema from the type hints unless they say no more than DataFrame.
    def predict(
        self, context: Any, model_input: DataFrame, params: dict[str, Any]
    ) -> list[dict[str, Any]]:
        """For each row {"top": [{"class", "probability"}, ...]}, params["top"] of them."""
        images = [self._decode(row, file) for row, file in enumerate(model_input["image"])]
        answers = []
        for batch in torch.stack(images).split(BATCH[self.run.device.type]):
            for probabilities in self.run.probabilities(batch):
                ranked = self.run.rank(probabilities, params["top"])
                answers.append({"top": [{"class": c, "probability": p} for c, p in ranked]})
        return answers

    def _decode(self, row: int, file: bytes) -> torch.Tensor:
        try:
            return torch.from_numpy(decode(BytesIO(file), self.run.resize).copy())
        except Exception as error:  # Pillow raises many types for a broken image
            raise MlflowException(
                f"row {row}: not an image file that can be read ({type(error).__name__})",
                error_code=INVALID_PARAMETER_VALUE,
            ) from error


set_model(ServedRun())
