"""Where a finished run is: by its key, its directory, or the best on validation."""

import difflib
import glob
import logging
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from hydra import compose
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from safetensors import SafetensorError

from caltech.config import composing
from caltech.data.dataset import Dataset
from caltech.errors import CaltechError, DamagedError, InputError
from caltech.files import read_sealed_json
from caltech.keys import former_key, run_key
from caltech.models.classifier import Classifier
from caltech.runs import checkpoint, manifest, provenance
from caltech.runs.directory import RunDirectory
from caltech.runs.result import Result
from caltech.settings import CONF

log = logging.getLogger(__name__)

KEY = "[0-9a-f]{10}"
EXPERIMENTS = CONF / "experiment"
# In a run's config, as it writes it: to read it all takes 20 ms a run.
_TRAINED_ON_VALIDATION = re.compile(r"^ +train_on_validation: true$", re.MULTILINE)


def find(
    run: str, study: str | None, data: str | None, output: Path, word: str = "run"
) -> RunDirectory:
    """The directory of a finished run.

    Args:
        run: its key, the path of its directory, or "best" for the highest validation accuracy.
        study: only look there.
        data: with "best", only runs on the data set of this name (or beginning of its SHA-256).
        output: folder of the studies.
        word: what the key was typed as, for messages: run or start.

    Raises:
        InputError: there is none, or more than one and they differ.
    """
    if RunDirectory(run).config.is_file():
        return RunDirectory(run)
    studies = glob.escape(study) if study else "*"
    if re.fullmatch(KEY, run):
        for path in output.glob(f"{studies}/{run}"):
            if not RunDirectory(path).config.is_file() and RunDirectory(path).result.is_file():
                raise DamagedError(f"{path} has no config.yaml: what this run is cannot be told.")
    found = sorted(path.parent for path in output.glob(f"{studies}/*/config.yaml"))
    directories = [RunDirectory(path) for path in found]
    place = output / study if study else output
    if not directories:
        raise InputError(
            f"{word}={run}: {place} has no runs. Train one with python -m caltech.train, or type "
            f"output= with the folder that holds your studies, or {word}= with a run's directory."
        )
    if run == "best":
        return _best(directories, data, place)
    return _of_key(word, run, directories, place)


def _of_key(word: str, key: str, directories: Sequence[RunDirectory], place: Path) -> RunDirectory:
    found = [directory for directory in directories if directory.path.name == key]
    if not found and ("/" in key or Path(key).is_dir()):
        there = "is a file" if Path(key).is_file() else "is not there"
        there = "has no config.yaml of a run" if Path(key).is_dir() else there
        raise InputError(
            f"{word}={key} {there}. Type {word}= with a run's directory, or with its key."
        )
    if not found:
        keys = sorted({directory.path.name for directory in directories})
        close = difflib.get_close_matches(key, keys, n=5, cutoff=0.0)
        other = {
            "run": "run=best for the run of highest validation accuracy",
            "start": "start=null",
        }
        raise InputError(
            f"{word}={key} is neither in {place} nor a run's directory. The closest keys there are "
            f"{', '.join(close)}. Type {word}= with one of them, or {other[word]}."
        )
    results = {each: Result.read(each, pruned_too=False) for each in found}
    finished = [directory for directory, result in results.items() if result is not None]
    for directory in finished:
        _require_named(directory, results[directory])
    if any(results[directory] != results[finished[0]] for directory in finished):
        studies = ", ".join(f"study={directory.path.parent.name}" for directory in finished)
        raise InputError(
            f"{word}={key} has different results in several studies: type one of {studies}."
        )
    return (finished or found)[0]


