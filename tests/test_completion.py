"""The Tab key, in a real Bash."""

import os
import shutil
import subprocess
import sys

import pytest

from caltech.completion import choices

BASH = """
eval "$({python} -m caltech.completion)"
for COMP_LINE in "$@"; do
    COMP_POINT=${{#COMP_LINE}}
    _caltech
    echo "${{COMPREPLY[@]}}"
done
"""


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("caltech ", "train"),
        ("caltech swe", "sweep"),
        ("/opt/bin/caltech train optimizer=ad", "optimizer=adamw"),
        ("python -m caltech.train optimizer=ad", "optimizer=adam"),
        ("python -m caltech sweep sched", "schedule="),
        ("caltech train data=digits schedule.st", "schedule.step_size="),
        ("caltech sweep lr=1,2 experiment=beyond/lite2_a", "experiment=beyond/lite2_averaged"),
        ("caltech report stu", "study="),
        ("caltech ui tracking.u", "tracking.uri="),
    ],
)
def test_a_line_goes_on_with_what_may_be_typed(line, found):
    assert found in choices(line)


def test_what_is_no_word_of_ours_is_left_to_the_shell():
    assert choices("caltech predict cat") == []
    assert not [each for each in choices("caltech train optimizer.") if "_target_" in each]


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_a_word_and_the_part_after_its_sign_of_equality():
    lines = ["caltech swee", "python -m caltech.train model=ale", "python other.py mod"]
    ended = subprocess.run(
        ["bash", "--norc", "-c", BASH.format(python=sys.executable), "bash", *lines],
        capture_output=True, text=True, env=os.environ,
    )  # fmt: skip
    sweep, model, other = ended.stdout.splitlines()
    assert "sweep" in sweep.split() and model in ("alexnet", "model=alexnet")
    assert other == model  # untouched: the function returns before it
