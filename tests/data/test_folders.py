"""Which files are images of a category, and what is said of all others and of a wrong data.root."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from caltech.data import download
from caltech.data.folders import CALTECH101, list_images, listing, tell_strays
from caltech.data.sources import caltech101
from caltech.errors import InputError

AUDIT = "caltech audit data=caltech101 data.root=/images"


@pytest.fixture
def images(root: Path) -> Path:
    return root / CALTECH101


@pytest.mark.parametrize(
    "name",
    [".ipynb_checkpoints", "__MACOSX", ".git", "@eaDir", "lost+found", "$RECYCLE.BIN", "#recycle"],
)
def test_hidden_and_system_folders_are_no_classes(images, caplog, name):
    before = list_images(images)
    shutil.copytree(images / "ant", images / name)
    shutil.copytree(images / "ant", images / "bee" / name)
    found = listing(images)
    assert found.files == before
    assert sorted(found.stray) == sorted([f"{name}/", f"bee/{name}/"])
    tell_strays(images, found.stray, AUDIT)
    assert "2 files or folders are no images of a category and are not read" in caplog.text


@pytest.mark.parametrize(
    "name", ["._image_0001.jpg", ".image.jpg", "Thumbs.db", "x.webp", "list", "a.jpg.gradcam.png"]
)
def test_other_files_are_no_images_and_are_told(images, name):
    before = list_images(images)
    (images / "ant" / name).write_bytes((images / "ant" / "image_0001.jpg").read_bytes())
    (images / "notes.txt").touch()
    found = listing(images)
    assert (found.files, found.stray) == (before, [f"ant/{name}", "notes.txt"])


def test_what_lies_in_the_background_is_no_warning(images, caplog):
    (images / "BACKGROUND_Google").mkdir()
    (images / "BACKGROUND_Google" / "tmp").touch()
    tell_strays(images, listing(images).stray, AUDIT)
    assert caplog.text == ""


def test_a_warning_is_in_80_columns_and_of_one_file_or_of_several(images, caplog):
    (images / "ant" / "x.webp").touch()
    tell_strays(images, listing(images).stray, AUDIT)
    first, *lines = caplog.messages[-1].splitlines()
    assert first == f"{images}:" and max(map(len, lines)) <= 80
    assert lines[:2] == [
        "1 file or folder is no image of a category and is not read:",
        "ant/x.webp",
    ]
    assert lines[2:] == ["data=folder reads .webp, too.", "All are listed by:", f"  {AUDIT}"]
    for number in range(7):
        (images / "ant" / f"{'long-' * 12}{number}.txt").touch()
    tell_strays(images, listing(images).stray, AUDIT)
    assert max(map(len, caplog.messages[-1].splitlines()[1:])) <= 80
    assert caplog.messages[-1].splitlines()[1].startswith("8 files or folders are no images")


def test_upper_case_suffixes_are_images(images):
    path = images / "ant" / "image_0001.jpg"
    path.rename(path.with_suffix(".JPG"))
    assert list_images(images)[0] == "ant/image_0001.JPG"


@pytest.mark.parametrize("suffix", [".webp", ".bmp", ".gif", ".tif", ""])
def test_a_class_without_images_of_its_own_is_refused(images, suffix):
    """It would vanish, and each class after it would have another number."""
    (images / "cat").mkdir()
    Image.new("RGB", (8, 8)).save(images / "cat" / f"one{suffix}", format="PNG")
    kind = f"{suffix} file".strip()
    with pytest.raises(InputError, match=rf"{images}/cat has no \.jpg.*\(1 {kind}\).*JPEG or PNG"):
        list_images(images)


def test_a_class_that_is_empty_or_lies_deeper_is_refused(images):
    (images / "cat").mkdir()
    with pytest.raises(InputError, match=r"cat has no .*it is empty"):
        list_images(images)
    shutil.copytree(images / "ant", images / "cat" / "deeper")
    with pytest.raises(InputError, match=r"cat has no .*\(1 folder\)"):
        list_images(images)


def test_the_order_of_names_that_differ_in_case_only_is_one(images):
    shutil.copytree(images / "ant", images / "Bee")
    assert list_images(images)[8].startswith("Bee/") and list_images(images)[-1].startswith("bee/")


@pytest.fixture
def refusal(tmp_path):
    """What is said of a data.root, relative to tmp_path."""

    def told(root: str, download: bool | str = "auto") -> str:
        with pytest.raises(InputError) as error:
            caltech101(f"{tmp_path}/{root}", download, 72, 64, None, None, f"{tmp_path}/cache")
        assert not list(tmp_path.rglob("download.lock"))
        return str(error.value)

    return told


@pytest.mark.parametrize("place", ["a/root", "root/caltech101", f"root/{CALTECH101}", "a"])
def test_a_root_too_deep_or_too_high_is_told_the_right_one(tmp_path, refusal, place):
    right = "a/root" if place.startswith("a") else "root"
    (tmp_path / right / CALTECH101).mkdir(parents=True)
    (tmp_path / "a" / "root").mkdir(parents=True, exist_ok=True)
    if place == right:
        place = "a/root/.."
    assert f"{tmp_path / right} has it: type data.root=" in refusal(place)


def test_categories_in_a_folder_of_another_name_are_told(tmp_path, refusal):
    """As the official archive has them."""
    found = tmp_path / "root" / "caltech-101" / "101_ObjectCategories"
    found.mkdir(parents=True)
    for place in ("root", "root/caltech-101", "root/caltech-101/101_ObjectCategories"):
        said = refusal(place)
        assert f"rename {found.parent} to {tmp_path}/root/caltech101 and type" in said
        assert f"data.root={tmp_path}/root." in said


def test_another_root_is_told_what_it_has_and_nothing_is_downloaded_there(tmp_path, refusal):
    for name in ("cats", "dogs"):
        (tmp_path / "root" / name).mkdir(parents=True)
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    assert "root has cats/, dogs/. Type data.root=FOLDER" in refusal("root")
    assert "caltech train data.download=true downloads it" in refusal("root", False)
    assert "file is a file." in refusal("file") and "data.download" not in refusal("file")
    assert "empty has nothing." in refusal("empty")
    assert "nowhere does not exist." in refusal("nowhere")
    assert "data.download=yes is not allowed" in refusal("root", "yes")


def test_a_download_goes_into_the_cache_or_where_it_is_told(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(download, "caltech101", lambda *given: asked.append(given[1]))
    for root, word in (("cache/datasets", "auto"), ("root", "auto"), ("root", True)):
        with pytest.raises(InputError):
            caltech101(f"{tmp_path}/{root}", word, 72, 64, None, None, f"{tmp_path}/cache")
    assert asked == [True, False, True]


def test_another_word_is_refused_also_where_nothing_is_missing(tree, tmp_path):
    with pytest.raises(InputError, match=r"download=maybe is not .* Type data\.download=auto"):
        caltech101(str(tree), "maybe", 72, 64, None, None, str(tmp_path))
