"""Images in category folders: which files they are, and what else lies there.

Nothing vanishes: what is no image of a category is told, and a category without images is an error.
"""

import hashlib
import logging
import os
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from caltech.amounts import counted
from caltech.arguments import nearest_place
from caltech.data.dataset import Collection
from caltech.errors import DamagedError, InputError
from caltech.files import read_sealed_json, write_sealed_json
from caltech.words import shell

log = logging.getLogger(__name__)

CALTECH101 = Path("caltech101/101_ObjectCategories")  # below data.root, as torchvision has it
BACKGROUND = "BACKGROUND_Google"
OVERLAY = ".gradcam.png"  # of what predict --explain writes beside an image: no image of the set
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")  # of the study's files, in small or large letters
# Of a folder of one's own: an error if it is no image; other files are if Pillow finds they are.
SUFFIXES = (*IMAGE_SUFFIXES, ".jpe", ".jfif", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".webp",
            ".pbm", ".pgm", ".ppm", ".jp2", ".avif")  # fmt: skip
# What systems, shares and archives leave behind; all that begins with a dot is hidden anyway.
SYSTEM = ("__macosx", "@eadir", "#recycle", "lost+found", "$recycle.bin",
          "system volume information", "__pycache__")  # fmt: skip
# Whatever a file is called. Not all that Pillow knows: it gives PostScript to a program.
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "DIB", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF")
SHOWN = 5
Require = Callable[[Sequence[bytes]], Any]  # of the SHA-256 of each file; what it gives is kept


@dataclass(frozen=True)
class Listing:
    """What lies below a folder of categories; names are relative to it."""

    files: list[str]  # category/file: categories sorted without regard to case, files by name
    stray: list[str]  # what is no image of a category; a folder ends in a slash
    parts: dict[str, str] | None = None  # for what the folders above the categories are, if any


def is_hidden(name: str) -> bool:
    """Whether a file or folder of that name is the system's and not the user's."""
    return name.startswith(".") or name.lower() in SYSTEM


def list_images(images: Path) -> list[str]:
    """`category/file` of every image below a folder of categories, as Listing.files."""
    return listing(images).files


def listing(images: Path, background: bool = False) -> Listing:
    """The images in the category folders of `images` (.../101_ObjectCategories).

    Args:
        background: whether the background is a category, too.

    Raises:
        InputError: there is none, a category has none of its own, or a folder cannot be read.
    """
    files, stray, own = [], [], images.resolve()
    with naming_file():
        for category in in_order(images):
            if not is_category(category, own):
                stray.append(named(category, images))
                continue
            found = sorted(os.listdir(category))  # noqa: PTH208 (names, without a Path for each)
            mine = [name for name in found if _is_image(name)]
            stray += [named(category / name, images) for name in found if not _is_image(name)]
            if category.name == BACKGROUND and not background:
                continue
            if not mine:
                raise InputError(_without_images(category, found))
            files += [f"{category.name}/{name}" for name in mine]
    if not files:
        raise InputError(
            f"{images} has no category folder with images. Type data.root= with the folder that "
            f"holds {'/'.join(images.parts[-2:])}."
        )
    return Listing(files, stray)


def collection(images: Path, listed: Listing) -> Collection:
    """The images with their categories as classes."""
    names = [file.split("/")[0] for file in listed.files]
    classes = tuple(dict.fromkeys(names))
    number = {name: label for label, name in enumerate(classes)}
    return Collection(images, listed.files, [number[name] for name in names], classes)


def audit_command(data: str, root: Path) -> str:
    """What lists all that is wrong with images, to be typed from anywhere."""
    return f"caltech audit data={data} data.root={shell(str(root.absolute()))}"


def tell_strays(images: Path, stray: Sequence[str], audit: str) -> None:
    """Warn of what is not read, once a build; the real data set's one is in its background."""
    told = [name for name in stray if not name.startswith(f"{BACKGROUND}/")]
    told = [name for name in told if not name.endswith(OVERLAY)]  # ours, and known
    if told:
        names = ", ".join(ascii(name)[1:-1] for name in told[:SHOWN])
        names += f" and {len(told) - SHOWN} more" if len(told) > SHOWN else ""
        what = counted(len(told), "file or folder is no image", "files or folders are no images")
        read = "is not read" if len(told) == 1 else "are not read"
        others = {Path(name).suffix.lower() for name in told if "/" in name} & {*SUFFIXES}
        log.warning(
            "%s:\n%s of a category and %s:\n%s\n%sAll are listed by:\n  %s",
            images, what, read,
            textwrap.fill(names, 79, break_on_hyphens=False, break_long_words=False),
            f"data=folder reads {', '.join(sorted(others))}, too.\n" if others else "", audit,
        )  # fmt: skip


