"""An address at which no store can be used is one message within seconds, before any work."""

import os
import re
import sqlite3
import threading
import time
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.util import find_spec
from pathlib import Path

import pytest

from caltech.config import build, sqlite_url
from caltech.errors import InputError
from caltech.train import train

NO_ANSWER = r"cannot be used: {}.* Type tracking\.uri= with another one, or tracking=none"
ADDRESSES = {  # and what is said of it
    "null": r"tracking\.uri=null is no address\. Type tracking=none",
    "": r"tracking\.uri= has no value\. Type tracking\.uri=sqlite:///",
    "/tmp/mlruns": r"would be a folder.* Type tracking\.uri=sqlite:////tmp/mlruns/mlflow\.db",
    "file:///tmp/mlruns": r"would be a folder.*sqlite:////tmp/mlruns/mlflow\.db",
    "mlruns": r"would be a folder.*mlruns/mlflow\.db",
    "localhost:5000": r"is no address of a store\. Type tracking\.uri=http://localhost:5000\.\n",
    "http:/10.0.0.1:5000": r"Type tracking\.uri=http://10\.0\.0\.1:5000\.\n",
    "sqlite:/tmp/x.db": r"Type tracking\.uri=sqlite:////tmp/x\.db\.\n",
    "/tmp/runs.db": r"is no address of a store\. Type tracking\.uri=sqlite:////tmp/runs\.db\.\n",
    "ftp://me:secret@x": r"tracking\.uri=ftp://\*\*\*@x begins with ftp://",
    "sqlite://": "in memory",
    "'sqlite:///:memory:'": "in memory",
    "http://127.0.0.1:9": NO_ANSWER.format("Connection refused"),
    "nonsense://x": "nonsense",
    "mysql://nobody@127.0.0.1:9/x": "driver is not installed.*pip install",
    "postgresql+psycopg://nobody@127.0.0.1:9/x": "onnection refused"
    if find_spec("psycopg")  # the extra postgresql is not among what tests need
    else r"driver is not installed.*pip install 'caltech\[postgresql\]'",
    "sqlite:////proc/nothing/mlflow.db": r"cannot be made: No such file",
    "sqlite:////proc/mlflow.db": r"cannot be used: No such file",
    "sqlite:////tmp": "/tmp cannot be read: Is a directory",
    f"sqlite:///{__file__}": "is a file of another kind",
}


@pytest.mark.parametrize("typed", ADDRESSES)
def test_an_address_that_is_none_is_one_message_in_seconds(tracked, typed):
    place = Path(tracked().output)
    start, computed = time.monotonic(), time.process_time()
    with pytest.raises(InputError, match=ADDRESSES[typed]) as raised:
        train(tracked(f"tracking.uri={typed}"))
    assert "\n" not in str(raised.value)
    # Seconds of waiting; a machine that is busy may take long for what is computed.
    assert time.monotonic() - start < 15 + 30 * (time.process_time() - computed)
    assert not place.exists()


def database(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def opened(cfg) -> None:
    build(cfg.tracking).open(Path(cfg.output), is_needed=True)


@pytest.fixture
def copied(store, tracked, tmp_path):
    """A database of MLflow's that may be harmed, and the config of a run that is tracked there."""
    path = tmp_path / "harmed.db"
    path.write_bytes((store.folder / "mlflow.db").read_bytes())
    return path, tracked(f"tracking.uri=sqlite:///{path}", f"tracking.artifacts={tmp_path}/files")


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE alembic_version SET version_num = 'cfd24bdc0731'", "older.*mlflow db upgrade"),
        ("UPDATE alembic_version SET version_num = 'fedcba'", "newer.*pip install --upgrade"),
        ("DELETE FROM alembic_version", "older|newer"),
        ("DROP TABLE experiments", "another program's"),
        ("UPDATE experiments SET lifecycle_stage = 'deleted'", "deleted.*tracking.experiment=NAME"),
    ],
)
def test_a_database_that_is_not_ours_to_use_is_left_as_it_is(copied, statement, said):
    path, cfg = copied
    database(path, "PRAGMA foreign_keys = OFF", statement)
    before = path.read_bytes()
    with pytest.raises(InputError, match=said):
        opened(cfg)
    assert path.read_bytes() == before


def test_another_program_s_database_gets_no_tables_of_mlflow(tracked, tmp_path):
    database(tmp_path / "own.db", "CREATE TABLE mine (x)")
    before = (tmp_path / "own.db").read_bytes()
    with pytest.raises(InputError, match="another program's database"):
        opened(tracked(f"tracking.uri=sqlite:///{tmp_path}/own.db"))
    assert (tmp_path / "own.db").read_bytes() == before


def test_a_locked_database_is_an_error_at_the_start_and_a_warning_in_the_middle(
    copied, monkeypatch, caplog
):
    path, cfg = copied
    monkeypatch.setattr("caltech.tracking.store.require_answer.__defaults__", (0.05,))
    monkeypatch.setattr("caltech.tracking.copying.send.__defaults__", (None, 0.05))
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(InputError, match="kept it locked"):
            opened(cfg)
        other.rollback()
        opened(cfg)
        tracker = build(cfg.tracking)
        other.execute("BEGIN EXCLUSIVE")
        from caltech.runs.directory import RunDirectory

        tracker.tell(RunDirectory(cfg.directory), is_last=True)
        assert "another process has kept it locked for 0.05 s" in caplog.text


@pytest.fixture
def server():
    """Of one answer: (status, text), or None for none at all. Its address by a host's name."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.server.answer is None:
                time.sleep(2)
                return
            status, text = self.server.answer
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as serving:
        serving.address = f"http://localhost:{serving.server_port}"
        threading.Thread(target=serving.serve_forever, args=(0.01,), daemon=True).start()
        yield serving
        serving.shutdown()


def test_a_server_without_tls_that_is_asked_for_it_is_told_so(tracked, server):
    with pytest.raises(InputError, match=r"it speaks http:// and not https://"):
        opened(tracked(f"tracking.uri={server.address.replace('http', 'https')}"))


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((403, "Invalid Host header - possible DNS rebinding attack detected"),
         r"403 .*--allowed-hosts localhost:\d+"),
        ((401, "no"), "does not let this user in.*MLFLOW_TRACKING_USERNAME"),
        ((404, "<html>not here"), "no MLflow server"),
        ((200, "<html>hello"), "no MLflow server"),
        ((500, "{}"), "500|INTERNAL_ERROR"),
        (None, "does not answer within"),
    ],
)  # fmt: skip
def test_a_server_that_is_no_mlflow_or_lets_nobody_in_is_told_as_it_is(
    tracked, server, monkeypatch, answer, said
):
    server.answer = answer
    monkeypatch.setitem(os.environ, "MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with pytest.raises(InputError, match=re.compile(said)) as raised:
        opened(tracked(f"tracking.uri={server.address}"))
    assert len(str(raised.value)) < 600


@pytest.mark.parametrize("name", ["a%41b", "what?", "#1", "a 'b' \"c\"", "two\nlines", "é ü"])
def test_a_database_s_address_leads_to_a_path_of_any_characters(tmp_path, name):
    from sqlalchemy import create_engine, text

    (tmp_path / name).mkdir()
    path = tmp_path / name / "some.db"
    with create_engine(sqlite_url(str(tmp_path), name, "some.db")).connect() as connection:
        connection.execute(text("CREATE TABLE x (y)"))
    assert path.stat().st_size > 0
