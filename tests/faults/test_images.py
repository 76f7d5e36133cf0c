"""Images, files and folders as they should not be: each works, or is one error that names it."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from caltech.data import pixels
from caltech.data.dataset import Dataset
from caltech.data.pixels import decode
from caltech.data.sources import caltech101
from caltech.errors import InputError
from tests.data.conftest import two_categories

GREY16 = (np.arange(80 * 80, dtype=np.uint16).reshape(80, 80) * 10).astype(np.uint16)


@pytest.fixture
def root(tmp_path) -> Path:
    return two_categories(tmp_path)


def load(root: Path) -> Dataset:
    data = caltech101(str(root), False, 40, 32, None, None, str(root / "cache"))
    data.complete()
    return data


def ant(root: Path, number: int = 2) -> Path:
    return root / "caltech101" / "101_ObjectCategories" / "ant" / f"image_{number:04d}.jpg"


def saved(path: Path, image: Image.Image, **how) -> None:
    with path.open("wb") as file:
        image.save(file, **how)


def white_is_zero(path: Path) -> None:
    saved(path, Image.fromarray(GREY16), format="TIFF")
    black_is_zero = b"\x06\x01\x03\x00\x01\x00\x00\x00\x01\x00"
    assert path.read_bytes().count(black_is_zero) == 1
    path.write_bytes(path.read_bytes().replace(black_is_zero, black_is_zero[:-2] + b"\x00\x00"))


RGB = Image.new("RGB", (80, 60), (200, 100, 50))
WORKING = {
    "greyscale": lambda path: saved(path, RGB.convert("L"), format="JPEG"),
    "CMYK": lambda path: saved(path, RGB.convert("CMYK"), format="JPEG"),
    "palette": lambda path: saved(path, RGB.convert("P"), format="PNG"),
    "transparent": lambda path: saved(path, RGB.convert("RGBA"), format="PNG"),
    "one bit": lambda path: saved(path, RGB.convert("1"), format="PNG"),
    "16 bit": lambda path: saved(path, Image.fromarray(GREY16), format="PNG"),
    "animated": lambda path: saved(
        path, RGB, format="GIF", save_all=True, append_images=[Image.new("RGB", (80, 60))]
    ),
    "PNG called JPEG": lambda path: saved(path, RGB, format="PNG"),
    "one pixel": lambda path: saved(path, RGB.resize((1, 1)), format="JPEG"),
}
REFUSED = {
    "zero bytes": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("no image"),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:600]),
    "PostScript": lambda path: path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
    "bomb": lambda path: saved(path, Image.new("1", (9000, 9000)), format="PNG"),
    "strip": lambda path: saved(path, Image.new("1", (1, 50_000)), format="PNG"),
    "16 bit, inverted": white_is_zero,
    "folder": lambda path: (path.unlink(), path.mkdir()),
    "link to itself": lambda path: (path.unlink(), path.symlink_to(path.name)),
    "link to nothing": lambda path: (path.unlink(), path.symlink_to("nothing")),
}


@pytest.mark.parametrize("kind", WORKING)
def test_images_that_work(root, kind):
    WORKING[kind](ant(root))
    data = load(root)
    assert data.pixels.shape == (16, 40, 40, 3)
    found = data.pixels[1].float()
    if kind == "16 bit":
        expected = np.linspace(GREY16[:, 0].min(), GREY16[:, 0].max(), 40) / 256
        assert np.abs(found[:, 20, 0].numpy() - expected).max() < 5  # and not cut off at 255
    elif kind not in ("greyscale", "one bit"):
        assert (found.mean((0, 1)).numpy() - (200, 100, 50)).__abs__().max() < 12


@pytest.mark.parametrize("kind", ["PNG", "PPM", "TIFF"])
def test_sixteen_bits_are_the_same_where_images_are_turned(tmp_path, kind):
    saved(tmp_path / "grey", Image.fromarray(GREY16), format=kind)
    plain, turned = (decode(tmp_path / "grey", 40, upright) for upright in (False, True))
    assert plain.max() > 200 and np.array_equal(plain, turned)


@pytest.mark.parametrize("kind", REFUSED)
def test_images_that_are_refused(root, kind):
    path = ant(root)
    if path.exists():
        REFUSED[kind](path)
    with pytest.raises(InputError, match=rf"{path}.*(Restore|move)"):
        load(root)
    assert not list((root / "cache").rglob("*.bin"))
    assert not list((root / "cache").rglob("*.partial"))


def test_names_of_all_kinds(root):
    folder = root / "caltech101" / "101_ObjectCategories"
    for name in (b"\xc3\xa9t\xc3\xa9 \xe8\x99\xab", b"not \xff utf-8", b"a'b\"c;$(d)"):
        renamed = (folder / "bee").rename(folder / os.fsdecode(name))
        assert len(load(root).labels) == 16
        renamed.rename(folder / "bee")


def test_folders_of_all_kinds(root, caplog):
    folder = root / "caltech101" / "101_ObjectCategories"
    (folder / "single").mkdir()
    saved(folder / "single" / "image_0001.jpg", RGB)
    (folder / "loop").symlink_to(folder)
    (folder / "itself").symlink_to("itself")
    (folder / "nowhere").symlink_to("nothing")
    (folder / "ant" / "deeper").mkdir()
    assert load(root).classes == ("ant", "bee", "single")
    assert "4 files or folders are no images of a category" in caplog.text
    assert "ant/deeper/, itself, loop, nowhere" in caplog.text


@pytest.fixture
def as_nobody() -> Iterator[None]:
    """Root may read everything."""
    if os.geteuid() == 0:
        os.seteuid(65534)
        yield
        os.seteuid(0)
    else:
        yield


def test_a_folder_that_may_not_be_read(as_nobody):
    with tempfile.TemporaryDirectory() as place:
        closed = Path(place) / "caltech101" / "101_ObjectCategories" / "closed"
        closed.mkdir(parents=True)
        closed.chmod(0)
        with pytest.raises(InputError, match=rf"{closed} cannot be read: Permission denied"):
            load(Path(place))
        closed.chmod(0o700)


@pytest.mark.parametrize("change", ["vanishes", "appears", "changes"])
def test_files_that_change_while_they_are_read(root, monkeypatch, change):
    decode = pixels.decode

    def decode_and_harm(path: Path, *how) -> np.ndarray:
        if change == "vanishes":
            ant(root, 8).unlink(missing_ok=True)
        else:
            saved(ant(root, 9 if change == "appears" else 1), RGB)
        return decode(path, *how)

    with monkeypatch.context() as patched:
        patched.setattr(pixels, "decode", decode_and_harm)
        patched.setattr(pixels.torch, "get_num_threads", lambda: 1)
        expected = ant(root, 8) if change == "vanishes" else "changed while it was read"
        with pytest.raises(InputError, match=str(expected)):
            load(root)
    assert not list((root / "cache").rglob("*.bin"))
    assert len(load(root).labels) == {"vanishes": 15, "appears": 17, "changes": 16}[change]
