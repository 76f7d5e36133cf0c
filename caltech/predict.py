"""Ask a trained run what images show: `python -m caltech.predict IMAGE... run=KEY|best`."""

import glob
import json
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor
from tqdm import tqdm

from caltech.data import pixels
from caltech.data.sources import IMAGE_SUFFIXES
from caltech.inference import command_line, explain
from caltech.inference.predictor import Trained
from caltech.training.features import BATCH

USAGE = "python -m caltech.predict IMAGE... [run=KEY|best] [--json] [--explain [to=FOLDER]]"
DESCRIPTION = """\
Print the five most probable classes of each image.

  python -m caltech.predict cat.jpg
  python -m caltech.predict photos/ 'more/*.png' run=4394282114 --json
  python -m caltech.predict cat.jpg --explain to=explained

An IMAGE is a file, a folder (all images in it and below) or a glob, quoted or not. Images are
prepared as the run's test images were: RGB, short side resized, centre crop; the logits of
mirrored views are averaged if the run did so. As in training, an orientation in EXIF is not
applied; a note says where there is one. Files that cannot be read are named and the others
answered; the exit code is then 1.
"""
FOLDER_SUFFIXES = (*IMAGE_SUFFIXES, ".bmp", ".gif", ".tif", ".tiff", ".webp")
TOP = 5


@dataclass(frozen=True)
class Answer:
    """Of one image: its most probable classes with their probabilities, in falling order."""

    image: Path
    top: tuple[tuple[str, float], ...]
    overlay: Path | None = None

    def __str__(self) -> str:
        lines = [f"{100 * probability:7.2f} %  {name}" for name, probability in self.top]
        seen = [f"  seen where {self.overlay} is red"] if self.overlay else []
        return "\n".join([str(self.image), *lines, *seen])

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        top = [{"class": name, "probability": probability} for name, probability in self.top]
        overlay = {"overlay": str(self.overlay)} if self.overlay else {}
        return {"image": str(self.image), "top": top} | overlay


@dataclass(frozen=True)
class Unreadable:
    """What could not be answered, and why."""

    image: Path
    reason: str

    def __str__(self) -> str:
        return f"unreadable: {self.image}: {self.reason}"

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {"image": str(self.image), "reason": self.reason}


def predict(run: Trained, images: Sequence[Path]) -> Iterator[Answer | Unreadable]:
    """Answer image files in their order, a batch at a time; a bar shows progress on a terminal."""
    size = BATCH[run.device.type]
    bar = tqdm(total=len(images), unit="image", disable=None, leave=False)
    with ThreadPoolExecutor(torch.get_num_threads()) as pool, bar:
        for first in range(0, len(images), size):
            batch = images[first : first + size]
            read = list(pool.map(lambda path: _read(path, run.resize), batch))
            good = [image for image in read if isinstance(image, Tensor)]
            answers = iter(run.probabilities(torch.stack(good)) if good else ())
            for path, image in zip(batch, read, strict=True):
                bar.update()
                if isinstance(image, Unreadable):
                    yield image
                else:
                    yield Answer(path, run.rank(next(answers), TOP))


def expand(given: Sequence[str]) -> list[Path]:
    """The files that files, folders and globs stand for, each once.

    What a folder or a glob gives is sorted and without earlier explanations. What stands for
    nothing stays as it is, to be told as unreadable.
    """
    files: list[Path] = []
    for text in given:
        path = Path(text).expanduser()
        if path.is_dir():
            found = [p for p in path.rglob("*") if p.suffix.lower() in FOLDER_SUFFIXES]
        elif path.exists() or not glob.has_magic(text):
            files.append(path)
            continue
        else:
            found = [Path(p) for p in glob.glob(str(path), recursive=True)]  # noqa: PTH207 (absolute ones, too)
            found = [p for p in found if p.is_file()]
        images = sorted(p for p in found if not p.name.endswith(explain.SUFFIX))
        files += images or [path]
    return list(dict.fromkeys(files))


def main(words: Sequence[str]) -> int:
    """The command; 1 if something could not be read, else 0."""
    parser = command_line.Parser(USAGE, DESCRIPTION)
    parser.add_argument("images", metavar="IMAGE", nargs="+", help="file, folder or glob")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--explain", action="store_true",
        help=f"also write IMAGE{explain.SUFFIX}, a Grad-CAM overlay of where the answer is seen, "
        "beside each image")  # fmt: skip
    parser.add_argument("--to", metavar="FOLDER", type=Path, help="write overlays there instead")
    given = parser.read(words)
    if given.to and not given.explain:
        parser.error("to=FOLDER is for the overlays of --explain")

    images = expand(given.images)
    overlays = explain.names(images, given.to) if given.explain else {}
    run = command_line.load(given)
    answers = []
    for answer in predict(run, images):
        if overlays and isinstance(answer, Answer):
            answer = replace(answer, overlay=overlays[answer.image])
            explain.write(run, answer.image, answer.top[0][0], answer.overlay)
        answers.append(answer)
        if isinstance(answer, Unreadable):
            tqdm.write(str(answer), file=sys.stderr)
        elif not given.json:
            tqdm.write(str(answer))
    unreadable = [answer.plain() for answer in answers if isinstance(answer, Unreadable)]
    if given.json:
        answered = [answer.plain() for answer in answers if isinstance(answer, Answer)]
        document = {"run": run.summary(), "images": answered, "unreadable": unreadable}
        print(json.dumps(document, indent=2))
    return 1 if unreadable else 0


def _read(path: Path, resize: int) -> Tensor | Unreadable:
    """Decoded pixels (resize, resize, 3) uint8 of one file."""
    if path.is_dir():
        return Unreadable(path, "no image in this folder")
    if not path.exists():
        kind = "nothing matches" if glob.has_magic(str(path)) else "no such file"
        return Unreadable(path, kind)
    try:
        _note_orientation(path)
        return torch.from_numpy(pixels.decode(path, resize).copy())
    except UnidentifiedImageError:
        return Unreadable(path, "not an image in a format that Pillow knows")
    except Exception as error:  # Pillow raises many types for a broken image
        return Unreadable(path, getattr(error, "strerror", None) or str(error))


def _note_orientation(path: Path) -> None:
    with Image.open(path) as image:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    if orientation != 1:
        tqdm.write(
            f"note: {path} is answered as it is stored, without its EXIF orientation "
            f"{orientation}; rotate its pixels if the camera was held otherwise",
            file=sys.stderr,
        )


if __name__ == "__main__":
    command_line.start(main)
