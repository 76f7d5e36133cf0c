"""A folder of one's own images: ROOT/CLASS/**, or ROOT/{train,val,test}/CLASS/**."""

import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from caltech.amounts import counted
from caltech.arguments import nearest_place
from caltech.data.dataset import PARTS, Collection
from caltech.data.folders import (
    FORMATS,
    OVERLAY,
    SUFFIXES,
    Listing,
    audit_command,
    in_order,
    is_category,
    is_hidden,
    named,
    naming_file,
)
from caltech.data.split import Parts
from caltech.errors import InputError

log = logging.getLogger(__name__)

# Images that are not read: a camera's, a drawing program's, and kinds that hardly anybody has.
UNREAD = (".heic", ".heif", ".hif", ".jxl", ".cr2", ".cr3", ".crw", ".nef", ".arw", ".raf", ".rw2",
          ".orf", ".pef", ".dng", ".psd", ".xcf", ".svg", ".eps", ".tga", ".pcx", ".dds", ".ico",
          ".icns", ".exr", ".hdr", ".fits", ".sgi", ".xbm", ".xpm")  # fmt: skip
NAMED = {"train": "train", "training": "train", "val": "validation", "valid": "validation",
         "validation": "validation", "test": "test", "testing": "test"}  # fmt: skip


def listing(root: Path) -> Listing:
    """All images below the class folders of `root`, or below those of its parts, in order.

    Raises:
        InputError: `root` is no folder, has no class, or an empty one; or it cannot be told
            whether it has parts.
    """
    with naming_file():
        if not root.is_dir():
            told = "is a file" if root.exists() else "does not exist"
            if (near := nearest_place(root)) is not None:
                raise InputError(f"data.root={root} {told}. Type data.root={near}.")
            raise InputError(
                f"data.root={root} {told}. Type data.root= with the folder that has a folder of "
                "images for each class, or the folders train, val and test of such."
            )
        inside = in_order(root)
        mine = [path for path in inside if is_category(path, root.resolve())]
        parts = _parts(root, mine)
        above = [folder for folder, _ in parts] if parts else [root]
        stray = [named(path, root) for path in inside if path not in mine]
        files: list[str] = []
        for folder in above:
            for category in in_order(folder):
                if not is_category(category, folder.resolve()):
                    if folder != root:
                        stray.append(named(category, root))
                    continue
                lost: list[str] = []
                found = below(category, root, lost, ())
                stray += lost
                if not found:
                    _require_read(root, lost)
                    raise InputError(
                        f"{category} is a class without an image. Put images there (or below it), "
                        "or move the folder out of the data set."
                    )
                files += found
    if not files:
        held = ", ".join(sorted(path.name for path in inside)[:5]) or "nothing"
        raise InputError(
            f"data.root={root} has no class: it holds {held}. A folder of images is a class; type "
            "data.root= with the folder that has those."
        )
    return Listing(files, stray, {folder.name: part for folder, part in parts} or None)


def collection(root: Path, listed: Listing) -> Collection:
    """The images with their classes.

    Raises:
        InputError: a part has a class that another one has not.
    """
    depth = 0 if listed.parts is None else 1
    names = [file.split("/")[depth] for file in listed.files]
    classes = tuple(sorted(set(names), key=lambda name: (name.lower(), name)))
    given: dict[str, list[int]] | None = None
    if listed.parts is not None:
        given = {part: [] for part in PARTS}
        for row, file in enumerate(listed.files):
            given[listed.parts[file.split("/")[0]]].append(row)
        seen = {part: {names[row] for row in rows} for part, rows in given.items() if rows}
        for part, held in seen.items():
            for other, more in seen.items():
                if lacking := sorted(more - held):
                    raise InputError(
                        f"{root}: the classes of {part} and {other} differ: {part} has no "
                        f"{', '.join(lacking[:5])}, and {other} has. Each part needs each class."
                    )
    number = {name: label for label, name in enumerate(classes)}
    return Collection(root, listed.files, [number[name] for name in names], classes, given)


def require_read(root: Path, listed: Listing) -> None:
    """Raise InputError for images in a class that are not read: training would go without them."""
    depth = 1 if listed.parts is None else 2
    _require_read(root, [name for name in listed.stray if name.count("/") >= depth])


def unread(stray: Sequence[str]) -> list[Path]:
    """Those of files that are no images of ours that others take for images."""
    seen = [Path(name) for name in stray if not is_hidden(Path(name).name)]
    return [path for path in seen if path.suffix.lower() in UNREAD]


def _require_read(root: Path, stray: Sequence[str]) -> None:
    if lost := unread(stray):
        raise InputError(
            f"{root} has {counted(len(lost), 'image')} of a kind that is not read, {lost[0]} for "
            "one. Convert them to JPEG or PNG, or move them out of the data set."
        )


