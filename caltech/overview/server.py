"""MLflow's server in a process that ends when the one that started it ends, however that does.

    python -m caltech.overview.server --host HOST --port PORT    a pipe is its standard input

A window that is closed or a kill ends `caltech ui` without a word to the server, which would stay.
"""

import os
import signal
import sys
import threading

from mlflow.cli import cli


def end_with_stdin() -> None:
    """End this process and all that it started once nobody can write to its standard input."""
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os.killpg(os.getpgrp(), signal.SIGTERM)


if __name__ == "__main__":
    threading.Thread(target=end_with_stdin, daemon=True).start()
    cli.main(["server", *sys.argv[1:]])
