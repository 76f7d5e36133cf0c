"""What the audit finds, and its command."""

import hashlib
import re
import runpy
import shutil
import sys
import time
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import ExifTags, Image

from caltech.data import folders, library
from caltech.data.audit import NEAR_BITS, SHOWN, Findings, _digests, audit, of_files, report
from caltech.data.dataset import Collection
from caltech.data.folders import list_images
from caltech.data.sources import caltech101
from caltech.data.split import OWN, Files, Split


def ant(root: Path, number: int) -> Path:
    return root / "caltech101" / "101_ObjectCategories" / "ant" / f"image_{number:04d}.jpg"


def audited(folder: Path, split: Split) -> Findings:
    listed = folders.listing(folder)
    images = folders.collection(folder, listed)
    return audit(images, split.parts(images), listed.stray, of_files(images, False))


def test_it_finds_what_was_put_there(root):
    folder = root / "caltech101" / "101_ObjectCategories"
    (folder / "bee" / "image_0001.jpg").write_bytes(ant(root, 1).read_bytes())  # test, and 9: test
    (folder / "bee" / "image_0003.jpg").write_bytes(ant(root, 1).read_bytes())  # 10: train
    with Image.open(ant(root, 4)) as image:  # 3: test
        image.save(ant(root, 6), quality=60)  # 5: train
    ant(root, 7).write_bytes(b"\xff\xd8")
    (folder / "notes.txt").write_text("x")
    (folder / ".ipynb_checkpoints").mkdir()
    (folder / "bee" / "image.webp").touch()
    found = audited(folder, OWN)
    assert (found.images, found.per_class) == (16, {"ant": 8, "bee": 8})
    assert found.stray == (".ipynb_checkpoints/", "bee/image.webp", "notes.txt")
    assert [one.split(":")[0] for one in found.corrupt] == ["ant/image_0007.jpg"]
    copies = ("ant/image_0001.jpg", "bee/image_0001.jpg", "bee/image_0003.jpg")
    assert found.exact == (copies,)
    assert all(pair[0] in copies and pair[1] in copies for pair in found.exact_across)
    assert 1 <= len(found.exact_across) < 3
    near = {pair[:2] for pair in found.near_across}
    assert ("ant/image_0004.jpg", "ant/image_0006.jpg") in near
    assert not near & set(found.exact_across)
    assert "3 stray files or folders (not read)" in report(found)


def test_lists_are_the_split(root):
    """The same copies as above, in one part."""
    folder = root / "caltech101" / "101_ObjectCategories"
    (folder / "bee" / "image_0003.jpg").write_bytes(ant(root, 1).read_bytes())
    names = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.jpg"))]
    parts = {"train": names[1:8], "test": [names[0], *names[8:]]}
    for part, files in parts.items():
        (root / part).write_text("\n".join(files))
    found = audited(folder, Files(str(root / "train"), None, str(root / "test")))
    assert len(found.exact) == 1 and not found.exact_across


def picture(noise: int) -> np.ndarray:
    """The same one but for some noise, which changes few bits of its hash."""
    rows, columns = np.mgrid[:32, :32]
    grey = 120 + 60 * np.sin(rows / 5) + 40 * np.cos(columns / 4)
    grey = grey + np.random.default_rng(noise).normal(0, 4, grey.shape)
    return grey[..., None].repeat(3, 2).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("seed", range(4))
def test_pairs_are_those_that_a_look_at_each_of_them_finds(seed):
    """Of files with equal and nearly equal pictures, some with the same bytes."""
    chance = np.random.default_rng(seed)
    noises, coded = chance.integers(0, 12, 40), chance.integers(0, 3, 40)
    files = [f"a/{row:03d}" for row in range(40)]
    images = Collection("", files, [0] * 40, ["a"])
    parts = {"train": torch.arange(0, 20), "test": torch.arange(20, 36)}  # and four in none

    def read(row: int) -> tuple[bytes, np.ndarray]:
        return f"{noises[row]} {coded[row]}".encode(), picture(noises[row])

    found = audit(images, parts, (), read)
    told = [_digests(read, row) for row in range(40)]
    part = [("train", "test", "")[(row >= 20) + (row >= 36)] for row in range(40)]
    apart = [pair for pair in combinations(range(40), 2) if part[pair[0]] != part[pair[1]]]
    same = [pair for pair in apart if told[pair[0]][0] == told[pair[1]][0]]
    bits = {pair: (told[pair[0]][1] ^ told[pair[1]][1]).bit_count() for pair in apart}
    near = sorted(bits[pair] for pair in {*apart} - {*same} if bits[pair] <= NEAR_BITS)
    assert found.exact_pairs == len(same) > 0
    assert {(files[a], files[b]) for a, b in same} >= {*found.exact_across}
    assert len({*found.exact_across}) == min(SHOWN, len(same))
    assert found.near_pairs == len(near) > SHOWN == len({*found.near_across})
    assert [pair[2] for pair in found.near_across] == near[:SHOWN]
    rows = [(files.index(one), files.index(other), own) for one, other, own in found.near_across]
    assert all(bits[a, b] == own and (a, b) not in same for a, b, own in rows)


