"""What is wrong with a data set: `python -m caltech.data audit` reads it all and changes nothing.

Corrupt files, stray files, exact duplicates and near duplicates across the splits, class counts.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import combinations, islice, product
from pathlib import Path

import imagehash
import numpy as np
from PIL import Image
from torch import Tensor, get_num_threads

from caltech.amounts import counted
from caltech.data import pixels
from caltech.data.dataset import Collection
from caltech.waiting import counting

NEAR_BITS = 4  # of the 64 of a perceptual hash: images that differ in more are not called near
SIDE = 256  # as training sees them: short side of the images that are compared
SHOWN = 10  # of each kind, and of the files of a group


@dataclass(frozen=True)
class Findings:
    """Names are `category/file`, of a folder `name/`; a pair's files are in different parts.

    Pairs are as many as the square of the images if these are all alike: they are counted, and the
    first SHOWN of them are here.
    """

    images: int
    per_class: dict[str, int]
    stray: tuple[str, ...]
    corrupt: tuple[str, ...]  # with the reason
    exact: tuple[tuple[str, ...], ...]  # groups of files with the same bytes
    exact_across: tuple[tuple[str, str], ...]
    exact_pairs: int
    near_across: tuple[tuple[str, str, int], ...]  # and the bits that differ: the fewest first
    near_pairs: int


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
    total = len(images.files)
    with ThreadPoolExecutor(get_num_threads()) as pool:
        each = pool.map(partial(_digests, read), range(total))
        told = counting(each, total, "reading images", "images")
        found = dict(zip(images.files, told, strict=True))
    same, alike = defaultdict(list), defaultdict(list)
    for file, (sha, bits, _) in found.items():
        same[sha].append(file)
        if bits is not None:
            alike[bits].append(file)
    groups = [tuple(group) for group in same.values() if len(group) > 1]
    exact_pairs, exact_across = _exact(groups, part)
    of = {file: (part.get(file, ""), sha) for file, (sha, _, _) in found.items()}
    near_pairs, near_across = _near(alike, of)
    return Findings(
        images=total,
        per_class=dict(Counter(images.classes[label] for label in images.labels)),
        stray=tuple(stray),
        corrupt=tuple(f"{file}: {why}" for file, (_, _, why) in found.items() if why),
        exact=tuple(groups),
        exact_across=exact_across,
        exact_pairs=exact_pairs,
        near_across=near_across,
        near_pairs=near_pairs,
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
        ("near duplicate", "", f"in different splits (at most {NEAR_BITS} of 64 bits)"): (
            findings.near_across
        ),
    }
    of_pairs = {"pair": findings.exact_pairs, "near duplicate": findings.near_pairs}
    for (*noun, what), found in kinds.items():
        count = of_pairs.get(noun[0], len(found))
        lines.append(f"{counted(count, *noun)} {what}")
        lines += [f"    {_shown(one)}" for one in found[:SHOWN]]
        if count > SHOWN:
            lines.append(f"    and {count - SHOWN} more")
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


def _exact(
    groups: Sequence[Sequence[str]], part: Mapping[str, str]
) -> tuple[int, tuple[tuple[str, str], ...]]:
    """How many pairs of a group are in different parts, and the first of them."""
    counts = [_across(Counter(map(part.get, group)).values()) for group in groups]
    pairs = (
        (one, other)
        for group, count in zip(groups, counts, strict=True)
        if count
        for one, other in combinations(group, 2)
        if part.get(one) != part.get(other)
    )
    return sum(counts), tuple(islice(pairs, min(SHOWN, sum(counts))))


def _across(sizes: Iterable[int]) -> int:
    """Pairs of files in different parts, of how many files each part has."""
    sizes = [*sizes]
    return (sum(sizes) ** 2 - sum(size**2 for size in sizes)) // 2


def _near(
    alike: Mapping[int, Sequence[str]], of: Mapping[str, tuple[str, str]]
) -> tuple[int, tuple[tuple[str, str, int], ...]]:
    """Pairs in different parts and of other bytes whose hashes differ in at most NEAR_BITS.

    Files of one hash are compared once, for all of them.

    Args:
        alike: files by their hash.
        of: a file's part and SHA-256.

    Returns:
        How many there are, and the first of them with the bits that differ, the fewest first.
    """
    table, groups = np.array([*alike], np.uint64), [*alike.values()]
    columns = {name: column for column, name in enumerate({part for part, _ in of.values()})}
    sizes = np.zeros((len(groups), len(columns)), np.int64)  # files of each part with each hash
    for row, group in enumerate(groups):
        for file in group:
            sizes[row, columns[of[file][0]]] += 1
    count, first = 0, [[] for _ in range(NEAR_BITS + 1)]  # by the bits that differ
    for row, group in enumerate(counting(groups, len(groups), "comparing images", "images")):
        distances = np.bitwise_count(table[row:] ^ table[row])
        others = np.flatnonzero(distances <= NEAR_BITS)  # the first is the row itself
        distances, there = distances[others], sizes[row + others]
        pairs = sizes[row].sum() * there.sum(1) - there @ sizes[row]
        pairs[0] = pairs[0] // 2 - _same_bytes(group, of)
        count += int(pairs.sum())
        is_wanted = np.array([len(found) < SHOWN for found in first])
        for place in np.flatnonzero((pairs > 0) & is_wanted[distances]):
            found = first[distances[place]]
            apart = _apart(group, groups[row + others[place]], of)
            found += islice(apart, min(SHOWN - len(found), int(pairs[place])))
    return count, tuple(
        [(*pair, bits) for bits, found in enumerate(first) for pair in found][:SHOWN]
    )


def _same_bytes(group: Sequence[str], of: Mapping[str, tuple[str, str]]) -> int:
    """Pairs in different parts that are of the same bytes."""
    sizes: dict[str, Counter[str]] = defaultdict(Counter)
    for part, sha in map(of.get, group if len(group) > 1 else ()):
        sizes[sha][part] += 1
    return sum(_across(each.values()) for each in sizes.values())


def _apart(
    one: Sequence[str], other: Sequence[str], of: Mapping[str, tuple[str, str]]
) -> Iterator[tuple[str, ...]]:
    """Pairs of a file of `one` and a file of `other`, or of two of `one` if that is `other`, too,
    in different parts and of other bytes. To come to the next one takes no search."""
    left, right = _by_part(one, of), _by_part(other, of)
    for part, beside in combinations(left, 2) if one is other else product(left, right):
        if part == beside:
            continue
        for (sha, files), (another, their) in product(left[part].items(), right[beside].items()):
            if sha != another:
                yield from map(tuple, map(sorted, product(files, their)))


def _by_part(
    group: Sequence[str], of: Mapping[str, tuple[str, str]]
) -> Mapping[str, Mapping[str, Sequence[str]]]:
    """Files of the same bytes, of each part."""
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for file in group:
        part, sha = of[file]
        found[part][sha].append(file)
    return found


def _shown(one: str | tuple[str | int, ...]) -> str:
    values = (one,) if isinstance(one, str) else one
    more = f"  and {len(values) - SHOWN} more" if len(values) > SHOWN else ""
    named = (ascii(v)[1:-1] if isinstance(v, str) else f"{v} bits" for v in values[:SHOWN])
    return "  ".join(named) + more
