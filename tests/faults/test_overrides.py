"""Whatever is typed ends in a run or in one clear error before any work, never in a traceback."""

import contextlib
import io
import logging
import os
import re
import sys

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from caltech import train as training
from caltech.runs.directory import RunDirectory
from caltech.settings import CONF, ROOT

SCALARS = [name for name in ROOT if not (CONF / name).is_dir()]
GROUPS = ["freeze", "augment", "optimizer", "schedule", "precision", "tracking", "model", "data"]
GROUPS += ["experiment", "sweep"]
VALUES = [
    "1", "0", "-1", "0.5", "1e-3", "1e400", "nan", "inf", "-inf", "null", "true", "abc", "''", "",
    "[1,2]", "[]", "{a: 1}", "${lr}", "${nope}", "${oc.env:NOPE}", "???", "1.5", "é", "'a b'",
    "a/b", "..", "~", "x" * 300, "'\\n'", "2147483648", "99999999999999999999", "0x10", "1_000",
    "--", "'a=b'", "a:b", "%s", "$HOME", "*",
]  # fmt: skip


def misspelt(name: str) -> st.SearchStrategy[str]:
    places = st.integers(0, len(name) - 1)
    return st.one_of(
        places.map(lambda i: name[:i] + name[i + 1 :]),
        places.map(lambda i: name[:i] + name[i] + name[i:]),
        places.map(lambda i: name[:i] + "-" + name[i:]),
    )


def options(group: str) -> list[str]:
    folder = CONF / group
    return [str(p.relative_to(folder).with_suffix("")) for p in folder.rglob("*.yaml")]


names = st.sampled_from(SCALARS).flatmap(lambda name: st.one_of(st.just(name), misspelt(name)))
values = st.one_of(
    st.sampled_from(VALUES), st.floats().map(repr), st.integers().map(str),
    st.text("abc-_.:/\\#@é 0", max_size=8),
)  # fmt: skip
prefixes = st.sampled_from(["", "", "", "", "+", "++", "~"])
scalars = st.builds("{}{}={}".format, prefixes, names, values)
chosen = st.sampled_from(GROUPS).flatmap(
    lambda group: st.builds(
        "{}={}".format,
        st.one_of(st.just(group), misspelt(group)),
        st.one_of(st.sampled_from(options(group)), st.sampled_from(VALUES)),
    )
)
inner = ["model.weights", "model.name", "data.crop", "data.resize", "data.train_files", "data.root"]
inner += ["optimizer.lr", "schedule.step_size", "freeze.stages", "augment.train", "tracking.uri"]
inner += [
    "optimizer._target_",
    "data.download",
    "precision.dtype",
    "hydra.run.dir",
    "hydra.job.name",
]
nested = st.builds("{}{}={}".format, prefixes, st.sampled_from(inner), values)
words = st.one_of(scalars, chosen, nested)


def changed(word: str, kind: str, place: int) -> list[str]:
    """A word as it comes out of hasty hands, or out of a document."""
    place %= len(word) + 1
    key, equals, value = word.partition("=")
    return {
        "torn": [word[:place], word[place:]],
        "spaced": [key, equals, value],
        "half spaced": [f"{key}{equals}", value],
        "case": [word[:place] + word[place:].swapcase()],
        "dashes": [f"--{word}"],
        "flag": [f"--{key}", value],
        "short flag": [f"-{key}", value],
        "twice": [word, f"{key}={value[:-1]}"],
        "again": [word, word],
        "quote": [word[:place] + "'" + word[place:]],
        "bracket": [word[:place] + "[{("[place % 3] + word[place:]],
        "comma": [f"{word},", value],
        "list": [f"{key}=[{value},{value}]"],
        "sweep": [f"{key}={value},{value}"],
        "decimal comma": [word.replace(".", ",")],
        "equals": [word.replace("=", "==")],
        "colon": [word.replace("=", ":")],
        "typographic": [f"{key}=\N{LEFT DOUBLE QUOTATION MARK}{value}"],
        "document": [word.replace("-", "\N{EN DASH}").replace("=", "\N{FULLWIDTH EQUALS SIGN}")],
        "space": [word[:place] + "\N{NO-BREAK SPACE}" + word[place:]],
        "file": [f"{word}.yaml"],
        "deeper": [f"{key}.{word}"],
        "package": [f"{key}@{word}"],
        "bare": [value],
    }[kind]


KINDS = [
    "torn", "spaced", "half spaced", "case", "dashes", "flag", "short flag", "twice", "again",
    "quote", "bracket", "comma", "list", "sweep", "decimal comma", "equals", "colon",
    "typographic", "document", "space", "file", "deeper", "package", "bare",
]  # fmt: skip
hasty = st.builds(changed, words, st.sampled_from(KINDS), st.integers(0, 40))
plainly = words.map(lambda word: [word])
overrides = st.lists(st.one_of(plainly, hasty), min_size=1, max_size=3).map(
    lambda parts: [word for part in parts for word in part]
)