@pytest.mark.parametrize("recoded", [False, True])
def test_thousands_of_copies_take_no_more_than_to_read_them(monkeypatch, recoded):
    """They make eight million pairs, and are told in a few lines."""
    shown, count = picture(0), 6000
    bits = _digests(lambda row: (b"", shown), 0)[1]
    monkeypatch.setattr(
        "caltech.data.audit._digests",
        lambda read, row: (hashlib.sha256(b"%d" % (row * recoded)).hexdigest(), bits, ""),
    )
    images = Collection("", [f"a/{row:04d}.png" for row in range(count)], [0] * count, ["a"])
    parts = {"train": torch.arange(4000), "test": torch.arange(4000, count)}
    begun = time.process_time()
    found = audit(images, parts, (), lambda row: (b"", shown))
    said = report(found)
    assert time.process_time() - begun < 2  # to build the pairs takes ten seconds and a gigabyte
    assert (found.exact_pairs, found.near_pairs) == ((0, 8_000_000) if recoded else (8_000_000, 0))
    assert len(said) < 1500 and "and 7999990 more" in said
    assert recoded or "a/0009.png  and 5990 more\n" in said


def test_images_are_compared_as_training_turns_them(tmp_path, monkeypatch, capsys):
    """The same picture upright, and lying with the word of EXIF that it does."""
    turned = Image.Exif()
    turned[ExifTags.Base.Orientation] = 6
    for name in "ab":
        pixels = np.random.default_rng(ord(name)).integers(0, 255, (6, 8, 3), dtype=np.uint8)
        image = Image.fromarray(pixels).resize((96, 64), Image.Resampling.BILINEAR)
        for part in ("train", "test"):
            (tmp_path / part / name).mkdir(parents=True)
        image.save(tmp_path / "train" / name / "i.png")
        lying = image.transpose(Image.Transpose.ROTATE_90)
        lying.save(tmp_path / "test" / name / "i.jpg", exif=turned, quality=95)
    words = ("audit", "data=folder", f"data.root={tmp_path}")
    for upright, found in (("false", 0), ("true", 2)):
        assert run(monkeypatch, *words, f"data.upright={upright}") == 0
        assert f"{found} near duplicates in different splits" in capsys.readouterr().out


def run(monkeypatch, *arguments: str) -> int:
    """The exit code of `python -m caltech.data ARGUMENTS`, run in this process."""
    monkeypatch.setattr(sys, "argv", ["caltech.data", *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("caltech.data", run_name="__main__")
    return ended.value.code


def test_images_changed_with_equal_size_and_time_are_found(root, tmp_path, monkeypatch, capsys):
    """As a failing disk changes them: below the file system, which notes every other change."""
    own = [f"data.root={root}", f"data.cache={tmp_path}/cache", "data.resize=72", "data.crop=64"]
    assert run(monkeypatch, "verify", *own) == 0
    assert "no run has read these images as they are now" in capsys.readouterr().out
    caltech101(str(root), False, 72, 64, None, None, f"{tmp_path}/cache").complete()
    assert run(monkeypatch, "verify", *own) == 0
    assert "unchanged: as" in capsys.readouterr().out
    kept = next((tmp_path / "cache" / "digests").iterdir())
    shutil.copyfile(ant(root, 3), ant(root, 2))
    images = root / "caltech101" / "101_ObjectCategories"
    kept.rename(folders.kept_digest(images, list_images(images), tmp_path / "cache"))
    assert run(monkeypatch, "verify", *own) == 1
    said = capsys.readouterr().out
    assert "CHANGED with equal sizes and times" in said
    assert said.count("other pixels") == 1 and "ant/image_0002.jpg" in said


def test_the_command(root, monkeypatch, capsys):
    assert run(monkeypatch, "audit", f"data.root={root}") == 0
    assert "16 images in 2 classes; 8 in each\n" in capsys.readouterr().out
    ant(root, 2).write_bytes(b"")
    assert run(monkeypatch, "audit", f"data.root={root}") == 1
    said = capsys.readouterr().out
    assert "1 file that cannot be read as an image\n    ant/image_0002.jpg" in said
    ant(root, 2).unlink()
    assert run(monkeypatch, "audit", f"data.root={root}") == 0


def test_a_folder_of_one_s_own_is_audited(root, monkeypatch, capsys):
    images = root / "caltech101" / "101_ObjectCategories"
    shutil.copy(ant(root, 3), images / "bee" / "copy.jpg")  # which a run refuses
    (images / "bee" / "deeper").mkdir()
    shutil.move(ant(root, 1), images / "bee" / "deeper" / "a.jpg")
    assert run(monkeypatch, "audit", "data=folder", f"data.root={images}") == 0
    said = capsys.readouterr().out
    assert "17 images in 2 classes; 7 ('ant') to 10 ('bee')" in said
    assert "1 group of files with the same bytes\n    ant/image_0003.jpg  bee/copy.jpg" in said


def test_a_plugin_s_function_of_the_same_name_is_no_folder():
    given = OmegaConf.create({"_target_": "mine.folder", "root": "/nowhere"})
    assert runpy.run_module("caltech.data", run_name="read")["_files_of"](given) is None


def test_a_set_without_files_is_audited(monkeypatch, capsys, tmp_path):
    fake = {"": {"size": 24, "image_size": (3, 20, 20), "num_classes": 2}}
    monkeypatch.setitem(library.SETS, "FakeData", fake)
    own = ["data=torchvision", "data.name=FakeData", f"cache={tmp_path}", "data.resize=16"]
    assert run(monkeypatch, "audit", *own, "data.crop=16") == 0
    assert "24 images in 2 classes" in capsys.readouterr().out
    assert run(monkeypatch, "verify", "data=digits") == 1
    assert "verify compares image files with the caches" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("data=folder", r"error: Type data\.root=DIR: the folder that has a folder of images"),
        ("data.root=/nowhere", "/nowhere/caltech101/101_ObjectCategories is no folder."),
        ("data=nothing", "error: data=nothing is no option: it is one of"),
    ],
)
def test_the_commands_without_files_to_read(monkeypatch, capsys, override, said):
    for command in ("audit", "verify"):
        assert run(monkeypatch, command, override) == 1
        assert re.search(said, capsys.readouterr().err, re.DOTALL)
