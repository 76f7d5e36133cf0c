"""Every file of a run, harmed in many ways: each command answers, or says one thing, and no more.

pytest -m slow -n 0 tests/faults/test_run_files.py    all harms to all files before all commands
"""

import io
import itertools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf

from caltech import export, predict
from caltech.errors import OF_ANOTHER_SHAPE, CaltechError, StoreError
from caltech.files import sealed_json
from caltech.overview import clean
from caltech.overview import runs as listing
from caltech.report.sources.study import gather
from caltech.runs.directory import RunDirectory
from caltech.tracking.tracker import MlflowRun
from caltech.train import train
from tests.observers import Doing, Stopped, stop

SMALL = ["model=timm", "model.name=test_resnet", "model.weights=null", "freeze=none"]
SMALL += ["data.resize=40", "data.crop=32", "batch_size=30", "num_epochs=2"]
SMALL += ["schedule=constant", "keep_checkpoint=true"]
CONTENTS = {
    "empty": b"", "braces": b"{}", "list": b"[]", "null": b"null", "number": b"NaN",
    "no text": b"\xff\xfe\x00", "deep": b"[" * 100_000, "unresolved": b"key: ${nothing}\n",
}  # fmt: skip
VALUES = (None, 3, "x", [], {}, float("nan"))
COMMANDS = ("train", "rerun", "predict", "predict by key", "best", "calibrated", "ensemble")
COMMANDS += ("export", "start", "resume", "logits", "more epochs", "runs", "clean", "report")
COMMANDS += ("store",)
# What a command is about, if that is not the finished run; and the run that it makes anew.
SUBJECTS, MAKES = {"resume": "killed"}, {"start": "start", "more epochs": "longer"}
HARMS = (*CONTENTS, "cut", "gone", "folder", "pipe", "another run's", "values")


