"""What a run's network gave for the images of validation and test, and what it says of calibration.

logits_last.npz and logits_best.npz hold float32 logits with the images' indices and labels. They
are larger than a head: 3.5 MB a run on Caltech-101, for 0.5 MB of weights. So logits=auto leaves
them out where a sweep has many runs of little that is trained. calibration.json is there always.
"""

import logging
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from caltech.amounts import size_of
from caltech.calibration import Scores, calibration, probabilities, temperature
from caltech.data.dataset import Dataset
from caltech.errors import DamagedError, InputError
from caltech.files import read_sealed_json, write_sealed_json
from caltech.links import write_shared
from caltech.runs import manifest, provenance
from caltech.runs.directory import WEIGHTS, RunDirectory

log = logging.getLogger(__name__)

PARTS = ("validation", "test")
ADD = "Type its training command again with logits=keep: nothing is trained again."
ERROR, CALIBRATED = "test/calibration_error", "test/calibrated_error"


def are_wanted(option: str, data: Dataset, trained_bytes: int, is_sweep: bool) -> bool:
    """Whether a run keeps its logits, by logits=auto, keep or none; says how large many are.

    That a sweep's job keeps none is not said: a line for each job would hide its results.

    Args:
        trained_bytes: of the weights that training changed.
        is_sweep: whether the run is one of many.
    """
    size = 4 * len(data.classes) * (len(data.validation) + len(data.test)) * len(WEIGHTS)
    is_wanted = option == "keep" or (option == "auto" and not (is_sweep and size > trained_bytes))
    if is_wanted and size > 5e7:
        log.info("logits are kept: at most %s; logits=none keeps none", size_of(size))
    return is_wanted


def write(directory: RunDirectory, name: str, parts: Mapping[str, Scores]) -> None:
    """Keep the logits of the `last` or the `best` epoch; of one epoch both are one file."""
    arrays = {}
    for part in PARTS:
        arrays |= {f"{part}_{what}": array for what, array in parts[part]._asdict().items()}
    content = BytesIO()
    np.savez(content, **arrays)  # packing would take a tenth of a trial, and save as little
    beside = [directory.logits(each) for each in WEIGHTS if each != name]
    write_shared(directory.logits(name), content.getvalue(), beside)


def read(directory: RunDirectory, name: str) -> dict[str, Scores]:
    """The logits by part.

    Raises:
        InputError: the run has none; says how it gets them.
        DamagedError: they are not what the run wrote.
    """
    path, weights = directory.logits(name), directory.weights(name)
    if not path.is_file():
        if weights.is_file():
            raise InputError(f"{directory} has no logits. {ADD}")
        raise InputError(
            f"{directory} has no logits of its {name} epoch and no {manifest.lacking(weights)}. "
            f"Type its training command with {manifest.again(weights)} logits=keep."
        )
    manifest.verify(directory, [path])
    found = arrays(path, [f"{part}_{what}" for part in PARTS for what in Scores._fields])
    parts = {p: Scores(*(found[f"{p}_{what}"] for what in Scores._fields)) for p in PARTS}
    if not all(map(_is_whole, parts.values())):
        raise DamagedError(f"{path} was cut short or changed: it is not what a test gives.")
    return parts


