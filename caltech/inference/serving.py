"""An exported run as MLflow serves it: the bytes of image files in, classes out.

MLflow executes a copy of this file when it loads the model (formats.py).
"""

from io import BytesIO
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE
from mlflow.pyfunc import PythonModel
from pandas import DataFrame

from caltech import plugins
from caltech.inference.ensemble import load


class ServedRun(PythonModel):
    """Answers a table whose column `image` has image files' bytes (in JSON: base64)."""

    def load_context(self, context: Any) -> None:
        folder, weights = Path(context.artifacts["run"]), context.model_config["weights"]
        plugins.load(context.model_config["plugins"])  # a copy of their code is in the model
        self.predictor = load(folder, weights, "auto")

    # MLflow reads a schema from the type hints unless they say no more than DataFrame.
    def predict(
        self, context: Any, model_input: DataFrame, params: dict[str, Any]
    ) -> list[dict[str, Any]]:
        """For each row {"top": [{"class", "probability"}, ...]}, params["top"] of them."""
        images = [self._read(row, file) for row, file in enumerate(model_input["image"])]
        probabilities = self.predictor.probabilities(self.predictor.stack(images))
        return [{"top": self.predictor.rank(each, params["top"])} for each in probabilities]

    def _read(self, row: int, file: bytes) -> Any:
        try:
            return self.predictor.read(BytesIO(file))
        except Exception as error:  # Pillow raises many types for a broken image
            raise MlflowException(
                f"row {row}: not an image file that can be read ({type(error).__name__})",
                error_code=INVALID_PARAMETER_VALUE,
            ) from error


set_model(ServedRun())
