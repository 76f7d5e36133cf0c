"""Where a store is: what may be typed, and in one sentence why it cannot be used.

MLflow tries for minutes and ends in a traceback. Here an address is looked at first, each answer is
waited for some seconds, and whatever any driver raises becomes a StoreError.
"""

import importlib.util
import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import create_engine, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool

from caltech.config import sqlite_url
from caltech.errors import CaltechError, InputError, StoreError
from caltech.passwords import without_passwords

SECONDS = 5  # that one answer may take; an artifact may take longer
DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
WAITING = {  # each driver's word for how long it waits for a connection
    "postgresql": {"connect_timeout": SECONDS},
    "mysql": {"connect_timeout": SECONDS},
}


# An experiment's tag: MLflow's page opens as that for machine learning, not for language models.
KIND = "mlflow.experimentKind", "custom_model_development"
TLS = {  # what libraries say of it, and what that is
    "WRONG_VERSION_NUMBER": "it speaks http:// and not https://. Type tracking.uri=http://...",
    "Remote end closed": "it ends the connection, as one of https:// does. Type https:// instead",
    "CERTIFICATE_VERIFY_FAILED": "its certificate is not known here. Set "
    "MLFLOW_TRACKING_SERVER_CERT_PATH to the file of one that is",
}
SCHEMES = ("sqlite", "postgresql", "mysql", "mssql", "http", "https", "databricks")


def require_address(uri: object) -> None:
    """Raise InputError for what cannot be a store's address, before anything is imported."""
    typed = without_passwords(str(uri))
    kind = typed.partition("://")[0]
    if uri is None or not typed.strip():
        raise InputError(
            f"tracking.uri={'null' if uri is None else uri} is no address. Type tracking=none to "
            "track nothing, or an address, for example tracking.uri=sqlite:////tmp/mlflow.db."
        )
    if kind == "file" or ("://" not in typed and not typed.startswith("databricks")):
        meant = _meant(typed)
        is_folder = meant.endswith("/mlflow.db") and not typed.endswith("mlflow.db")
        why = "would be a folder, in which MLflow keeps no runs any more"
        raise InputError(
            f"tracking.uri={typed} {why if is_folder else 'is no address of a store'}. Type "
            f"tracking.uri={meant}{' for a database in it' if is_folder else ''}."
        )
    if "://" in typed and kind.split("+")[0] not in SCHEMES:
        raise InputError(
            f"tracking.uri={typed} begins with {kind}://, which is no kind of store. Type one of "
            f"{', '.join(f'{each}://' for each in SCHEMES)}."
        )
    if kind.split("+")[0] == "sqlite" and _database(uri).database in (None, "", ":memory:"):
        raise InputError(
            f"tracking.uri={typed} is a database in memory, which ends with the process. Type "
            "tracking.uri= with a file, for example sqlite:////tmp/mlflow.db."
        )


def _meant(typed: str) -> str:
    """The address that was meant: a server without http, slashes left out, a database's file, or a
    folder, in which a database can be."""
    scheme, _, rest = typed.partition(":")
    if scheme == "sqlite" and rest:
        return sqlite_url(str(Path(rest).absolute()))
    if scheme in SCHEMES and rest:
        return f"{scheme}://{rest.lstrip('/')}"
    if re.fullmatch(r"[\w.-]+:\d+(/.*)?", typed):
        return f"http://{typed}"
    path = Path(re.sub("^file:/*", "/", typed)).absolute()
    is_file = path.is_file() or path.suffix in (".db", ".sqlite", ".sqlite3")
    return sqlite_url(str(path)) if is_file else sqlite_url(str(path), "mlflow.db")


def is_server(uri: str) -> bool:
    """Whether it is MLflow's own server, which has a place for artifacts."""
    return uri.startswith(("http://", "https://"))


def sqlite_path(uri: str) -> Path | None:
    """The file of a SQLite database; None of another store."""
    if uri.partition(":")[0].split("+")[0] != "sqlite":
        return None
    return Path(_database(uri).database)


def store_name(uri: str, experiment: str) -> str:
    """How runs note what was told where."""
    return f"{without_passwords(uri)} {experiment}"


def has_finished(uri: str, run_id: str) -> bool:
    """Whether a SQLite database has a finished run, asked without MLflow: in a millisecond.

    Of another store, or if anything is in the way, the answer is no: MLflow is to be asked.
    """
    path = sqlite_path(uri)
    if path is None or not path.is_file():
        return False
    query = "SELECT status, lifecycle_stage FROM runs WHERE run_uuid = ?"
    try:
        with closing(sqlite3.connect(_file(path, "ro"), uri=True, timeout=0)) as connection:
            return connection.execute(query, (run_id,)).fetchall() == [("FINISHED", "active")]
    except sqlite3.Error:
        return False


def require_answer(uri: str, seconds: float = SECONDS) -> None:
    """Raise StoreError unless a database can be written now, or can be made; a server is not asked.

    MLflow itself waits 20 s for a lock, and tries ten times to connect.
    """
    path = sqlite_path(uri)
    if path is not None:
        if path.exists() and (path.is_dir() or path.stat().st_size > 0):
            _require_unlocked(path, seconds)
        elif not path.exists():
            _require_folder(path.parent)
    elif uri.partition(":")[0].split("+")[0] in DATABASES:
        with explained(uri), _engine(uri).connect():
            pass