class Begun(BaseException):
    """Everything was checked; the run would begin."""


def outcome(arguments: list[str]) -> tuple[str, str]:
    """What `python -m caltech.train ARGUMENTS` comes to, and what it says to the user."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        try:
            sys.argv = ["caltech.train", *arguments]
            training.main()
        except Begun:
            return "run", said.getvalue()
        except SystemExit as error:
            return ("end" if not error.code else "error"), said.getvalue()
        except Exception:
            sys.excepthook(*sys.exc_info())
            return "error", said.getvalue()
    return "end", said.getvalue()


@contextlib.contextmanager
def beginning(directory, waits):
    raise Begun
    yield


@pytest.fixture
def typed(tree, cache, tmp_path, monkeypatch, composed_once):
    """A function for it, with small data, nothing written and nothing fetched."""
    monkeypatch.setattr(RunDirectory, "claimed", beginning)
    monkeypatch.setattr(sys, "argv", sys.argv)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CALTECH101_ROOT", str(tree))
    monkeypatch.setenv("CALTECH_CACHE", str(cache))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    small = ["device=cpu", "data.download=false", f"output={tmp_path / 'multirun'}"]
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level  # Hydra sets its own
    tiny = ["model=timm", "model.name=test_resnet", "model.weights=null"]

    def run(*arguments: str) -> tuple[str, str]:
        own = (
            []
            if any(re.match(r"\W*(model|experiment|sweep)\b", each) for each in arguments)
            else tiny
        )
        return outcome([*small, *own, *arguments])

    yield run
    for handler in set(root.handlers) - set(handlers):
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.raiseExceptions = True
    os.environ.pop("CALTECH_SWEEP", None)


def assert_clear(typed, arguments: list[str]) -> str:
    kind, said = typed(*arguments)
    assert "Traceback" not in said, (arguments, said)
    if kind == "error":
        message = said[said.index("error: ") :].strip()
        assert len(message.splitlines()) == 1 and len(message) < 3000, (arguments, said)
        assert re.search(r"\b[Tt]ype |Leave | is one of |for example ", message), (arguments, said)
        assert "Error executing job" not in said, (arguments, said)
    return kind


FOUND = [
    ["experiment=null"], ["study="], ["lr=null"], ["lr=1e400"], ["tracking=null"],
    ["seed=99999999999999999999"], ["batch_size=2147483648"],
    ["published=1"], ["directory=''"], ["output=???"], ["key=abc"], ["seeds=0"],
    ["~lr"], ["data.crop=null"], ["freeze.stages=abc"], ["augment.train=1"],
    ["optimizer.lr=-1"], ["optimizer._target_=os.getcwd"],
    ["hydra.run.dir=''"], ["data.root=null"], ["study=" + "x" * 300], ["study='*'"],
    ["tracking.uri=${nope}"], ["device=???"], ["~published"], ["model._target_=3"],
    ["data.train_files=5", "data.test_files=[a,b]"], ["+optimizer.x=" + "9" * 400],
    ["data.resize=0", "data.crop=0"],
]  # fmt: skip
# Of the same kinds; values, seeds and removed keys are in test_settings and test_vocabulary, too.
FOUND_TOO = [
    ["sweep=null"], ["model=null"], ["study='a b'"], ["study=a:b"], ["cache=''"],
    ["num_epochs=99999999999999999999"], ["data.resize=abc"], ["schedule.step_size=0"],
    ["model.name=null"], ["seeds=2", "seed=1"], ["~num_epochs"], ["~seeds"], ["~dry_run"],
    ["~pruner"], ["~average"], ["~rerun"], ["model._target_=null"], ["model._target_=foo"],
    ["data.crop=60.5"], ["schedule.gamma=abc"],
]  # fmt: skip


@pytest.mark.parametrize(
    "arguments",
    [*FOUND, *(pytest.param(each, marks=pytest.mark.slow) for each in FOUND_TOO)],
    ids=" ".join,
)
def test_what_was_found_once(typed, arguments):
    assert_clear(typed, arguments)


@settings(
    max_examples=8, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(overrides)
@example(["lr=0.1"])
def test_whatever_is_typed(typed, arguments):
    assert_clear(typed, arguments)


@pytest.mark.slow
def test_whatever_is_typed_a_thousand_times(typed, capsys):
    counts = {"run": 0, "error": 0, "end": 0}

    @settings(
        max_examples=1000, deadline=None, database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )  # fmt: skip
    @given(overrides)
    def typing(arguments):
        counts[assert_clear(typed, arguments)] += 1

    typing()
    with capsys.disabled():
        print(f"\noverrides tried: {counts}")
