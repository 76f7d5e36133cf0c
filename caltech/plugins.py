"""Code of one's own that a config may name: `plugins=[my_package.parts]`, or CALTECH_PLUGINS.

Only what is typed is imported, never what a file says: neither a config file nor a run's directory
(trust.py refuses the first, and of the second nobody asks). A module adds what its `__all__` has,
or else the functions and classes that it defines; what it has imported is not added.
"""

import hashlib
import importlib
import inspect
import logging
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from caltech.errors import CaltechError, InputError

log = logging.getLogger(__name__)

VARIABLE = "CALTECH_PLUGINS"
# What the rest of the program uses of what a group's option gives, and what is meant by it.
WANTED = {
    "data": (("name", "labels", "classes", "files", "side", "crop", "content", "complete",
              "train", "validation", "test", "digest", "describe"),
        "a caltech.data.dataset.Dataset"),
    "split": (("parts",), "an object with a method parts(images)"),
    "model": (("stage_names", "weights", "from_scratch"),
        "what caltech.models.classifier.cut gives"),
    "augment": (("__call__", "test"), "a callable with the names of its views at the test"),
    "mix": (("__call__", "mixes"), "a caltech.data.augmentation.mix.Unmixed"),
    "loss": (("__call__",), "a callable of logits and labels"),
    "optimizer": (("param_groups", "step", "zero_grad", "state_dict"), "a torch.optim.Optimizer"),
    "schedule": (("step", "get_last_lr", "state_dict"),
        "a scheduler of torch.optim.lr_scheduler"),
    "average": (("update", "end_epoch", "end", "applied", "state_dict"),
        "a caltech.training.average.Last"),
    "precision": (("autocast", "scaler", "prepare"), "a caltech.training.precision.Precision"),
}  # fmt: skip

_added: dict[str, Any] = {}  # by address
_modules: dict[str, ModuleType] = {}
_digests: dict[str, str] = {}  # of their code as it was imported


def load(typed: Sequence[str]) -> None:
    """Import what was typed, and what the environment names; said once in the log.

    Code that has changed since, as it does between the cells of a notebook, is imported again.

    Raises:
        InputError: a module cannot be imported, or adds nothing.
    """
    named = [each.strip() for each in os.environ.get(VARIABLE, "").split(",")]
    names = dict.fromkeys([*filter(None, named), *typed])
    here = str(Path.cwd())
    if names and here not in sys.path and not sys.flags.safe_path:
        sys.path.insert(0, here)  # as python -m does, and the command caltech does not
    for name in names:
        if name in _modules and _digest(_modules[name]) != _digests[name]:
            _forget(name)
        if name not in _modules:
            module = _imported(name)
            parts = _parts(module)
            if not parts:
                raise InputError(
                    f"plugins=[{name}] adds nothing: {name} defines no public function or class. "
                    "Name the module that does, or list them in its __all__."
                )
            _modules[name], _digests[name] = module, _digest(module)
            _added.update({f"{name}.{part}": value for part, value in parts.items()})
            log.info("plugin %s (sha256 %s) adds %s", name, _digests[name][:8], ", ".join(parts))


def adds(target: str) -> bool:
    """Whether a config names something of a plugin's."""
    return target in _added


def digests(targets: Iterable[str]) -> dict[str, str]:
    """By module, SHA-256 of the code of the plugins to which these belong."""
    used = {target.rpartition(".")[0] for target in targets if target in _added}
    return {name: _digests[name] for name in sorted(used)}


def places(names: Iterable[str]) -> list[Path]:
    """Where the code of these modules is: a file, or the folder of a package."""
    return [_root(_modules[name]) for name in names]


def call(group: str | None, target: str, args: Sequence[Any], values: Mapping[str, Any]) -> Any:
    """What a plugin gives for an option's values.

    Raises:
        InputError: the values do not fit it, it fails, or it gives what its group has no use for.
    """
    called = _added[target]
    asked = {"load": False} | dict(values) if group == "model" else values
    try:
        inspect.signature(called).bind(*args, **asked)  # load=False: where weights follow
    except TypeError as error:
        names = ", ".join(inspect.signature(called).parameters)
        raise InputError(
            f"{target}({names}) does not take what it is given, {len(args)} values and "
            f"{', '.join(asked) or 'no names'}: {error}."
        ) from error
    except ValueError:  # it has no signature
        pass
    try:
        made = called(*args, **values)
    except CaltechError:
        raise
    except Exception as error:
        raise InputError(
            f"{target} failed: {type(error).__name__}: {error}. HYDRA_FULL_ERROR=1 shows where."
        ) from error
    uses, meant = WANTED.get(group or "", ((), ""))
    if lacking := [name for name in uses if not hasattr(made, name)]:
        raise InputError(
            f"{target} gives {type(made).__name__} for {group}, which has no "
            f"{', '.join(lacking)}. It is to give {meant}."
        )
    if group == "data" and (unsized := {"resize", "crop"} - {*values}):
        raise InputError(
            f"{target}: its option has no {' and no '.join(sorted(unsized))}. Images that a run is "
            "asked later are brought to these sizes: add them to its file in conf/data."
        )
    return made


def _imported(name: str) -> ModuleType:
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names or top == "caltech":
        raise InputError(f"plugins=[{name}] is not allowed: {top} is no code of your own.")
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # whatever its code raises
        raise InputError(
            f"plugins=[{name}] cannot be imported: {type(error).__name__}: {error}. Modules are "
            "looked for in the folder where the command is typed, in PYTHONPATH and among "
            "installed packages; a module in a folder is FOLDER.MODULE, without .py."
        ) from error


def _forget(name: str) -> None:
    """Of a module in a package, all of the package: that is what its digest is of."""
    own = {name, name.partition(".")[0]}
    for each in [each for each in sys.modules if each in own or each.partition(".")[0] in own]:
        del sys.modules[each]
    for target in [target for target in _added if target.rpartition(".")[0] == name]:
        del _added[target]
    del _modules[name]
    importlib.invalidate_caches()


def _parts(module: ModuleType) -> dict[str, Any]:
    """What a config may name of a module."""
    if hasattr(module, "__all__"):
        found = {name: getattr(module, name, None) for name in module.__all__}
    else:
        own = (module.__name__, f"{module.__name__}.")
        found = {
            name: value
            for name, value in vars(module).items()
            if not name.startswith("_") and f"{getattr(value, '__module__', '')}.".startswith(own)
        }
    return {name: value for name, value in found.items() if callable(value)}


def _digest(module: ModuleType) -> str:
    """Of its file or, of a module in a package, of all Python files of that package."""
    sha, root = hashlib.sha256(), _root(module)
    for each in sorted(root.rglob("*.py")) if root.is_dir() else [root]:
        name = each.relative_to(root if root.is_dir() else root.parent)
        sha.update(str(name).encode() + each.read_bytes())
    return sha.hexdigest()[:16]


def _root(module: ModuleType) -> Path:
    path = Path(module.__file__ or "")
    depth = module.__name__.count(".") + (path.name == "__init__.py")
    return path.parents[depth - 1] if depth else path