def _best(directories: Sequence[RunDirectory], data: str | None, place: Path) -> RunDirectory:
    """Validation decides, never the test part. Accuracies on different data cannot be compared:
    of several data sets, that of the run that was finished last is taken, and told."""
    best: dict[tuple[str, str], tuple[tuple[float, float], RunDirectory]] = {}
    ended: dict[tuple[str, str], int] = {}  # of each data set, when its newest run did
    for directory in directories:
        result = Result.read(directory, pruned_too=False)
        if result is None:
            continue
        try:
            manifest.verify(directory, [directory.config, directory.provenance])
            _require_named(directory, result)
            made_from = provenance.read(directory)["data"]
        except DamagedError as error:
            log.warning("%s The run is not considered.", error)
            continue
        if data and data != made_from["name"] and not made_from["sha256"].startswith(data):
            continue
        if _TRAINED_ON_VALIDATION.search(directory.config.read_text("utf-8")):
            log.warning(
                "%s trained on its validation images and is not considered for run=best. Type "
                "run=%s for it.", directory, directory.path.name,
            )  # fmt: skip
            continue
        measured = result.objective, -result.best["val/loss"]
        name = made_from["name"], made_from["sha256"]
        ended[name] = max(ended.get(name, 0), _ended(directory))
        if name not in best or measured > best[name][0]:
            best[name] = measured, directory
    if not best:
        wanted = f" on data={data}" if data else ""
        raise InputError(f"{place} has no finished run{wanted}. Train one with caltech.train.")
    newest = max(best, key=ended.__getitem__)
    if len(best) > 1:
        listed = "\n".join(
            f"  run={directory.path.name}  "
            f"data={name if [n for n, _ in best].count(name) == 1 else sha[:8]}  {accuracy:.4f}"
            for (name, sha), ((accuracy, _), directory) in best.items()
        )
        log.warning(
            "run=best is %s,\nof %s, the data set that was trained on last. Accuracies\non "
            "different data cannot be compared. Type data= or run= for another:\n%s",
            best[newest][1], newest[0], listed,
        )  # fmt: skip
    return best[newest][1]


def _ended(directory: RunDirectory) -> int:
    """When a run was finished, in ms since 1970, wherever it was copied to since.

    Of a run of earlier code, which did not note it, the time of its file.
    """
    with suppress(DamagedError):
        return read_sealed_json(directory.history, {"ended": int})["ended"]
    return directory.result.stat().st_mtime_ns // 1_000_000


def _require_named(directory: RunDirectory, result: Result) -> None:
    """Raise DamagedError for a run in a directory that is called by the key of another."""
    name = directory.path.name
    if re.fullmatch(KEY, name) and result.key != name:
        raise DamagedError(f"{directory} is named as run {name}, and holds run {result.key}.")


def experiment_of(key: str) -> str | None:
    """The option of experiment= that is the run of this key, for a message: takes some seconds."""
    if not re.fullmatch(KEY, key):
        return None
    for path in sorted(EXPERIMENTS.rglob("*.yaml")):
        name = str(path.relative_to(EXPERIMENTS).with_suffix(""))
        with composing(), suppress(CaltechError, HydraException, OmegaConfBaseException):
            cfg = compose("train", [f"experiment={name}"], return_hydra_config=True)
            if key in (run_key(cfg), former_key(cfg)):
                return name
    return None


def begin_from(run: str, output: Path, model: Classifier, data: Dataset) -> None:
    """Put the best weights of a finished run into a model that is about to be trained.

    A head that was trained on a frozen backbone is a better start for the whole network than a
    random one (Kumar et al., Fine-Tuning can Distort Pretrained Features, ICLR 2022).

    Raises:
        InputError: there is no such run, its model is another, or it saw other data: what it was
            trained on may be tested on here.
        DamagedError: a file of the run is not what it wrote.
    """
    try:
        directory = find(run, None, None, output, word="start")
    except InputError as error:
        if (name := experiment_of(run)) is None:
            raise
        raise InputError(
            f"start={run} is the run of experiment={name}, which is not in {output}. Run it "
            f"first: caltech train experiment={name}. If it is elsewhere, type output= with the "
            "folder that holds its study, or start= with its directory."
        ) from error
    weights = directory.weights("best")
    if Result.read(directory, pruned_too=False) is None or not weights.is_file():
        name = experiment_of(directory.path.name)
        command = f"caltech train experiment={name}" if name else "its training command"
        raise InputError(
            f"start={run} is not finished in {directory}. Type {command} to finish it, "
            "or the key of another run, or start=null."
        )
    manifest.verify(directory, [directory.config, directory.provenance, *directory.model("best")])
    seen = provenance.read(directory)["data"]
    if seen["sha256"] != data.digest:
        raise InputError(
            f"start={run} was trained on other data or another split of them ({seen['name']} "
            f"{seen['sha256'][:8]}, and here is {data.name} {data.digest[:8]}): its training "
            "images may be test images here. Type the key of a run on the same data, or start=null."
        )
    try:
        checkpoint.load_weights(weights, model)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise InputError(
            f"start={run} cannot be the start of this model: {error}. Type the key of a finished "
            "run with the same model and the same classes, or start=null."
        ) from error
    model.weights += f", then the best of {directory.path.name}"
