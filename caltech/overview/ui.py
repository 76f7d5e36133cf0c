"""MLflow's page of our runs: `caltech ui [port=N] [tracking.uri=ADDRESS]`."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from urllib.error import URLError
from urllib.request import urlopen

from hydra import compose, initialize_config_dir

from caltech import errors
from caltech.arguments import nearest
from caltech.config import build, register
from caltech.errors import CaltechError, InputError
from caltech.flags import require_flags
from caltech.overview import view
from caltech.passwords import without_passwords
from caltech.settings import CONF
from caltech.tracking.address import is_server, sqlite_path

HELP = """\
usage: caltech ui [port=5000] [tracking.uri=ADDRESS]

Start MLflow's server on this machine (127.0.0.1 alone) and print the link to
the runs: accuracy columns, sorted by validation accuracy, the validation curve
as the first chart. Ctrl-C ends it; the runs stay. A port that is taken is told,
and the next one is used."""
HOST, PORT, TRIES = "127.0.0.1", 5000, 50
START_SECONDS = 120  # MLflow's server took 34 s on two busy cores


def main(words: Sequence[str]) -> None:
    """The command, until Ctrl-C.

    Raises:
        InputError: there is no store, or what was typed is not understood.
    """
    if {"-h", "--help"} & set(words):
        print(HELP)
        return
    register()
    require_flags(words)
    for word in words:  # Hydra knows the other keys alone
        name, _, value = word.partition("=")
        if name != "port" and value and nearest(name, ["port"], 0.7):
            raise InputError(f"{name} is no key of the config. Type port={value}.")
        if name in ("study", "output"):
            raise InputError(
                f"{word} is not of this command, whose page has the runs of all studies. Leave it "
                "out, and type tags.study = 'NAME' into the page's search field."
            )
    typed = [word for word in words if word.startswith("port=")]
    with initialize_config_dir(config_dir=str(CONF)):
        cfg = compose("tell", [word for word in words if word not in typed])
    errors.composed()
    port = _port(*typed[-1:])
    if not (uri := cfg.tracking.get("uri")):
        raise InputError("tracking=none keeps no runs to look at. Leave it out.")
    path = sqlite_path(uri)
    if path is not None and not path.is_file():
        raise InputError(
            f"{path} is not there: nothing was tracked yet. Train a run first (caltech train "
            "data=digits), or type tracking.uri= with the address of another store."
        )
    line = build(cfg.tracking).line  # loads MLflow
    line.require(view.show)
    experiment = line.store.experiment_id
    if is_server(uri):
        print(f"{without_passwords(uri)} is a server already. Its runs, by accuracy:")
        print(view.link(without_passwords(uri), experiment))
        return
    with serving(uri, free_port(port)) as (server, process):
        print(f"Runs in {without_passwords(uri)}, by accuracy:")
        print(view.link(server, experiment))
        print("Ctrl-C ends the page; the runs stay.", flush=True)
        process.wait()


def _port(word: str = f"port={PORT}") -> int:
    value = word.partition("=")[2]
    if not value.isdecimal() or not 1024 <= int(value) < 2**16 - TRIES:
        raise InputError(f"{word} is not allowed: it is from 1024 to 65000. Type port={PORT}.")
    return int(value)


def free_port(port: int) -> int:
    """The first from `port` on that nobody listens at; what is taken is told."""
    for tried in range(port, port + TRIES):
        with socket.socket() as own:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # one that was just left
            with suppress(OSError):
                own.bind((HOST, tried))
                return tried
        print(f"Port {tried} is taken, perhaps by a page like this one; trying the next.")
    raise InputError(f"Ports {port} to {port + TRIES - 1} are taken. Type port= with another.")


@contextmanager
def serving(uri: str, port: int) -> Iterator[tuple[str, subprocess.Popen]]:
    """MLflow's server, once it answers, and its process; ended with all it started at the end.

    Raises:
        CaltechError: it ended, or does not answer; with the last it said.
    """
    server = f"http://{HOST}:{port}"
    command = [sys.executable, "-m", "caltech.overview.server", "--workers", "1", "--host", HOST]
    own = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    own["MLFLOW_BACKEND_STORE_URI"] = uri  # not as an argument, which others may read
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [*command, "--port", str(port)], env=os.environ | own, start_new_session=True,
            stdin=subprocess.PIPE, stdout=log, stderr=log,
        )  # fmt: skip
        before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        try:
            print("Starting MLflow's server, which takes some seconds.", flush=True)
            if not _answers(server, process):
                log.seek(0)
                said = [line.strip() for line in log if line.strip()][-1:]
                how = "ended" if process.poll() is not None else f"was silent for {START_SECONDS} s"
                raise CaltechError(
                    f"MLflow's server on port {port} {how}; its last words: "
                    f"{''.join(said) or 'none'}. Type the same command again, or port= with "
                    "another one."
                )
            yield server, process
        finally:
            signal.signal(signal.SIGTERM, before)
            for number in (signal.SIGTERM, signal.SIGKILL):
                with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                    os.killpg(process.pid, number)
                    process.wait(timeout=5)
            process.stdin.close()


def _answers(server: str, process: subprocess.Popen) -> bool:
    end = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < end:
        with suppress(URLError, OSError):
            urlopen(f"{server}/health", timeout=5).close()
            return process.poll() is None
        time.sleep(0.2)
    return False


if __name__ == "__main__":
    with errors.shown_as_messages("The page is closed."):
        main(sys.argv[1:])
