"""Fetching Caltech-101 without trusting what comes."""

import functools
import http.server
import io
import tarfile
import threading
import zipfile
from pathlib import Path

import pytest

from caltech.data import download
from caltech.errors import InputError


def images(root: Path) -> Path:
    return root / "caltech101" / "101_ObjectCategories"


def test_missing_data_and_no_download(tmp_path):
    with pytest.raises(InputError, match=r"does not exist.*data\.root=FOLDER.*data=digits"):
        download.caltech101(images(tmp_path / "nowhere"), download=False)
    assert not (tmp_path / "nowhere").exists()


def test_missing_data_and_no_network(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "URL", "http://127.0.0.1:9/caltech-101.zip")
    with pytest.raises(InputError, match=r"could not be downloaded.*CALTECH101_ROOT"):
        download.caltech101(images(tmp_path), download=True)


def test_a_download_with_another_checksum_is_refused(tmp_path, monkeypatch):
    (tmp_path / "caltech-101.zip").write_bytes(b"not the archive")
    handler = functools.partial(QuietHandler, directory=tmp_path)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/caltech-101.zip"
        monkeypatch.setattr(download, "URL", url)
        with pytest.raises(
            InputError, match="could not be downloaded: File not found or corrupted"
        ):
            download.caltech101(images(tmp_path / "root"), download=True)
        server.shutdown()
    assert not images(tmp_path / "root").exists()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def archive_of(path: Path, members: list[tarfile.TarInfo]) -> Path:
    inner = io.BytesIO()
    with tarfile.open(fileobj=inner, mode="w:gz") as tar:
        for member in members:
            tar.addfile(member, io.BytesIO(b"\0" * member.size) if member.isfile() else None)
    with zipfile.ZipFile(path, "w") as outer:
        outer.writestr(download.INNER, inner.getvalue())
    return path


def member(name: str, **changes) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size = 3
    for key, value in changes.items():
        setattr(info, key, value)
    return info


def test_archive_is_extracted(tmp_path):
    archive = archive_of(tmp_path / "a.zip", [member("101_ObjectCategories/ant/image_0001.jpg")])
    download.extract(archive, tmp_path / "101_ObjectCategories")
    assert (tmp_path / "101_ObjectCategories" / "ant" / "image_0001.jpg").stat().st_size == 3


@pytest.mark.parametrize(
    "harmful",
    [
        member("101_ObjectCategories/../../evil"),
        member("/tmp/evil"),
        member("101_ObjectCategories/link", type=tarfile.SYMTYPE, linkname="/etc/passwd", size=0),
        member("101_ObjectCategories/link", type=tarfile.LNKTYPE, linkname="a", size=0),
        member("101_ObjectCategories/pipe", type=tarfile.FIFOTYPE, size=0),
    ],
)
def test_harmful_archives_are_refused(tmp_path, harmful):
    archive = archive_of(tmp_path / "a.zip", [member("101_ObjectCategories/a"), harmful])
    with pytest.raises(InputError, match="is not extracted"):
        download.extract(archive, tmp_path / "101_ObjectCategories")
    assert [path.name for path in tmp_path.iterdir()] == ["a.zip"]


def test_archives_that_grow_too_much_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "MAX_BYTES", 5)
    archive = archive_of(tmp_path / "a.zip", [member("101_ObjectCategories/a"), member("b")])
    with pytest.raises(InputError, match="more than 5 bytes"):
        download.extract(archive, tmp_path / "101_ObjectCategories")
