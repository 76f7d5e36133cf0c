"""`python -m caltech.data audit|verify [data.root=FOLDER ...]`: what is wrong with the images.

Both read what `python -m caltech.train` would, with the same overrides, and change nothing.
audit    what cannot be read, what is no image of a category, what is there twice
verify   whether the images are, byte for byte, those that the caches were made from
"""

import argparse
import sys
from pathlib import Path

from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from caltech import errors
from caltech.config import register
from caltech.data import pixels
from caltech.data.audit import audit, report
from caltech.data.folders import list_images
from caltech.data.sources import caltech101_images
from caltech.errors import DamagedError, InputError
from caltech.files import read_sealed_json
from caltech.settings import CONF
from caltech.words import require_flags


def main() -> None:
    """The command; exit code 1 if an image is corrupt, or not what the caches were made from."""
    parser = argparse.ArgumentParser(
        prog="python -m caltech.data",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=["audit", "verify"])
    parser.add_argument("overrides", nargs="*", help="as for caltech.train: data.root=FOLDER")
    with errors.shown_as_messages():
        register()
        require_flags(sys.argv[1:], parser)
        arguments = parser.parse_args()
        with initialize_config_dir(config_dir=str(CONF)):
            given = compose("train", arguments.overrides).data
        errors.composed()
        if not given.get("_target_", "").endswith(".caltech101"):
            raise InputError(
                f"An {arguments.command} reads image files, and this data set has none. Type "
                "data.root=."
            )
        code = {"audit": _audit, "verify": verify}[arguments.command](given)
    raise SystemExit(code)


def verify(given: DictConfig) -> int:
    """Compare the bytes with the kept digest and, if they differ, the images with their pixels."""
    images, cache = caltech101_images(given.root), Path(given.cache).expanduser()
    files = list_images(images)
    content, kept = pixels.read_digest(images, files), pixels.kept_digest(images, files, cache)
    print(f"{len(files)} images in {images}: SHA-256 {content}")
    try:
        before = read_sealed_json(kept)["content"] if kept.is_file() else None
    except DamagedError as error:
        print(f"{error} The next run computes it again.")
        return 1
    if before in (None, content):
        told = "nothing is kept that could differ" if before is None else f"as {kept} says"
        print(f"unchanged: {told}")
        return 0
    print(
        f"CHANGED with equal sizes and times: {kept} says {before}. Runs take the images for "
        "those. Restore them, or delete that file: the next run then sees them as they are."
    )
    array = pixels.cached(images, files, given.resize, before, cache)
    for file in pixels.differing(array, images, files, given.resize):
        print(f"    other pixels than in {array.path.name}: {ascii(file)[1:-1]}")
    return 1


def _audit(given: DictConfig) -> int:
    images = caltech101_images(given.root)
    findings = audit(images, given.get("train_files"), given.get("test_files"))
    print(report(findings))
    return 1 if findings.corrupt else 0
