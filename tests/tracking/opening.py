"""Body of a process: opens the store in FOLDER as training does and tracks a run, named NUMBER."""

import sys
from pathlib import Path

from caltech.runs.directory import RunDirectory
from caltech.tracking.description import Description
from caltech.tracking.line import line_to

if __name__ == "__main__":
    folder, number = Path(sys.argv[1]), sys.argv[2]
    described = Description(RunDirectory(folder / number), number, {"lr": number}, {}, None)

    def track(store) -> None:
        run = store.create(number, {"key": number}, None)
        store.describe(run.info.run_id, described)
        store.client.set_terminated(run.info.run_id)

    line_to(f"sqlite:///{folder}/mlflow.db", "caltech", f"{folder}/files").require(track)
