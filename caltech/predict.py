"""Ask a trained run what images show: `python -m caltech.predict IMAGE... run=KEY|best`."""

import glob
import json
import os
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from caltech.errors import InputError
from caltech.inference import command_line

USAGE = """\
python -m caltech.predict IMAGE... [run=KEY[,KEY...]|best] [--calibrated]
                                  [--json] [--explain [to=FOLDER]]"""
DESCRIPTION = """\
Print the five most probable classes of each image.

  python -m caltech.predict cat.jpg
  python -m caltech.predict photos/ 'more/*.png' run=4394282114 --json
  python -m caltech.predict cat.jpg --explain to=explained
  python -m caltech.predict cat.jpg run=4394282114,5c8936a007 --calibrated

An IMAGE is a file, a folder (all images in it and below) or a glob, quoted or
not. Images are prepared as the run's test images were: RGB, short side resized,
centre crop; the logits of mirrored views are averaged if the run did so. An
orientation in EXIF is applied if the run did (data.upright=true); else a note
says where there is one. Files that are missing are named first, those that
cannot be read in their place, and the others answered; the exit code is then 1.
"""


def main(words: Sequence[str]) -> int:
    """The command; 1 if something could not be read, else 0."""
    parser = command_line.Parser(USAGE, DESCRIPTION)
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="file, folder or glob")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--explain", action="store_true",
        help="also write a Grad-CAM overlay of where it is seen, beside each image")  # fmt: skip
    parser.add_argument("--to", metavar="FOLDER", type=Path, help="write overlays there instead")
    given = parser.read(words)
    if given.to and not given.explain:
        parser.error("to=FOLDER is for the overlays of --explain. Type --explain, too")
    places = (Path(name).expanduser() for name in given.images if not glob.has_magic(name))
    if all(os.path.exists(place) for place in places):  # noqa: PTH110 (False of a name too long)
        command_line.require_there(given)  # what is missing of the images is told first
    return _answer(given)


def _answer(given: Namespace) -> int:
    """Ask the run; the exit code."""
    from caltech.inference import explain
    from caltech.inference.image_files import absent, answers, expand

    images = expand(given.images)
    missing = absent(images)
    for answer in missing:
        print(answer, file=sys.stderr)
    images = [image for image in images if image not in {answer.image for answer in missing}]
    document = {"run": None, "images": [], "unreadable": [each.plain() for each in missing]}
    if not images:
        return _end(document, given.json)
    overlays = explain.names(images, given.to) if given.explain else {}
    predictor = command_line.load(given)
    if given.explain and hasattr(predictor, "members"):
        raise InputError(
            "--explain shows where one network looks, and this is an ensemble. Type run= with one "
            f"of {', '.join(member.cfg.key for member in predictor.members)}."
        )
    document["run"] = predictor.summary()
    for answer in answers(predictor, images):
        if answer.top is None:
            tqdm.write(str(answer), file=sys.stderr)
            document["unreadable"].append(answer.plain())
            continue
        if overlays:
            answer = replace(answer, overlay=overlays[answer.image])
            explain.write(predictor, answer.image, answer.top[0]["class"], answer.overlay)
        if not given.json:
            tqdm.write(str(answer))
        document["images"].append(answer.plain())
    return _end(document, given.json)


def _end(document: Mapping[str, Any], is_json: bool) -> int:
    """Print the document if one is asked for; the exit code."""
    if is_json:
        print(json.dumps(document, indent=2, default=str))
    return 1 if document["unreadable"] else 0


if __name__ == "__main__":
    command_line.start(main)
