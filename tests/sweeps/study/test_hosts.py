"""Two hosts in network namespaces, one PostgreSQL server: one study, both busy, one killed.

pytest -m slow -n 0 tests/sweeps/study/test_hosts.py    as root, with PostgreSQL and psycopg
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from caltech.sweeps.study import storage
from tests.conftest import REPOSITORY
from tests.faults.hosts import SERVER, machine_in, network, reason

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(reason() is not None, reason=str(reason())),
    pytest.mark.skipif(shutil.which("initdb") is None, reason="no PostgreSQL server is here"),
]
PROGRAM = """
import socket, sys, time
from pathlib import Path
from tests.sweeps.study import test_workers
url, folder = sys.argv[1], Path(sys.argv[2])
own = folder / socket.gethostname()
own.with_suffix(".ready").touch()
while len([*folder.glob("*.ready")]) < 2:
    time.sleep(0.05)
test_workers.work(url, folder, None, own.with_suffix(".begun"), seconds=0.5)
"""


@contextmanager
def postgresql(namespace: str) -> Iterator[str]:
    """A server that the network of this name reaches, and its address here: a file's."""
    folder = Path(tempfile.mkdtemp(prefix="caltech-postgresql-"))
    shutil.chown(folder, "postgres")
    owner = ["runuser", "-u", "postgres", "--"]
    data, inside = folder / "data", ["ip", "netns", "exec", namespace, *owner]
    quiet = {"check": True, "stdout": subprocess.DEVNULL, "cwd": folder}
    try:
        subprocess.run([*owner, "initdb", "-A", "trust", "-N", "-D", data], **quiet)
        with (data / "pg_hba.conf").open("a") as file:
            file.write("host all all 10.91.0.0/16 trust\n")
        options = f"-c listen_addresses=* -c fsync=off -k {folder}"
        log = ["-l", str(folder / "log.txt"), "-w", "-t", "120"]
        subprocess.run([*inside, "pg_ctl", "-D", data, "-o", options, *log, "start"], **quiet)
        yield f"postgresql+psycopg://postgres@/postgres?host={folder}"
    finally:
        subprocess.run([*inside, "pg_ctl", "-D", data, "-m", "immediate", "stop"], **quiet)
        shutil.rmtree(folder)


def test_two_hosts_share_a_study_and_what_a_killed_one_began_is_taken_up(tmp_path):
    pytest.importorskip("psycopg", reason="no driver of PostgreSQL is here")
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}

    def begin(number: int) -> subprocess.Popen:
        url = f"postgresql+psycopg://postgres@{SERVER.format(number)}/postgres"
        command = [*machine_in(hosts[number], f"host{number}"), sys.executable, "-c", PROGRAM]
        return subprocess.Popen([*command, url, str(tmp_path)], env=environment)

    with network(2) as (server, hosts), postgresql(server) as url:
        storage.study("mine-01234567", url)
        first, second = begin(0), begin(1)
        log = tmp_path / "host1.begun"
        while second.poll() is None and (not log.exists() or len(log.read_text().split()) < 3):
            time.sleep(0.05)
        second.kill()
        second.wait()
        assert first.wait() == 0
        trials = storage.study("mine-01234567", url).trials
        kept = storage._storage(url, os.getpid())
        kept.remove_session()
        kept._backend.engine.dispose()  # before the server goes
    assert {trial.state.name for trial in trials} == {"COMPLETE", "FAIL"}
    assert len({trial.user_attrs["key"] for trial in trials}) == 20 == len(trials)
    begun = [(tmp_path / f"host{number}.begun").read_text().split() for number in range(2)]
    assert len(begun[0]) >= 3 <= len(begun[1]) and set(begun[0]) | set(begun[1]) == {
        str(number) for number in range(20)
    }
    assert len(begun[0] + begun[1]) - 20 in (0, 1)  # killed in a trial, or between two
