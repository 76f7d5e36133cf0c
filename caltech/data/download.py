"""Fetching Caltech-101: torchvision's archive and checksum, extracted without trusting it."""

import shutil
import tarfile
import tempfile
import zipfile
from pathlib import Path

from filelock import FileLock

from caltech import fetching
from caltech.data import folders
from caltech.errors import InputError

# As in torchvision.datasets.Caltech101.
URL = "https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip"
MD5 = "3138e1922a9193bfa496528edbbc45d0"
INNER = "caltech-101/101_ObjectCategories.tar.gz"
MAX_BYTES = 1 << 30  # extracted, Caltech-101 has 0.14 GB


def caltech101_images(root: str) -> Path:
    """Where the category folders are."""
    return Path(root).expanduser() / folders.CALTECH101


def caltech101_at(root: str, download: bool | str, cache: Path) -> Path:
    """Where the category folders are, downloaded if they are to be.

    Raises:
        InputError: as caltech101, or `download` is no word for it, also where nothing is missing.
    """
    images = caltech101_images(root)
    wanted = is_wanted(download, Path(root).expanduser() == cache / "datasets")
    if not images.is_dir():
        caltech101(images, wanted)
    return images


def caltech101(images: Path, download: bool) -> None:
    """Put the images at `images` (.../caltech101/101_ObjectCategories), all of them or none.

    Raises:
        InputError: `download` is off, there is no network, or the archive is not the known one.
            It says what is there instead.
    """
    from torchvision.datasets.utils import download_url

    if not download:
        told = folders.explain_absence(images.parent.parent)
        raise InputError(f"{images} does not exist. {told}")
    fetching.begin(f"Caltech-101 is not in {images} and would be downloaded there first")
    folder = images.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "download.lock"):
            if images.is_dir():
                return  # another process has fetched it while this one waited
            download_url(URL, str(folder), "caltech-101.zip", MD5)
            extract(folder / "caltech-101.zip", images)
    except (OSError, RuntimeError) as error:  # URLError is an OSError
        raise InputError(
            f"{images} does not exist, and {URL} could not be downloaded: {error}. "
            f"{folders.explain_absence(images.parent.parent)}"
        ) from error


def extract(archive: Path, images: Path) -> None:
    """Extract the inner archive's `101_ObjectCategories` of a downloaded zip file to `images`.

    Raises:
        InputError: it holds a link, an absolute path, a `..`, a device or too much.
    """
    for left in images.parent.glob(".extracting-*"):  # by a process that was killed
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(dir=images.parent, prefix=".extracting-") as folder:
        try:
            with (
                zipfile.ZipFile(archive) as outer,
                outer.open(INNER) as inner,
                tarfile.open(fileobj=inner, mode="r|gz") as tar,
            ):
                tar.extractall(folder, filter=_RefuseSurprises())
        except (tarfile.TarError, zipfile.BadZipFile, KeyError) as error:
            raise InputError(
                f"{archive} is not extracted: {error}. Delete it and try again."
            ) from error
        shutil.move(Path(folder) / images.name, images)


class _RefuseSurprises:
    """tarfile's data filter, which refuses paths that lead outside, and no links and no bombs."""

    def __init__(self) -> None:
        self.bytes_left = MAX_BYTES

    def __call__(self, member: tarfile.TarInfo, path: str) -> tarfile.TarInfo:
        if not (member.isfile() or member.isdir()):
            raise tarfile.FilterError(f"{member.name!r} is a link or a device")
        if member.name.startswith("/") or ".." in Path(member.name).parts:
            raise tarfile.FilterError(f"{member.name!r} leads outside")
        self.bytes_left -= member.size
        if self.bytes_left < 0:
            raise tarfile.FilterError(f"it holds more than {MAX_BYTES} bytes")
        return tarfile.data_filter(member, path)


def is_wanted(download: bool | str, is_own_place: bool) -> bool:
    """What data.download= says of a place that has no images; InputError for another word."""
    if download not in (True, False, "auto"):
        raise InputError(
            f"data.download={download} is not allowed: it is auto (only into the cache), true or "
            "false. Type data.download=auto."
        )
    return is_own_place if download == "auto" else bool(download)
