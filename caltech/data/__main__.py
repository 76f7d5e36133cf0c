"""What is wrong with images: `caltech audit [data.root=FOLDER ...]`, or verify.

Both read what `caltech train` would, with the same overrides, and change
nothing.
audit    of any data set: what cannot be read, what is no image of it, what is
         there twice
verify   of image files: whether they are, byte for byte, those that the caches
         were made from
"""

import argparse
import logging
import sys
from pathlib import Path

import numpy as np
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from caltech import errors, plugins, waiting
from caltech.amounts import counted
from caltech.config import build, register
from caltech.data import download, folders, own, pixels, sources
from caltech.data.audit import audit, of_files, report
from caltech.data.dataset import PARTS, Collection, Dataset
from caltech.data.split import Files, Split
from caltech.errors import DamagedError, InputError
from caltech.files import read_sealed_json
from caltech.flags import readable, require_flags
from caltech.settings import CONF


def main() -> None:
    """The command; exit code 1 if an image is corrupt, or not what the caches were made from."""
    parser = argparse.ArgumentParser(
        prog="python -m caltech.data",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=["audit", "verify"])
    parser.add_argument("overrides", nargs="*", help="as for caltech.train: data.root=FOLDER")
    parser.add_argument("--config-dir", metavar="DIR", help="a folder of options of your own")
    with errors.shown_as_messages():
        register()
        require_flags(sys.argv[1:], parser)
        arguments = parser.parse_intermixed_args()
        own = [f"hydra.searchpath=[{arguments.config_dir}]"] if arguments.config_dir else []
        with initialize_config_dir(config_dir=str(CONF)):
            cfg = compose("train", [*own, *readable(arguments.overrides)])
        errors.composed()
        logging.basicConfig(format="%(message)s")
        waiting.log.setLevel(logging.INFO)  # how far it is, where no terminal shows a bar
        plugins.load(cfg.plugins)
        given = cfg.data
        code = {"audit": audit_all, "verify": verify}[arguments.command](given)
    raise SystemExit(code)


def audit_all(given: DictConfig) -> int:
    """Audit the data set, whatever it is, without building its pixels if it is of files."""
    place = _files_of(given)
    if place is None:
        data = build(given)
        images = Collection("", data.files, data.labels.tolist(), data.classes)
        parts = {part: getattr(data, part) for part in PARTS}
        print(report(audit(images, parts, (), lambda row: _row(data, row))))
        return 0
    listing, collection = _FILES[_name(given)]
    listed = listing(place)
    images = collection(place, listed)
    read = of_files(images, given.get("upright", False))
    findings = audit(images, _split(given).parts(images), listed.stray, read)
    print(report(findings))
    return 1 if findings.corrupt else 0


def verify(given: DictConfig) -> int:
    """Compare the bytes with the kept digest and, if they differ, the images with their pixels."""
    place = _files_of(given)
    if place is None:
        raise InputError(
            "verify compares image files with the caches, and this data set has none: "
            f"{_name(given)} is read anew each time, or its archive is verified by its library. "
            "Type caltech audit with the same words for what is wrong with its images."
        )
    cache, upright = Path(given.cache).expanduser(), given.get("upright", False)
    listed = _FILES[_name(given)][0](place)
    required = "distinct" if _name(given) == "folder" else "len"
    content, _ = folders.read_digest(place, listed.files)
    kept = folders.kept_digest(place, listed.files, cache, required)
    print(f"{counted(len(listed.files), 'image')} in {place}: SHA-256 {content}")
    try:
        before = read_sealed_json(kept)["content"] if kept.is_file() else None
    except DamagedError as error:
        print(f"{error} The next run computes it again.")
        return 1
    if before is None:
        print("no run has read these images as they are now: there is nothing that could differ")
        return 0
    if before == content:
        print(f"unchanged: as {kept} says")
        return 0
    print(
        f"CHANGED with equal sizes and times: {kept} says {before}. Runs take the images for "
        "those. Restore them, or delete that file: the next run then sees them as they are."
    )
    decoded = pixels.of_files(place, listed.files, given.resize, upright)
    array = pixels.cached(decoded, sources.content_of_pixels(before, upright), cache)
    for row in pixels.differing(array, decoded):
        print(f"    other pixels than in {array.path.name}: {ascii(listed.files[row])[1:-1]}")
    return 1


# What lists the files of a data set, and what makes them images with their classes.
_FILES = {
    "caltech101": (folders.listing, folders.collection),
    "caltech101_background": (sources.caltech101_background_listing, folders.collection),
    "folder": (own.listing, own.collection),
}


def _name(given: DictConfig) -> str:
    """Of what is called; a plugin's of the same name is another."""
    module, _, name = given.get("_target_", "").rpartition(".")
    return name if module.startswith("caltech.") else f"{module}.{name}"


def _files_of(given: DictConfig) -> Path | None:
    """The folder of its classes; None for a data set that is not of image files.

    Raises:
        InputError: it is not there, with what is there instead.
    """
    if _name(given) not in _FILES:
        return None
    if not given.root:
        raise InputError(
            "Type data.root=DIR: the folder that has a folder of images for each class."
        )
    if _name(given) == "folder":
        return Path(given.root).expanduser()
    place = download.caltech101_images(given.root)
    if not place.is_dir():
        raise InputError(f"{place} is no folder. {folders.explain_absence(place.parent.parent)}")
    return place


def _split(given: DictConfig) -> Split:
    if given.get("train_files") or given.get("test_files"):
        return Files(given.train_files, None, given.test_files, of="data")
    return build(given.split)


def _row(data: Dataset, row: int) -> tuple[bytes, np.ndarray]:
    image = data.pixels[row].numpy()
    return image.tobytes(), image


if __name__ == "__main__":
    main()