def harmed(path: Path, harm: str, other: Path) -> list[bytes | None]:
    """The contents that a harm of this kind gives a file; None for none."""
    whole = path.read_bytes()
    if harm in CONTENTS:
        return [CONTENTS[harm]]
    if harm == "cut":
        return [whole[: len(whole) // 2], whole[:-1]]
    if harm == "another run's":
        there = other / path.name
        return [there.read_bytes()] if there.is_file() else []
    if harm != "values":
        return [None]
    if path.suffix == ".yaml":
        config = OmegaConf.to_container(OmegaConf.load(io.StringIO(whole.decode())))
        changed = [config | {name: new} for name, new in zip(config, itertools.cycle(VALUES))]
        return [OmegaConf.to_yaml(OmegaConf.create(each)).encode() for each in changed]
    if path.suffix == ".json":
        value = json.loads(whole)
        value.pop("crc32", None)
        places = [value, *(inner for inner in value.values() if isinstance(inner, dict))]
        nested = [(place, name) for place in places for name in place]
        news = itertools.cycle(VALUES)
        return [with_value(value, *each, next(news)) for each in nested for _ in range(2)]
    return with_arrays(whole) if path.suffix == ".npz" else []


def with_arrays(whole: bytes) -> list[bytes]:
    """A file of numpy's in which one array is missing, or of another type or shape."""
    arrays, contents = dict(np.load(io.BytesIO(whole))), []
    for name, own in arrays.items():
        for new in (None, np.array("x"), own[:-1], own.astype(float) * np.nan, own - own.max() - 1):
            changed = {each: array for each, array in arrays.items() if each != name}
            changed |= {} if new is None else {name: new}
            np.savez(content := io.BytesIO(), **changed)
            contents.append(content.getvalue())
    return contents


def with_value(value: dict, place: dict, name: str, new: object) -> bytes:
    kept, place[name] = place[name], new
    try:
        return sealed_json(value)
    finally:
        place[name] = kept


@pytest.fixture(scope="module")
def runs(compose_in, tmp_path_factory):
    """Configs by name: a finished run, one that was killed, another one, and a later start."""
    output = tmp_path_factory.mktemp("runs")
    configs = {
        name: compose_in(output, *SMALL, *own)
        for name, own in (("finished", []), ("killed", ["seed=1"]), ("other", ["seed=2"]))
    }
    train(configs["finished"])
    train(configs["other"])
    with pytest.raises(Stopped):
        train(configs["killed"], observer=Doing(stop, at_epoch=1))
    start = [*SMALL, "num_epochs=1", f"start={configs['finished'].key}"]
    later = {"start": start, "longer": [*SMALL, "num_epochs=3"]}
    return configs | {name: compose_in(output, *own) for name, own in later.items()}


@pytest.fixture(scope="module")
def commands(runs, tree, tmp_path_factory) -> dict[str, Callable[[], object]]:
    image = str(tree / "caltech101" / "101_ObjectCategories" / "Faces" / "image_0004.jpg")
    finished, output = runs["finished"], runs["finished"].output
    study = Path(output, finished.study)
    to, places = tmp_path_factory.mktemp("to") / "x", [f"output={output}", "device=cpu"]
    both = f"run={finished.key},{runs['other'].key}"
    store = MlflowRun(f"sqlite:///{to.parent}/mlflow.db", "caltech", str(to.parent))

    def exported(run: str) -> None:
        shutil.rmtree(to, ignore_errors=True)
        export.main(["format=safetensors", f"to={to}", f"run={run}", *places])

    return {
        "train": lambda: train(finished),
        "rerun": lambda: train(OmegaConf.merge(finished, {"rerun": True})),
        "predict": lambda: predict.main([image, f"run={finished.directory}", *places]),
        "predict by key": lambda: predict.main([image, f"run={finished.key}", *places]),
        "best": lambda: predict.main([image, "run=best", *places]),
        "calibrated": lambda: predict.main([image, f"run={finished.key}", *places, "--calibrated"]),
        "ensemble": lambda: predict.main([image, both, *places, "--calibrated"]),
        "export": lambda: exported(finished.key),
        "start": lambda: train(runs["start"]),
        "resume": lambda: train(runs["killed"]),
        "logits": lambda: train(OmegaConf.merge(finished, {"logits": "keep"})),
        "more epochs": lambda: train(runs["longer"]),
        "runs": lambda: listing.main([f"output={output}"]),
        "clean": lambda: clean.main([*clean.ALL, f"output={output}", f"cache={to}"]),
        "report": lambda: gather(finished.tracking, study, finished.study, []),
        "store": lambda: store.send(RunDirectory(finished.directory)),
    }


def assert_no_traceback(command: Callable[[], object], told: object) -> None:
    try:
        command()
    except CaltechError as error:
        assert 20 < len(str(error)) < 1500, (told, error)
        is_of_file = isinstance(error.__cause__, OF_ANOTHER_SHAPE)
        assert not (is_of_file and isinstance(error, StoreError)), (told, "blames the store", error)
    except Exception as error:
        raise AssertionError(f"{told} ended in {error!r}") from error


def try_all(runs, commands, names, harms, chosen: slice) -> int:
    """Do each harm to each file, before each of the commands; how many were tried."""
    tried = 0
    for name, harm in itertools.product(names, harms):
        run = runs[SUBJECTS.get(name, "finished")]
        directory, other = RunDirectory(run.directory), Path(runs["other"].directory)
        kept = directory.path.with_name("kept")
        shutil.copytree(directory.path, kept)
        files = sorted(path for path in kept.iterdir() if path.suffix != ".lock")
        try:
            for file, has_manifest in itertools.product(files, (True, False)):
                for content in harmed(file, harm, other)[chosen]:
                    restore(kept, directory.path)
                    if name in MAKES:
                        shutil.rmtree(runs[MAKES[name]].directory, ignore_errors=True)
                    if not has_manifest:
                        directory.manifest.unlink(missing_ok=True)
                    path = directory.path / file.name
                    path.unlink(missing_ok=True)
                    if content is not None:
                        path.write_bytes(content)
                    elif harm == "folder":
                        path.mkdir()
                    elif harm == "pipe":
                        os.mkfifo(path)
                    told = (name, file.name, harm, content and content[:300], has_manifest)
                    assert_no_traceback(commands[name], told)
                    tried += 1
        finally:
            restore(kept, directory.path)
            shutil.rmtree(kept)
    return tried


def restore(kept: Path, directory: Path) -> None:
    """As it was, in the same place: its inode is part of it."""
    for path in directory.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.copytree(kept, directory, dirs_exist_ok=True)


@pytest.mark.parametrize(
    ("name", "harm"),
    [
        ("predict", "braces"),
        ("best", "cut"),
        ("report", "pipe"),
        ("resume", "folder"),
        ("resume", "pipe"),
    ],
)
def test_harmed_files_end_in_no_traceback(runs, commands, name, harm):
    try_all(runs, commands, [name], [harm], slice(7, 8) if harm == "values" else slice(0, 1))


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_all_harms_before_all_commands(runs, commands, capsys, name):
    tried = try_all(runs, commands, [name], HARMS, slice(None))
    with capsys.disabled():
        print(f"\n{name}: {tried} harms, no traceback")