def require_schema(uri: str) -> None:
    """Raise StoreError if a database is another program's, or of another version of MLflow.

    MLflow would add its tables to any, and change those of an older version without being asked.
    """
    path = sqlite_path(uri)
    if path is not None and not (path.is_file() and path.stat().st_size):
        return
    if path is None and uri.partition(":")[0].split("+")[0] not in DATABASES:
        return
    with explained(uri), _engine(uri).connect() as connection:
        tables = set(inspect(connection).get_table_names())
        if not tables:
            return
        if not {"experiments", "alembic_version"} <= tables:
            raise StoreError("it is another program's database")
        rows = connection.execute(text("SELECT version_num FROM alembic_version"))
        found = set(rows.scalars())
    known, newest = _revisions()
    if found and found <= newest:
        return
    if found <= known:
        raise StoreError(
            "an older version of MLflow made it. Make a copy of it, then type: mlflow db upgrade "
            f"'{without_passwords(uri)}'"
        )
    raise StoreError(
        f"a newer version of MLflow made it ({', '.join(sorted(found)) or 'unknown'}). Type: pip "
        "install --upgrade mlflow"
    )


@contextmanager
def explained(uri: str) -> Iterator[None]:
    """Whatever a library raises about a store becomes a StoreError of one sentence."""
    try:
        yield
    except CaltechError:
        raise
    except Exception as error:
        raise StoreError(_reason(uri, error)) from error


def _reason(uri: str, error: Exception) -> str:
    said, kind = str(error), uri.partition(":")[0].split("+")[0]
    if isinstance(error, ModuleNotFoundError):
        package = "'caltech[postgresql]'" if kind == "postgresql" else "with that database's driver"
        return f"its driver is not installed ({said}). Type: pip install {package}"
    if "Invalid Host header" in said:
        return (
            "the server answers this name with 403 (Invalid Host header). Start it with "
            f"--allowed-hosts {uri.partition('://')[2].partition('/')[0].rpartition('@')[2]}"
        )
    if re.search("error code 40[13]|PERMISSION_DENIED|UNAUTHENTICATED", said):
        return (
            "the server does not let this user in. Set MLFLOW_TRACKING_USERNAME and "
            f"MLFLOW_TRACKING_PASSWORD ({_short(said)})"
        )
    if re.search("error code 404|not in a valid JSON|error code 405|error code 501", said):
        return "what answers there is no MLflow server"
    for words, reason in TLS.items():
        if words in said:
            return reason
    if isinstance(error, SQLAlchemyError) and "Can't load plugin" in said:
        return f"{kind} is not a kind of store that MLflow knows"
    if "timed out" in said or "timeout" in said.lower():
        return f"it does not answer within {SECONDS} s"
    return _short(said)


def _short(said: str) -> str:
    """What the system said, out of what libraries wrap around it."""
    if number := re.search(r"\[Errno -?\d+\] ([^'\")]+)", said):
        return number[1].strip()
    said = re.sub(r"\(Background on this error.*", "", said)
    return without_passwords(next(iter(said.splitlines()), "unknown")[:300])


def _require_unlocked(path: Path, seconds: float) -> None:
    try:
        with path.open("rb") as file:
            is_database = file.read(16) == b"SQLite format 3\0"
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from error
    if not is_database:
        raise StoreError(f"{path} is a file of another kind, not a SQLite database")
    try:
        with closing(sqlite3.connect(_file(path, "rw"), uri=True, timeout=seconds)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.rollback()
    except sqlite3.Error as error:
        if "locked" in str(error):
            raise StoreError(
                f"another process has kept it locked for {seconds:g} s. End that one"
            ) from error
        raise StoreError(f"{path} cannot be written: {error}") from error


def _require_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{folder} cannot be made: {error.strerror}") from error
    if not os.access(folder, os.W_OK):
        raise StoreError(f"{folder} cannot be written")


def _file(path: Path, mode: str) -> str:
    """As SQLite itself takes a path of any characters; no database is made."""
    return f"file:{quote(str(path.absolute()))}?mode={mode}"


def _engine(uri: str):
    url = _database(uri)
    waiting = WAITING.get(url.get_backend_name(), {})
    return create_engine(url, poolclass=NullPool, connect_args=waiting)


def _database(uri: str) -> URL:
    try:
        return make_url(uri)
    except SQLAlchemyError as error:
        raise InputError(
            f"tracking.uri={without_passwords(uri)} is no address of a database. Type for example "
            "tracking.uri=sqlite:////tmp/mlflow.db."
        ) from error


def _revisions() -> tuple[set[str], set[str]]:
    """All schemas that the MLflow that is installed here knows of, and the one it writes."""
    package = Path(importlib.util.find_spec("mlflow").origin).parent
    named = re.compile(r"^(down_revision|revision)\b.*?= *[\"'](\w+)[\"']", re.MULTILINE)
    files = (package / "store" / "db_migrations" / "versions").glob("*_*.py")
    found = [dict(named.findall(path.read_text("utf-8"))) for path in files]
    known = {each["revision"] for each in found if each}
    return known, known - {each.get("down_revision") for each in found}
