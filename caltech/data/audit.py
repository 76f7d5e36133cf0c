"""What is wrong with a data set: `python -m caltech.data audit` reads it all and changes nothing.

Corrupt files, stray files, exact duplicates and near duplicates across the splits, class counts.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path

import imagehash
import numpy as np
from PIL import Image
from torch import Tensor, get_num_threads
from tqdm import tqdm

from caltech.amounts import counted
from caltech.data import pixels
from caltech.data.dataset import Collection

NEAR_BITS = 4  # of the 64 of a perceptual hash: images that differ in more are not called near
SIDE = 256  # as training sees them: short side of the images that are compared
SHOWN = 10  # of each kind


@dataclass(frozen=True)
class Findings:
    """Names are `category/file`, of a folder `name/`; a pair's files are in different parts."""

    images: int
    per_class: dict[str, int]
    stray: tuple[str, ...]
    corrupt: tuple[str, ...]  # with the reason
    exact: tuple[tuple[str, ...], ...]  # groups of files with the same bytes
    exact_across: tuple[tuple[str, str], ...]
    near_across: tuple[tuple[str, str, int], ...]  # and the bits that differ


Read = Callable[[int], tuple[bytes, np.ndarray]]  # of a row: bytes, and pixels (S, S, 3) uint8


def audit(
    images: Collection, parts: Mapping[str, Tensor], stray: Sequence[str], read: Read
) -> Findings:
    """Read every image of a data set.

    Args:
        parts: indices, by their names.
        stray: what lies there and is no image of it.
        read: raises whatever it likes for an image that cannot be read.
    """
    part = {images.files[i]: name for name, rows in parts.items() for i in rows.tolist()}
    with ThreadPoolExecutor(get_num_threads()) as pool:
        each = pool.map(partial(_digests, read), range(len(images.files)))
        bar = tqdm(each, total=len(images.files), desc="reading images", disable=None)
        found = dict(zip(images.files, bar, strict=True))
    groups = defaultdict(list)
    for file, (sha, _, _) in found.items():
        groups[sha].append(file)
    same = [tuple(group) for group in groups.values() if len(group) > 1]
    hashes = {file: bits for file, (_, bits, _) in found.items() if bits is not None}
    return Findings(
        images=len(images.files),
        per_class=dict(Counter(images.classes[label] for label in images.labels)),
        stray=tuple(stray),
        corrupt=tuple(f"{file}: {why}" for file, (_, _, why) in found.items() if why),
        exact=tuple(same),
        exact_across=tuple(
            (one, other)
            for group in same
            for one, other in combinations(group, 2)
            if part.get(one) != part.get(other)
        ),
        near_across=tuple(
            (one, other, bits)
            for one, other, bits in _near(hashes)
            if part.get(one) != part.get(other) and found[one][0] != found[other][0]
        ),
    )


def report(findings: Findings) -> str:
    """For people: counts, and the first few names of each kind, escaped."""
    counts = sorted(findings.per_class.items(), key=lambda item: item[1])
    (least, few), (most, many) = counts[0], counts[-1]
    span = f"{few} in each" if few == many else f"{few} ({least!a}) to {many} ({most!a})"
    classes = counted(len(counts), "class", "classes")
    lines = [f"{counted(findings.images, 'image')} in {classes}; {span}"]
    kinds = {
        ("file", "", "that cannot be read as an image"): findings.corrupt,
        ("stray file or folder", "stray files or folders", "(not read)"): findings.stray,
        ("group", "", "of files with the same bytes"): findings.exact,
        ("pair", "", "with the same bytes in different splits"): findings.exact_across,
        ("near duplicate", "", f"in different splits (at most {NEAR_BITS} of 64 bits)"): sorted(
            findings.near_across, key=lambda pair: pair[2]
        ),
    }
    for (*noun, what), found in kinds.items():
        lines.append(f"{counted(len(found), *noun)} {what}")
        lines += [f"    {_shown(one)}" for one in found[:SHOWN]]
        if len(found) > SHOWN:
            lines.append(f"    and {len(found) - SHOWN} more")
    return "\n".join(lines)


def of_files(images: Collection, upright: bool) -> Read:
    """What reads the files of a collection, as training sees them: turned as EXIF says, or not."""

    def read(row: int) -> tuple[bytes, np.ndarray]:
        path = Path(images.place) / images.files[row]
        return path.read_bytes(), pixels.decode(path, SIDE, upright)

    return read


def _digests(read: Read, row: int) -> tuple[str, int | None, str]:
    """SHA-256 of the bytes, perceptual hash of the image or None, and why it cannot be read."""
    try:
        content, decoded = read(row)
    except Exception as error:  # Pillow raises many types for a broken image
        return f"row {row}", None, str(error) or type(error).__name__
    bits = imagehash.phash(Image.fromarray(decoded)).hash.flatten()
    return hashlib.sha256(content).hexdigest(), int(np.packbits(bits).view(np.uint64)[0]), ""


def _near(hashes: Mapping[str, int]) -> Iterator[tuple[str, str, int]]:
    """Pairs of files whose hashes differ in at most NEAR_BITS, and in how many."""
    files, table = list(hashes), np.array([*hashes.values()], np.uint64)
    for row, file in enumerate(files):
        distances = np.bitwise_count(table[row + 1 :] ^ table[row])
        for other in np.flatnonzero(distances <= NEAR_BITS):
            yield file, files[row + 1 + other], int(distances[other])


def _shown(one: str | tuple[str | int, ...]) -> str:
    values = (one,) if isinstance(one, str) else one
    return "  ".join(ascii(v)[1:-1] if isinstance(v, str) else f"{v} bits" for v in values)
