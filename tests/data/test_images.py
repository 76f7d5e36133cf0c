"""Images that are too large to be read."""

import subprocess
import sys
from pathlib import Path

import pytest

from caltech.data.images import opened
from caltech.data.pixels import decode

PROGRAM = """
import sys
from caltech.data.images import opened, require_moderate
with opened(sys.argv[1]) as image:
    try: require_moderate(image, 1)
    except ValueError as error: print(error)
"""


def large(folder: Path, width: int, height: int) -> Path:
    """An image file that says it has so many pixels, and has none."""
    path = folder / "large.ppm"
    path.write_bytes(b"P5 %d %d 255\n" % (width, height))
    return path


@pytest.mark.parametrize(
    "read", [lambda path: decode(path, 256), lambda path: opened(path).__enter__()]
)
def test_an_image_that_pillow_refuses_is_told_with_its_pixels(tmp_path, read):
    with pytest.raises(ValueError, match=r"^it has 400000000 pixels; more than 64000000 are not"):
        read(large(tmp_path, 20_000, 20_000))


def test_pillow_s_warning_is_not_shown_before_our_sentence(tmp_path):
    """In a process of its own, where warnings are shown as they are to people."""
    command = [sys.executable, "-c", PROGRAM, str(large(tmp_path, 9500, 9500))]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.stdout == "it has 9500 x 9500 pixels; more than 64000000 are not read\n"
    assert ran.stderr == ""


def test_where_warnings_are_errors_the_sentence_is_the_same(tmp_path):
    """As here, by pyproject.toml."""
    with pytest.raises(ValueError, match=r"^it has 90250000 pixels; more than 64000000 are not"):
        decode(large(tmp_path, 9500, 9500), 256)
