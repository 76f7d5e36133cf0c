"""Where a finished run is: by its key, its directory, or the best on validation."""

import logging
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from hydra import compose
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException
from safetensors import SafetensorError

from caltech.arguments import nearest
from caltech.config import composing
from caltech.data.dataset import Dataset
from caltech.errors import CaltechError, DamagedError, InputError
from caltech.files import read_sealed_json
from caltech.keys import former_key, run_key
from caltech.models.classifier import Classifier
from caltech.runs import checkpoint, known, manifest, provenance
from caltech.runs.directory import EXPORTED, RunDirectory
from caltech.runs.known import KEY
from caltech.runs.result import Result
from caltech.settings import CONF

log = logging.getLogger(__name__)

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
        data: only runs on the data set of this name (or beginning of its SHA-256).
        output: folder of the studies.
        word: what the key was typed as, for messages: run or start.

    Raises:
        InputError: there is none, or more than one and they differ, or it is of other data.
    """
    found = known.candidates(run, study, output, word)
    if run == "best" and not known.is_directory(run):
        known.tell_unread(output)
        return _best(found, data, output / study if study else output)
    one = found[0] if known.is_directory(run) else _of_key(word, run, found)
    if data:
        require_data(one, data, f"{word}={run}")
    return one


def require_data(directory: RunDirectory, data: str, typed: str) -> None:
    """Raise InputError for a run that is typed beside data= and is of other data."""
    if (directory.path / EXPORTED).is_file():  # members saw the same images
        directory = RunDirectory(directory.path / "1")
    made_from = provenance.read(directory)["data"]
    if not _is_of(made_from, data):
        raise InputError(
            f"{typed} is of data={made_from['name']}, and not of data={data}. "
            f"Leave data={data} out, or type another run."
        )


def _is_of(made_from: Mapping[str, str], data: str) -> bool:
    return data == made_from["name"] or made_from["sha256"].startswith(data)


def _of_key(word: str, key: str, found: Sequence[RunDirectory]) -> RunDirectory:
    results = {each: Result.read(each, pruned_too=False) for each in found}
    finished = [directory for directory, result in results.items() if result is not None]
    for directory in finished:
        _require_named(directory, results[directory])
    if any(results[directory] != results[finished[0]] for directory in finished):
        studies = ", ".join(known.typed(directory.path.parent.name) for directory in finished)
        raise InputError(
            f"{word}={key} has different results in several studies: type one of {studies}."
        )
    return (finished or found)[0]


def _best(directories: Sequence[RunDirectory], data: str | None, place: Path) -> RunDirectory:
    """Validation decides, never the test part. Accuracies on different data cannot be compared:
    of several data sets, that of the run that was finished last is taken, and told."""
    best: dict[tuple[str, str], tuple[tuple[float, float], RunDirectory]] = {}
    others: set[str] = set()  # data sets that are not asked for
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
        if data and not _is_of(made_from, data):
            others.add(made_from["name"])
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
        known = f" Runs there are on {', '.join(sorted(others))}." if others else ""
        near = nearest(data or "", others)
        instead = f"Type data={near}." if near else "Train one with caltech.train."
        raise InputError(f"{place} has no finished run{wanted}.{known} {instead}")
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
    try:
        files = [directory.config, directory.provenance, *directory.model("best")]
        manifest.verify(directory, files)
    except DamagedError as error:
        raise DamagedError(
            f"start={run}: {error} Type the run's training command with rerun=true, or the key of "
            "another run, or start=null."
        ) from error
    seen = provenance.read(directory)["data"]
    if seen["sha256"] != data.digest:
        raise InputError(
            f"start={run} was trained on other data or another split of them ({seen['name']} "
            f"{seen['sha256'][:8]}, and here is {data.name} {data.digest[:8]}): its training "
            "images may be test images here. Type the key of a run on the same data, or start=null."
        )
    try:
        checkpoint.load_weights(weights, model)
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(
            f"start={run} cannot be the start of this model: {error}. Type the key of a finished "
            "run with the same model and the same classes, or start=null."
        ) from error
    model.weights += f", then the best of {directory.path.name}"
