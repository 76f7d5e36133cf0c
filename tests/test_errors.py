"""Errors as sentences, and streams that are closed or have no room."""

import subprocess
import sys

import pytest

from caltech.errors import CaltechError, Ended, without_exit

PROGRAM = """
import os, sys
from caltech.errors import shown_as_messages
with shown_as_messages(composes=False):
    file = open(sys.argv[1], "w")
    print("a table")
    print("a warning", file=sys.stderr)
    os.system("echo of a library >&2")
    assert file.fileno() > 2, file.fileno()
    sys.stdout.isatty(), sys.stderr.isatty()
"""


@pytest.mark.parametrize(
    ("closed", "code"),
    [(">&-", 0), ("2>&-", 0), ("<&- >&- 2>&-", 0), (">/dev/full", 1), ("| true", 0)],
)
def test_what_nobody_reads_is_no_failure_and_what_has_no_room_is_one_message(
    tmp_path, closed, code
):
    command = f'"$0" -c "$1" "$2" {closed}'
    words = ["bash", "-o", "pipefail", "-c", command, sys.executable, PROGRAM, tmp_path / "file"]
    ended = subprocess.run(words, capture_output=True, text=True)
    assert ended.returncode == code, ended.stderr
    assert (tmp_path / "file").read_text() == ""
    if code:
        assert "error: No space is left on a disk: of what is printed" in ended.stderr
        assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("code", [None, 0, 1, "bye"])
def test_code_of_others_that_ends_python_is_a_failure(code):
    with pytest.raises(CaltechError, match=rf"called sys.exit\({code}\)"), without_exit():
        sys.exit(code)


@pytest.mark.parametrize("error", [Ended(143), SystemExit(-1), KeyboardInterrupt()])
def test_what_was_told_to_end_ends(error):
    """By a signal; by submitit, which has put the job into the queue again; by Ctrl-C."""
    with pytest.raises(type(error)), without_exit():
        raise error
