"""What pruning saves: AlexNet from scratch on small images, one grid with and without a pruner.

    python -m tests.bench.pruning    26 minutes beside two trainings on 2 cores

Both sweeps are run by the command line, into folders of their own. Epochs are the measure that a
busy machine does not change; the seconds are those of the jobs, as the sweeps' tables say them.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench import plain

RATES = "0.02,0.05,0.005,0.1,0.002,0.2,0.01"
GRID = [
    "model=alexnet", "model.weights=null", "freeze=none", "data.resize=72", "data.crop=64",
    "tracking=none", "num_epochs=5", "step_size=4", "gamma=0.1", "batch_size=128",
    "precision=bf16",
    "--multirun", f"lr={RATES}",
]  # fmt: skip


def sweep(output: Path, *overrides: str) -> dict[str, float | str]:
    """Epochs and seconds of all jobs, and the best one's overrides and validation accuracy."""
    command = [sys.executable, "-m", "caltech.train", *GRID, f"output={output}", *overrides]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    print("\n".join(ended.stdout.splitlines()[-12:]), flush=True)
    records = [json.loads(path.read_text()) for path in output.glob("default/sweeps/*/*.json")]
    jobs = [record for record in records if record.get("value") is not None]
    results = [json.loads(path.read_text()) for path in output.glob("default/*/result.json")]
    best = max(jobs, key=lambda job: job["value"])
    return {
        "epochs": sum(result["last"]["epoch"] for result in results),
        "seconds": sum(job["seconds"] for job in jobs),
        "best": best["overrides"].split("lr=")[1].split(" ")[0],
        "accuracy": best["value"],
    }


def main() -> None:
    plain.head("pruning: a grid of seven learning rates, AlexNet from scratch at 64 pixels")
    with tempfile.TemporaryDirectory() as folder:
        whole = sweep(Path(folder) / "none")
        pruned = sweep(Path(folder) / "median", "pruner=median", "pruner.n_startup_trials=3")
    rows = [(name, *each.values()) for name, each in (("none", whole), ("median", pruned))]
    plain.table(("pruner", "epochs", "seconds", "best lr", "best validation accuracy"), rows)
    print(f"RATIO epochs without / with: {whole['epochs'] / pruned['epochs']:.2f}")
    print(f"RATIO seconds without / with: {whole['seconds'] / pruned['seconds']:.2f}")
    print(f"the same best trial: {whole['best'] == pruned['best']}")


if __name__ == "__main__":
    main()