@contextmanager
def naming_file() -> Iterator[None]:
    """Turn what the system says of a file or folder that cannot be read into one InputError."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{error.filename} cannot be read: {error.strerror}. Restore it, or move it out of the "
            "data set."
        ) from error


def content_digest(
    images: Path,
    files: Sequence[str],
    cache: Path,
    require: Require = len,
    tell: Callable[[Any], object] = bool,
) -> str:
    """SHA-256 over the names and bytes of `files`, in order.

    Reading 130 MB at every start would cost more than a short trial, so the digest is kept under
    the files' sizes and times (of the last change of content and of the entry, which no program
    can set) and is read from there while those are unchanged. What changes bytes beneath the file
    system, as a failing disk does, is found by `python -m caltech.data verify`.

    Args:
        require: is given the SHA-256 of each file once they are read, and may refuse them.
        tell: is given what that gave, now or when they were read.

    Raises:
        InputError: a file cannot be read; names it.
    """
    kept, known = kept_digest(images, files, cache, require.__name__), {}
    if kept.is_file():
        try:
            known = read_sealed_json(kept, {"content": str})
        except DamagedError as error:
            log.warning("%s It is computed again.", error)
    if known and ("given" in known or require is len):
        tell(known.get("given"))
        return known["content"]
    content, given = read_digest(images, files, require)
    content = known.get("content", content)  # by earlier code, without the rest; caches are of it
    write_sealed_json(kept, {"images": str(images), "content": content, "given": given})
    tell(given)
    return content


def kept_digest(images: Path, files: Sequence[str], cache: Path, required: str = "len") -> Path:
    """The file that keeps the digest of these files while their sizes and times are what they are.

    Args:
        required: name of what they were required to be.

    Raises:
        InputError: as content_digest.
    """
    stamp = hashlib.sha256(os.fsencode(images.resolve()) + required.encode())
    with naming_file():
        for file in files:
            times = _signature(f"{images}/{file}")
            stamp.update(os.fsencode(file) + b"\0%d\0%d\0%d\0" % times)
    return cache / "digests" / f"{stamp.hexdigest()[:32]}.json"


def signature(path: Path) -> tuple[int, int, int]:
    """Bytes, and the times when content and entry were changed last.

    Raises:
        InputError: it is not there.
    """
    with naming_file():
        return _signature(path)


def _signature(path: str | Path) -> tuple[int, int, int]:
    status = os.stat(path)  # noqa: PTH116 (three times as fast as Path.stat)
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def read_digest(images: Path, files: Sequence[str], require: Require = len) -> tuple[str, Any]:
    """The digest by every byte, whatever is kept, and what `require` gave."""
    content, found = hashlib.sha256(), []
    with naming_file():
        for file in files:
            found.append(hashlib.sha256((images / file).read_bytes()).digest())
            content.update(os.fsencode(file) + b"\0")
            content.update(found[-1])
    return content.hexdigest(), require(found)


def in_order(folder: Path) -> list[Path]:
    """What is in it, by name without regard to case."""
    return sorted(folder.iterdir(), key=lambda path: (path.name.lower(), path.name))


def is_category(path: Path, own: Path) -> bool:
    """A folder, or a link to one, that is the user's and does not lead back to where it lies."""
    if is_hidden(path.name) or not path.is_dir():
        return False
    return not path.is_symlink() or path.resolve() not in (own, *own.parents)


def named(path: Path, images: Path) -> str:
    """Its name below `images`, with a slash if it is a folder."""
    slash = "/" if not path.is_symlink() and path.is_dir() else ""
    return f"{path.relative_to(images)}{slash}"


def explain_absence(root: Path) -> str:
    """What is at `root`, which has no caltech101/101_ObjectCategories, and what to type instead."""
    with naming_file():
        if (right := _right_root(root.absolute())) is not None:
            return right
        if not root.is_dir():
            told = f"{root} {'is a file' if root.exists() else 'does not exist'}."
            if (near := nearest_place(root)) is not None:
                told += f" {near} is there: type data.root={near} if it is meant."
        else:
            names = sorted(named(path, root) for path in root.iterdir())
            more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
            told = f"{root} has {', '.join(names[:SHOWN]) or 'nothing'}{more}."
    return (
        f"{told} Type data.root=FOLDER or set CALTECH101_ROOT to a folder that holds {CALTECH101}, "
        "or type data=digits, which needs no download."
        + (
            ""
            if root.is_file()
            else f" caltech train data.download=true downloads it (137 MB) into {root}."
        )
    )


def _right_root(place: Path) -> str | None:
    """What to type where the categories are close by: above, below, or in a renamed folder."""
    below = (path.parent.parent for d in ("*", "*/*") for path in place.glob(f"{d}/{CALTECH101}"))
    above = (up for up in place.parents[:3] if (up / CALTECH101).is_dir())
    if (right := next(above, None) or next(below, None)) is not None:
        return f"{right} has it: type data.root={right}."
    folder, inner = CALTECH101.parts
    near = (path for up in (place, place.parent) for path in (up / inner, *up.glob(f"*/{inner}")))
    if (found := next((path for path in near if path.is_dir()), None)) is None:
        return None
    return (
        f"{found} is there: rename {found.parent} to {found.parent.with_name(folder)} and type "
        f"data.root={found.parent.parent}."
    )


def _is_image(name: str) -> bool:
    """Whether a file of that name is read as an image of the study's kinds."""
    is_left_out = is_hidden(name) or name.endswith(OVERLAY)
    return name.lower().endswith(IMAGE_SUFFIXES) and not is_left_out


def _without_images(category: Path, found: Sequence[str]) -> str:
    kinds = Counter(
        "folder" if path.is_dir() else f"{path.suffix} file".strip()
        for path in map(category.joinpath, found)
    )
    holds = ", ".join(counted(count, kind) for kind, count in kinds.most_common(SHOWN))
    return (
        f"{category} has no {', '.join(IMAGE_SUFFIXES)} of its own ({holds or 'it is empty'}): "
        "its class would be missing, and each class after it would have another number. Put the "
        "images there as JPEG or PNG, or move the folder out of the data set."
    )
