"""Image files and what they show: named by files, folders and globs, read, answered in batches."""

import glob
import os
import re
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import ExifTags, UnidentifiedImageError
from torch import Tensor
from tqdm import tqdm

from caltech.amounts import printable
from caltech.arguments import nearest_place
from caltech.data import own
from caltech.data.folders import FORMATS, OVERLAY, naming_file
from caltech.data.images import opened
from caltech.inference.ensemble import Ensemble
from caltech.inference.predictor import Predictor

TOP = 5
_ADDRESS = re.compile(r"[a-z0-9]+:/+[^/]")  # as a path, which has one slash


@dataclass(frozen=True)
class Answer:
    """Of one image: its most probable classes in falling order, or why there are none."""

    image: Path
    top: list[dict[str, Any]] | None = None
    reason: str | None = None
    overlay: Path | None = None

    def __str__(self) -> str:
        if self.top is None:
            return f"unreadable: {self.image}: {self.reason}"
        lines = [
            f"{100 * each['probability']:7.2f} %  {printable(each['class'])}" for each in self.top
        ]
        seen = [f"  seen where {self.overlay} is yellow"] if self.overlay else []
        return "\n".join([str(self.image), *lines, *seen])

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {name: value for name, value in vars(self).items() if value is not None}


def absent(images: Sequence[Path]) -> list[Answer]:
    """Of those that are no files at all: they are told before a model is loaded."""
    reasons = {image: _absence(image) for image in images}
    return [Answer(image, reason=reason) for image, reason in reasons.items() if reason]


def answers(predictor: Predictor | Ensemble, images: Sequence[Path]) -> Iterator[Answer]:
    """Answer image files in their order, a batch at a time; a bar shows progress on a terminal."""
    size = predictor.batch_size
    bar = tqdm(total=len(images), unit="image", disable=None, leave=False)
    with ThreadPoolExecutor(torch.get_num_threads()) as pool, bar:
        for first in range(0, len(images), size):
            batch = images[first : first + size]
            read = list(pool.map(partial(_read, predictor), batch))
            good = [image for image in read if not isinstance(image, str)]
            found = iter(predictor.probabilities(predictor.stack(good)) if good else ())
            for path, image in zip(batch, read, strict=True):
                bar.update()
                if not isinstance(image, str):
                    yield Answer(path, predictor.rank(next(found), TOP))
                else:
                    yield Answer(path, reason=image)


def expand(given: Sequence[str]) -> list[Path]:
    """The files that files, folders and globs stand for, each once.

    What a folder or a glob gives is sorted and without earlier explanations. Of a folder it is what
    data=folder would read there, and images that this refuses. What stands for nothing stays as it
    is, to be told as unreadable.

    Raises:
        InputError: a folder cannot be read.
    """
    files: list[Path] = []
    for text in given:
        path = Path(text).expanduser()
        if os.path.isdir(path):  # noqa: PTH112 (False of a name too long)
            found = _in_folder(path)
        elif glob.has_magic(text) and not os.path.exists(path):  # noqa: PTH110
            matches = glob.glob(str(path), recursive=True)  # noqa: PTH207 (absolute ones, too)
            found = [Path(match) for match in matches if Path(match).is_file()]
        else:
            found = [path]
        images = sorted(p for p in found if not p.name.endswith(OVERLAY))
        files += images or [path]
    return list(dict.fromkeys(files))


def _in_folder(folder: Path) -> list[Path]:
    stray: list[str] = []
    with naming_file():
        found = own.below(folder, folder, stray, ())
    return [folder / name for name in (*found, *own.unread(stray))]


def _absence(path: Path) -> str | None:
    try:
        if path.is_dir():
            return "no image in this folder"
        if not path.exists():
            if _ADDRESS.match(str(path)):
                return "an address, and no file: save the image, and type the file's name"
            if glob.has_magic(str(path)):
                return "nothing matches"
            near = nearest_place(path.absolute())
            return f"no such file; {near} is there" if near else "no such file"
    except OSError as error:  # a folder on the way that may not be read, a name too long
        return error.strerror
    return None


def _read(predictor: Predictor | Ensemble, path: Path) -> Tensor | tuple[Tensor, ...] | str:
    """Decoded pixels of one file, as the predictor reads them, or why it cannot be read."""
    try:
        with opened(path) as image:
            orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        if orientation != 1 and not predictor.upright:
            tqdm.write(
                f"note: {path} is answered as it is stored, without its EXIF orientation "
                f"{orientation}; rotate its pixels if the camera was held otherwise",
                file=sys.stderr,
            )
        return predictor.read(path)
    except UnidentifiedImageError:
        return f"not an image in a format that is read here ({', '.join(FORMATS)})"
    except Exception as error:  # Pillow raises many types for a broken image
        return getattr(error, "strerror", None) or str(error)
