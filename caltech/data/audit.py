"""What is wrong with the images: `python -m caltech.data audit` reads them all and changes nothing.

Corrupt files, stray files, exact duplicates and near duplicates across the splits, class counts.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import imagehash
import numpy as np
from PIL import Image
from torch import get_num_threads
from tqdm import tqdm

from caltech.data import folders, pixels, split
from caltech.errors import InputError

NEAR_BITS = 4  # of the 64 of a perceptual hash: images that differ in more are not called near
SIDE = 256  # as training sees them: short side of the images that are compared
SHOWN = 10  # of each kind


@dataclass(frozen=True)
class Findings:
    """Names are `category/file`, of a folder `name/`; a pair's files are in different splits."""

    images: int
    per_class: dict[str, int]
    stray: tuple[str, ...]
    corrupt: tuple[str, ...]  # with the reason
    exact: tuple[tuple[str, ...], ...]  # groups of files with the same bytes
    exact_across: tuple[tuple[str, str], ...]
    near_across: tuple[tuple[str, str, int], ...]  # and the bits that differ


def audit(images: Path, train_files: str | None = None, test_files: str | None = None) -> Findings:
    """Read every image below `images` (.../101_ObjectCategories).

    Args:
        train_files: as data.train_files; with test_files, the split is theirs and not the rule's.

    Raises:
        InputError: there is none, or a folder cannot be read.
    """
    if not images.is_dir():
        told = folders.explain_absence(images.parent.parent)
        raise InputError(f"{images} is no folder. {told}")
    listed = folders.listing(images)
    files = listed.files
    parts = split.of(files, train_files, test_files)
    part = {files[i]: name for name, indices in parts.items() for i in indices.tolist()}
    with ThreadPoolExecutor(get_num_threads()) as pool:
        read = pool.map(_digests, [images / file for file in files])
        bar = tqdm(read, total=len(files), desc="reading images", disable=None)
        found = dict(zip(files, bar, strict=True))
    groups = defaultdict(list)
    for file, (sha, _, _) in found.items():
        groups[sha].append(file)
    same = [tuple(group) for group in groups.values() if len(group) > 1]
    hashes = {file: bits for file, (_, bits, _) in found.items() if bits is not None}
    return Findings(
        images=len(files),
        per_class=dict(Counter(file.split("/")[0] for file in files)),
        stray=tuple(listed.stray),
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
    lines = [
        f"{findings.images} images in {len(counts)} classes; {few} ({least!a}) to {many} ({most!a})"
    ]
    kinds = {
        "files that cannot be read as images": findings.corrupt,
        "stray files and folders (not read)": findings.stray,
        "groups of files with the same bytes": findings.exact,
        "pairs with the same bytes in different splits": findings.exact_across,
        f"near duplicates in different splits (at most {NEAR_BITS} of 64 bits)": sorted(
            findings.near_across, key=lambda pair: pair[2]
        ),
    }
    for kind, found in kinds.items():
        lines.append(f"{len(found)} {kind}")
        lines += [f"    {_shown(one)}" for one in found[:SHOWN]]
        if len(found) > SHOWN:
            lines.append(f"    and {len(found) - SHOWN} more")
    return "\n".join(lines)


def _digests(path: Path) -> tuple[str, int | None, str]:
    """SHA-256 of the bytes, perceptual hash of the image or None, and why it cannot be read."""
    try:
        sha = hashlib.sha256(path.read_bytes()).hexdigest()
        image = Image.fromarray(pixels.decode(path, SIDE))
    except Exception as error:  # Pillow raises many types for a broken image
        return str(path), None, str(error) or type(error).__name__
    bits = imagehash.phash(image).hash.flatten()
    return sha, int(np.packbits(bits).view(np.uint64)[0]), ""


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
