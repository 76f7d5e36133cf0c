"""Files get the answers that the run's test gave to their images; broken ones get a reason."""

from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from caltech.data import own
from caltech.data.folders import list_images
from caltech.data.pixels import decode, enlarge
from caltech.inference import explain
from caltech.inference.image_files import absent, answers, expand
from caltech.inference.predictor import Predictor
from caltech.runs.directory import WEIGHTS, RunDirectory


@pytest.mark.parametrize("weights", WEIGHTS)
def test_a_run_s_own_test_files_get_its_stored_answers(finished, images, weights):
    predictor = Predictor.load(RunDirectory(finished), weights, "cpu")
    stored = np.load(predictor.directory.predictions(weights))
    files = list_images(images)
    tops = [a.top for a in answers(predictor, [images / files[i] for i in stored["indices"]])]
    expected = [predictor.classes[p] for p in stored["predictions"]]
    assert [top[0]["class"] for top in tops] == expected
    found = [top[0]["probability"] for top in tops]
    np.testing.assert_allclose(found, stored["confidences"], rtol=1e-4)
    assert predictor.network.views == ("plain", "mirrored")
    for top in tops:
        probabilities = [each["probability"] for each in top]
        assert probabilities == sorted(probabilities, reverse=True)
        assert sum(probabilities) == pytest.approx(1, abs=1e-5)


def test_files_folders_and_globs_each_once(tmp_path):
    hidden = ("._b.JPG", "@eaDir/b.JPG", "below/.thumbnails/d.png")
    for name in ("b.JPG", "a.png", "notes.txt", f"a.png{explain.OVERLAY}", "below/c.jpeg", *hidden):
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()

    def expanded(*given: str) -> list[str]:
        found = expand([str(tmp_path / text) for text in given])
        return [str(path.relative_to(tmp_path)) for path in found]

    assert expanded("") == ["a.png", "b.JPG", "below/c.jpeg"]
    assert expanded("*.png", "b.JPG", "a.png") == ["a.png", "b.JPG"]
    assert expanded("**/*.jpeg") == ["below/c.jpeg"]
    assert expanded("notes.txt", "missing.jpg") == ["notes.txt", "missing.jpg"]
    assert expanded("empty", "*.gif") == ["empty", "*.gif"]
    assert expand(["run=1.jpg"]) == [Path("run=1.jpg")]


def test_a_folder_s_images_are_those_that_training_reads_there(tmp_path):
    """Whatever their names, also behind links. A kind that training refuses is told."""
    image = Image.new("RGB", (8, 8))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "set" / "cat").mkdir(parents=True)
    for name in ("a.jfif", "b.webp", "c.ppm", "noext", "d.dib"):
        kind = {"noext": "PNG", "a.jfif": "JPEG"}.get(name)
        image.save(tmp_path / "set" / "cat" / name, kind)
    image.save(tmp_path / "elsewhere" / "e.png")
    (tmp_path / "set" / "cat" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "cat" / "round").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "cat" / "notes.txt").write_text("no image")
    read = [tmp_path / "set" / name for name in own.listing(tmp_path / "set").files]
    assert all(decode(path, 8).shape == (8, 8, 3) for path in read)
    assert len(read) == 6 and expand([str(tmp_path / "set")]) == sorted(read)
    phone = tmp_path / "set" / "cat" / "f.heic"
    phone.touch()
    assert expand([str(tmp_path / "set")]) == sorted([*read, phone])


def test_what_cannot_be_read_is_told_in_its_place(predictor, images, tmp_path):
    good = images / "wild_cat" / "image_0002.jpg"
    (tmp_path / "cut.jpg").write_bytes(good.read_bytes()[:900])
    (tmp_path / "text.jpg").write_text("no image")
    reasons = {
        tmp_path / "cut.jpg": "truncated",
        good: "None",
        tmp_path / "text.jpg": "not an image in a format",
        tmp_path / "missing.jpg": "No such file",  # it was there when the command began
    }
    found = list(answers(predictor, list(reasons)))
    assert [answer.image for answer in found] == list(reasons)
    for answer, reason in zip(found, reasons.values(), strict=True):
        assert reason in str(answer.reason)
        assert (answer.top is not None) == (answer.image == good)


def test_what_is_no_file_is_told_before_a_model_is_loaded(images, tmp_path):
    good = images / "wild_cat" / "image_0002.jpg"
    reasons = {
        tmp_path / "missing.jpg": "no such file",
        tmp_path / "*.gif": "nothing matches",
        tmp_path: "no image in this folder",
        tmp_path / ("x" * 300): "File name too long",
    }
    assert {each.image: each.reason for each in absent([good, *reasons])} == reasons


def test_an_exif_orientation_is_ignored_as_in_training_and_told(
    predictor, images, tmp_path, capsys
):
    original = Image.fromarray(decode(images / "Faces" / "image_0002.jpg", 72))
    original.save(tmp_path / "plain.png")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    original.save(tmp_path / "turned.png", exif=exif)
    files = [tmp_path / "plain.png", tmp_path / "turned.png"]
    plain, turned = answers(predictor, files)
    assert plain.top == turned.top
    told = capsys.readouterr().err
    assert "turned.png is answered as it is stored, without its EXIF orientation 6" in told
    assert "plain.png" not in told


def test_a_digit_s_file_gives_the_pixels_of_training(tmp_path):
    grey = np.random.default_rng(0).integers(256, size=(8, 8), dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "digit.png")
    np.testing.assert_array_equal(decode(tmp_path / "digit.png", 128), enlarge(grey, 128))


@pytest.mark.parametrize("address", ["https://a.org/cat.jpg", "http://a.org/cat.jpg?size=1"])
def test_an_address_is_told_from_a_file_that_is_not_there(address):
    (answer,) = absent([Path(address)])
    assert "an address" in answer.reason and "save the image" in answer.reason
