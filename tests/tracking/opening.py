"""Body of a process: opens the store in FOLDER as training does and tracks a run, named NUMBER."""

import socket
import sys
from pathlib import Path

from caltech.runs.directory import RunDirectory
from caltech.tracking.description import Description
from caltech.tracking.tracker import MlflowRun

if __name__ == "__main__":
    folder, number = Path(sys.argv[1]), sys.argv[2]
    directory = RunDirectory(folder / number)
    with directory.claimed(waits=False):
        tags = {"key": number, "directory": str(directory), "host": socket.gethostname()}
        description = Description(directory, number, {"lr": number}, tags, None)
        with MlflowRun(description, f"sqlite:///{folder}/mlflow.db", "caltech", f"{folder}/files"):
            pass