def require_distinct(images: Collection) -> Callable[[Sequence[bytes]], list[list[int]]]:
    """What refuses the same bytes in two classes or, if the data set comes in parts, in two.

    It gives the rows that have the same bytes.
    """
    part = {row: name for name, rows in (images.given or {}).items() for row in rows}

    def distinct(digests: Sequence[bytes]) -> list[list[int]]:
        same: Mapping[bytes, list[int]] = defaultdict(list)
        for row, digest in enumerate(digests):
            same[digest].append(row)
        for rows in same.values():
            _require_one(
                images, rows, [images.classes[images.labels[row]] for row in rows], "class"
            )
            _require_one(images, rows, [part.get(row, "") for row in rows], "part")
        return [rows for rows in same.values() if len(rows) > 1]

    return distinct


def tell_apart(images: Collection, parts: Parts, same: Sequence[Sequence[int]]) -> None:
    """Warn of the same bytes in two parts of a split that was drawn: what is trained on is tested.

    Args:
        same: rows that have the same bytes.
    """
    if not same:
        return
    part = {row: name for name, rows in parts.items() for row in rows.tolist()}
    used = [[row for row in rows if row in part] for rows in same]
    apart = [rows for rows in used if len({part[row] for row in rows}) > 1]
    if apart:
        first, *others = apart[0]
        other = next(row for row in others if part[row] != part[first])
        what = "group of images is" if len(apart) == 1 else "groups of images are"
        log.warning(
            "WARNING: %d %s the same, byte for byte, in several parts:\n"
            "%s (%s) and %s (%s) for one.\nAccuracies are too high by them. Remove all but one of "
            "each; they are listed by:\n  %s", len(apart), what,
            ascii(images.files[first])[1:-1], part[first], ascii(images.files[other])[1:-1],
            part[other], audit_command("folder", Path(images.place)),
        )  # fmt: skip


def _require_one(images: Collection, rows: list[int], kinds: list[str], kind: str) -> None:
    if len(set(kinds)) > 1:
        other = next(place for place, name in enumerate(kinds) if name != kinds[0])
        raise InputError(
            f"{images.place}: {images.files[rows[0]]} and {images.files[rows[other]]} are the same "
            f"image, byte for byte, in the {kind} {kinds[0]} and in the {kind} {kinds[other]}. "
            "Remove one of the two. To find all of them, type "
            f"{audit_command('folder', Path(images.place))}"
        )


def _parts(root: Path, folders: Sequence[Path]) -> list[tuple[Path, str]]:
    """The folders that are parts, and of which; none if `root` holds classes."""
    parts = [(path, NAMED[path.name.lower()]) for path in folders if path.name.lower() in NAMED]
    counts = Counter(part for _, part in parts)
    if len(counts) > 1 and "train" not in counts:
        names = " and ".join(path.name for path, _ in parts)
        raise InputError(
            f"{root} has the folders {names}, as a data set in parts has, and none for training. "
            "Name one of them train, or rename those if they are classes."
        )
    if "train" not in counts or (len(counts) == 1 and len(folders) > 1):
        return []
    if len(parts) < len(folders):
        others = ", ".join(path.name for path in folders if path.name.lower() not in NAMED)
        raise InputError(
            f"{root} has the folders {', '.join(path.name for path, _ in parts)}, as a data set in "
            f"parts has, and {others} beside them. Move these out, or rename those if they are "
            "classes."
        )
    if twice := [part for part, count in counts.items() if count > 1]:
        names = " and ".join(path.name for path, part in parts if part == twice[0])
        raise InputError(f"{root} has {names}, which are both for {twice[0]}. Keep one of them.")
    return parts


def below(folder: Path, root: Path, stray: list[str], above: Sequence[Path]) -> list[str]:
    """All images in a folder and below it, files first, by their names from `root`; the others are
    added to `stray`. Links to folders are followed, but in no circle."""
    own, files, folders = folder.resolve(), [], []
    for path in in_order(folder):
        if is_hidden(path.name) or (
            path.is_dir() and path.resolve() in (own, *above, *own.parents)
        ):
            stray.append(named(path, root))
        elif path.is_dir():
            folders.append(path)
        elif _is_image(path):
            files.append(str(path.relative_to(root)))
        else:
            stray.append(named(path, root))
    for path in folders:
        files += below(path, root, stray, (*above, own))
    return files


def _is_image(path: Path) -> bool:
    """By its name, or else by its first bytes; a link to nothing counts by its name."""
    if path.name.endswith(OVERLAY):
        return False
    if path.suffix.lower() in SUFFIXES:
        return True
    if not path.is_file():
        return False
    try:
        with Image.open(path, formats=FORMATS):
            return True
    except UnidentifiedImageError:
        return False
    except OSError as error:
        if error.filename is None:
            return False
        raise
    except Exception:  # Pillow raises many types for a broken image, which its name does not claim
        return False