def arrays(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Of a file of numpy's; raises DamagedError if it cannot be read."""
    try:
        with path.open("rb") as opened, np.load(opened) as file:
            return {name: file[name] for name in names}
    except Exception as error:  # numpy and zipfile raise many types for a broken file
        raise DamagedError(f"{path} was cut short or changed: {error}.") from error


def _is_whole(scores: Scores) -> bool:
    """Whether arrays have the types, the shapes and the labels of what a test gives."""
    rows, classes = scores.logits.shape if scores.logits.ndim == 2 else (-1, 0)
    for indices in (scores.indices, scores.labels):
        if indices.dtype.kind not in "iu" or indices.shape != (rows,):
            return False
    # -inf is the logit of probability zero
    is_number = scores.logits.dtype.kind == "f" and (scores.logits < np.inf).all()
    return bool(is_number and np.isin(scores.labels, np.arange(classes)).all())


def require_same(directory: RunDirectory, name: str, answers: np.ndarray) -> None:
    """Raise InputError unless answers (n,) are those that the run's test gave, and DamagedError
    if these cannot be read."""
    path = directory.predictions(name)
    manifest.verify(directory, [path])
    kept = arrays(path, ["predictions"])["predictions"]
    if kept.shape != answers.shape:
        raise DamagedError(f"{path} has not one answer for each of {len(answers)} test images.")
    if differ := int((kept != answers).sum()):
        raise InputError(
            f"{directory} has no logits, and on this machine its weights give another answer to "
            f"{differ} of {len(answers)} test images, by rounding. Type logits=keep on a machine "
            "like its own, or with rerun=true."
        )


def are_there(directory: RunDirectory) -> bool:
    """Whether both epochs' logits can be read, or those whose weights are still there."""
    try:
        return all(read(directory, name) for name in answering(directory))
    except (InputError, DamagedError):
        return False


def answering(directory: RunDirectory) -> list[str]:
    """The epochs of a finished run by whose weights it can answer: the last ones may be removed."""
    return [name for name in WEIGHTS if name == "best" or directory.weights(name).is_file()]


def calibrated(parts: Mapping[str, Scores], data: Dataset) -> dict[str, Any]:
    """The temperature by validation and the test's calibration error before and after; or why not.

    The error is the expected one over 15 bins of equal width (caltech.calibration).
    """
    if np.isin(data.validation.numpy(), data.train.numpy()).any():
        reason = "its validation images were trained on, and say nothing of new ones"
        return {ERROR: _error(parts["test"], 1.0), "reason": reason}
    return measured(parts)


def measured(parts: Mapping[str, Scores]) -> dict[str, Any]:
    """As `calibrated`, of a model that has not seen the validation images."""
    validation, test = parts["validation"], parts["test"]
    told: dict[str, Any] = {ERROR: _error(test, 1.0)}
    try:
        fitted = temperature(validation.logits, validation.labels)
    except InputError as error:
        return told | {"reason": str(error)}
    told |= {"temperature": fitted, "images": len(validation.labels)}
    return told | {CALIBRATED: _error(test, fitted)}


def mean_of(directories: Sequence[RunDirectory], name: str) -> dict[str, Scores]:
    """By part, the logarithm of the mean of several runs' probabilities, in float64.

    Of one run it is its logits less a number for each image, so that its answers are the same.

    Raises:
        InputError: a run has no logits, or they are of other images.
        DamagedError: they are not what the run wrote.
    """
    read_of = {str(directory): read(directory, name) for directory in directories}
    first, joined = read_of[str(directories[0])], {}
    for part, own in first.items():
        total = np.zeros(own.logits.shape)
        for directory in map(str, directories):
            other = read_of[directory][part]
            is_same = np.array_equal(other.indices, own.indices)
            if not is_same or not np.array_equal(other.labels, own.labels):
                raise InputError(f"{directory} has other {part} images than {directories[0]}.")
            total += probabilities(other.logits)
        with np.errstate(divide="ignore"):
            joined[part] = Scores(own.indices, own.labels, np.log(total / len(directories)))
    return joined


def require_alike(directories: Sequence[RunDirectory], classes: Sequence[Sequence[str]]) -> None:
    """Raise InputError unless runs have the same classes and the same images in each part."""
    first = provenance.read(directories[0])["data"]
    for directory, own in zip(directories[1:], classes[1:], strict=True):
        told = provenance.read(directory)["data"]
        if list(own) != list(classes[0]):
            apart = sorted({*own} ^ {*classes[0]}) or ["their order"]
            what = f"{len(classes[0])} and {len(own)} classes; not in both: {', '.join(apart[:5])}"
        elif told["sha256"] == first["sha256"]:
            continue
        elif _turns(directory) != _turns(directories[0]):
            what = "images as they are stored and as EXIF turns them (data.upright=true)"
        else:
            what = (
                f"other images or another split of them ({first['name']} {first['sha256'][:8]} and "
                f"{told['name']} {told['sha256'][:8]}), so that what one was trained on the other "
                "is tested on"
            )
        raise InputError(
            f"{directories[0]} and {directory} make no ensemble: they have {what}. Type run= with "
            "runs of one data set and one split."
        )


def _turns(directory: RunDirectory) -> bool:
    return bool(manifest.read_config(directory.config).get("data", {}).get("upright", False))


def _error(scores: Scores, by: float) -> float:
    likely = probabilities(scores.logits, by)
    return calibration(likely.max(1), likely.argmax(1) == scores.labels).error


def write_calibration(directory: RunDirectory, told: Mapping[str, Mapping[str, Any]]) -> None:
    """Of both epochs, what `calibrated` gave; one that is not told of stays as it was written."""
    before = {}
    if told.keys() != set(WEIGHTS) and directory.calibration.is_file():
        manifest.verify(directory, [directory.calibration])
        before = read_sealed_json(directory.calibration, dict.fromkeys(WEIGHTS, dict))
    none = {name: {"reason": "its weights were removed"} for name in WEIGHTS}
    write_sealed_json(directory.calibration, {**none, **before, **told})


def temperature_of(directory: RunDirectory, name: str) -> tuple[float, int]:
    """The temperature of the `last` or the `best` epoch, and by how many images it was fitted.

    Raises:
        InputError: the run has none; says why.
        DamagedError: the file is not what the run wrote.
    """
    if not directory.calibration.is_file():
        raise InputError(f"{directory} has no temperature: earlier code trained it. {ADD}")
    manifest.verify(directory, [directory.calibration])
    told = read_sealed_json(directory.calibration, {name: dict})[name]
    return _fitted(str(directory), told)


def mean_temperature(directories: Sequence[RunDirectory], name: str) -> tuple[float, int]:
    """As temperature_of, of the mean of several runs' probabilities."""
    for directory in directories:
        temperature_of(directory, name)  # a member that saw the validation images has none
    return _fitted("The ensemble", measured(mean_of(directories, name)))


def _fitted(what: str, told: Mapping[str, Any]) -> tuple[float, int]:
    fitted, images = told.get("temperature"), told.get("images")
    if isinstance(fitted, float) and 0 < fitted < np.inf and isinstance(images, int):
        return fitted, images
    if not isinstance(told.get("reason"), str):
        raise DamagedError(f"{what} has a {RunDirectory('').calibration} without a temperature.")
    raise InputError(
        f"{what} cannot be calibrated: {told['reason']}. Leave out --calibrated, or choose "
        "other runs."
    )


def write_images(directory: RunDirectory, data: Dataset) -> None:
    """Which file each index of validation and test is; one place on the disk for a study's runs."""
    lines = ["part,index,file"]
    for part in PARTS:
        for index in getattr(data, part).tolist():
            lines.append(f'{part},{index},"{_quoted(data.files[index])}"')
    content = "\n".join(lines).encode("utf-8", "surrogateescape") + b"\n"
    write_shared(directory.images, content, _beside(directory))


def _beside(directory: RunDirectory) -> Sequence:
    return sorted(directory.path.parent.glob(f"*/{directory.images.name}"))


def _quoted(name: str) -> str:
    return name.replace('"', '""')
