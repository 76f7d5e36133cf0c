"""What a study's trials are made from, and where: whoever works on it has to agree."""

import json
import socket
import uuid
from pathlib import Path

import optuna
from omegaconf import DictConfig, OmegaConf
from optuna.trial import TrialState

from caltech.config import build
from caltech.errors import InputError
from caltech.files import write_json
from caltech.runs.provenance import code_version
from caltech.sweeps.study.space import Space

DATA = {"data", "split", "experiment"}  # what decides on which data a run is trained
FOLDER = "folder"  # attribute of a study: where its workers meet
MARK = "meeting.json"  # in that folder, wherever a host has it: the same id


def require_same(study: optuna.Study, config: DictConfig, space: Space, folder: Path) -> None:
    """Compare with what the study was begun with; of a fresh study, keep it.

    Raises:
        InputError: its trials were made from other data, or its workers meet elsewhere.
    """
    _require_folder(study, folder)
    sampler = OmegaConf.to_container(config.hydra.sweeper.sampler)
    before, now = study.user_attrs, {"code": code_version()["sha256"], "sampler": sampler}
    if not {name.lstrip("+").split(".")[0] for name in space.searched} & DATA:
        now["data"] = build(config.data).digest
    if before.get("data") != now.get("data") and before.get("data") and now.get("data"):
        raise InputError(
            f"The trials of study {study.study_name} were made from other data "
            f"({before['data'][:16]}, and on {socket.gethostname()} there is {now['data'][:16]}). "
            "Type study=NAME for another study, or restore the data."
        )
    for name in ("code", "sampler"):
        if before.get(name, now[name]) != now[name]:
            then, this = _differing(before[name], now[name])
            print(f"Study {study.study_name} was begun by other {name}: {then}.\n"
                  f"This is {this}. The trials that it has stay.")  # fmt: skip
    for name in set(now) - set(before):
        study.set_user_attr(name, now[name])


def _differing(one: object, other: object) -> tuple[str, str]:
    """What two values do not have in common, as text."""
    if not isinstance(one, dict) or not isinstance(other, dict):
        return str(one), str(other)
    names = [name for name in {**one, **other} if one.get(name) != other.get(name)]
    one, other = (", ".join(f"{n}={each.get(n)}" for n in names) for each in (one, other))
    return one, other


def mark(folder: Path) -> None:
    """Give the folder of a search an id, which it keeps wherever a host has it."""
    if _id(folder) is None:
        write_json(folder / MARK, {"id": uuid.uuid4().hex})


def is_met_in(study: optuna.Study, folder: Path) -> bool:
    """Whether it is the folder where the study's workers met last."""
    met = study.user_attrs.get(FOLDER)
    return met is not None and met["id"] == _id(folder)


def require_here(study: optuna.Study, folder: Path) -> None:
    """Raise InputError if the study's workers meet elsewhere by now."""
    met = study.user_attrs.get(FOLDER)
    if met is not None and met["id"] != _id(folder):
        raise InputError(
            f"Study {study.study_name} is worked on in {met['path']} of {met['host']} by now: this "
            f"worker, which meets others in {folder}, ends. Type output= with one shared folder."
        )


def _require_folder(study: optuna.Study, folder: Path) -> None:
    """Locks in one folder tell who computes what: two folders would compute everything twice."""
    own = {"id": _id(folder), "path": str(folder.absolute()), **_host()}
    met = study.user_attrs.get(FOLDER, own)
    is_gone = met.items() >= _host().items() and not Path(met["path"], MARK).is_file()
    if met["id"] != own["id"] and not is_gone:
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        if running:
            raise InputError(
                f"Study {study.study_name} is worked on in {met['path']} of {met['host']}, and "
                f"{len(running)} of its trials run. Its workers have to share that folder: type "
                "output= with the shared one, or study=NAME for a study of its own."
            )
    if met is own or met["id"] != own["id"]:
        study.set_user_attr(FOLDER, own)


def _host() -> dict[str, str]:
    """Of two machines of one name the network cards differ."""
    return {"host": socket.gethostname(), "card": f"{uuid.getnode():x}"}


def _id(folder: Path) -> str | None:
    try:
        return json.loads((folder / MARK).read_bytes())["id"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
