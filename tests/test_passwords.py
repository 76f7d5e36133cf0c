"""No password of an address is shown or written, whatever way it is typed or Hydra writes it."""

import pytest

from caltech.passwords import without_passwords


@pytest.mark.parametrize(
    ("text", "shown"),
    [("postgresql+psycopg://me:secret@host/x", "postgresql+psycopg://***@host/x"),
     (r"tracking.uri=postgresql\://me\:secret@host/x", r"tracking.uri=postgresql\://***@host/x"),
     ("mysql://me:se/cr@et@host/x", "mysql://***@host/x"),
     (r"mysql\://me\:se/cret@host", r"mysql\://***@host"),
     ("http://me:secret@host:5000/x", "http://***@host:5000/x"),
     ("a=x://me:secret@h,b='y://me:secret@h'", "a=x://***@h,b='y://***@h'"),
     ("postgresql://host/x?user=me&password=secret&sslmode=require",
      "postgresql://host/x?user=me&password=***&sslmode=require"),
     (r"x\://h/y?password\=secret", r"x\://h/y?password\=***"),
     ("uri=x://h/y?password=secret,study=a@b", "uri=x://h/y?password=***,study=a@b"),
     ("{uri:x://me:se/cret@h/y,email:a@b}", "{uri:x://***@h/y,email:a@b}")],
)  # fmt: skip
def test_a_password_is_masked(text, shown):
    assert without_passwords(text) == shown


@pytest.mark.parametrize(
    "text",
    ["sqlite:////a/b@c.db", "http://host:5000/x@y", r"http\://host\:5000/x@y", "lr=0.1 x=me@home",
     "journal:///shared/me@home.log", "postgresql://host:5432/x", "postgresql://h:5432/x?o=a@b",
     "{uri:postgresql://h:5432/db,email:a@b}", "[postgresql://h:1/x,b@c]",
     "uri=postgresql://h/db,email=a@b"],
)  # fmt: skip
def test_what_has_none_stays_as_it_is(text):
    assert without_passwords(text) == text
