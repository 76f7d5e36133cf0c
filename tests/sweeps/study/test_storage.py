"""Storages that are harmed, of another kind, or late: one message, and nothing is lost."""

import socket
import sqlite3
import threading

import optuna
import pytest

from caltech.errors import InputError
from caltech.sweeps.study import storage


def test_half_a_line_that_a_full_disk_left_in_a_journal_is_no_end(tmp_path):
    path = tmp_path / "study.log"
    journal = storage.JournalStorage(
        storage.JournalFileBackend(str(path), lock_obj=storage.JournalLock(path))
    )
    study = optuna.create_study(study_name="mine", storage=journal)
    study.set_user_attr("first", 1)
    with path.open("ab") as file:
        file.write(b'{"op_code": 2, "half')
    study.set_user_attr("second", 2)
    again = optuna.load_study(
        study_name="mine", storage=storage.JournalStorage(storage.JournalFileBackend(str(path)))
    )
    assert again.user_attrs == {"first": 1, "second": 2}


def test_a_database_that_another_process_locks_is_waited_for(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(storage.DETAILS, "sqlite", {"timeout": 0.05})
    monkeypatch.setattr(storage, "PATIENCE", (0.1,) * 20)
    study = storage.study("mine", f"sqlite:///{tmp_path}/study.db")
    other = sqlite3.connect(tmp_path / "study.db", check_same_thread=False)
    other.execute("begin exclusive")
    threading.Timer(0.3, other.close).start()
    storage.patiently(study.set_user_attr, "told", 1)
    assert study.user_attrs == {"told": 1}
    assert "does not answer ((sqlite3.OperationalError) database is locked)" in caplog.text


@pytest.mark.parametrize("url", ["sqlite:////no/such/folder/x.db", "nonsense", "sqlite:///{}"])
def test_what_is_no_storage_is_one_message(tmp_path, url):
    (tmp_path / "text").write_text("no database, and longer than a page" * 40)
    with pytest.raises(InputError, match=r"^Cannot open Optuna's storage .*\. Type storage= "):
        storage.names(url.format(tmp_path / "text"))


def test_a_server_that_does_not_answer_is_told(monkeypatch):
    """Its port is open, and nobody speaks."""
    pytest.importorskip("psycopg", reason="no driver of PostgreSQL is here")
    monkeypatch.setitem(storage.DETAILS, "postgresql", {"connect_timeout": 2})
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql+psycopg://me:secret@127.0.0.1:{silent.getsockname()[1]}/x"
        with pytest.raises(InputError, match=r"\*\*\*@127.* timeout"):
            storage.names(url)
