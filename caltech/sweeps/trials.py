"""A sweep's study in Optuna: its jobs report into it, a pruner stops them by it, plots are of it.

Hydra's Optuna sweeper gets no storage of its own: seeded, it retraces a search that is typed again,
and with a storage it would add the same points once more. The study that is kept is this one. It is
named by what a command sweeps over, so that the command typed again goes on in it.
"""

import hashlib
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
from omegaconf import DictConfig, OmegaConf
from optuna import distributions, pruners
from optuna.trial import FrozenTrial, TrialState, create_trial

from caltech.config import build
from caltech.errors import DamagedError, InputError
from caltech.files import without_passwords, write_json
from caltech.keys import former_key, run_key
from caltech.runs.result import FINISHED, PRUNED
from caltech.training.fit import NOBODY, Observer

NOTE = "study.json"  # in a sweep's folder: where its jobs find the study
STATES = {FINISHED: TrialState.COMPLETE, PRUNED: TrialState.PRUNED}


class Trial(Observer):
    """A job's trial. With a pruner it is in the study from the start, else once it has ended."""

    def __init__(self, study: optuna.Study, point: Mapping[str, Any], key: str) -> None:
        self.study, self.point, self.key = study, point, key
        self.prunes = not isinstance(study.pruner, pruners.NopPruner)
        self.live = self._start_or_continue() if self.prunes else None
        self.history: Sequence[Mapping[str, float]] = ()

    def epoch(self, history: Sequence[Mapping[str, float]]) -> bool:
        """Tell the validation accuracies of the epochs so far; whether the run is to stop now."""
        self.history = history
        if self.live is None or not history:
            return False
        told = self.study.get_trials(deepcopy=False)[self.live.number].intermediate_values
        for epoch in history:
            if epoch["epoch"] not in told:
                self.live.report(epoch["val/accuracy"], epoch["epoch"])
        return self.live.should_prune()

    def end(self, status: str, value: float | None) -> None:
        """Close the trial as finished, pruned or failed, unless it was in an earlier sweep."""
        state = STATES.get(status, TrialState.FAIL)
        if self.live is not None:
            self.study.tell(self.live, value if status == FINISHED else None, state)
        elif state not in {trial.state for trial in self._trials()}:
            values = {epoch["epoch"]: epoch["val/accuracy"] for epoch in self.history}
            self._add(state, value=value, intermediate_values=values)

    def _start_or_continue(self) -> optuna.Trial | None:
        """A killed job goes on with its own trial, so that its pruner decides as it would have."""
        states = {trial.state for trial in self._trials()}
        if states & {*STATES.values()}:
            return None  # ended in an earlier sweep
        if TrialState.RUNNING not in states:  # ask() would give another point
            self._add(TrialState.RUNNING)
        running = [trial for trial in self._trials() if trial.state == TrialState.RUNNING]
        return optuna.Trial(self.study, running[-1]._trial_id)

    def _trials(self) -> list[FrozenTrial]:
        trials = self.study.get_trials(deepcopy=False)
        return [trial for trial in trials if trial.user_attrs.get("key") == self.key]

    def _add(self, state: TrialState, **told: Any) -> None:
        own = {"user_attrs": {"key": self.key}, **self.point}
        self.study.add_trial(create_trial(state=state, **own, **told))


def prepare(config: DictConfig, folder: Path) -> None:
    """Create the study of a sweep that is about to start, and note in its folder where it is.

    `config` is composed without the values that are swept over; Hydra has them as overrides.
    """
    # The sweeper's own parser: what it searches is what is written down here.
    from hydra_plugins.hydra_optuna_sweeper._impl import create_params_from_overrides

    params = OmegaConf.select(config, "hydra.sweeper.params") or {}  # a grid has none
    typed = [f"{name}={values}" for name, values in params.items()]
    try:
        both = [*typed, *config.hydra.overrides.task]
        searched, fixed, _ = create_params_from_overrides(both)
    except (AssertionError, NotImplementedError, ValueError) as error:
        raise InputError(
            f"Optuna cannot take what is swept over: {error}. Type values, for example "
            "lr=1e-1,1e-2, or a search space of its own, for example lr=interval(0.01, 0.1)."
        ) from error
    own = {name: values for name, values in searched.items() if name not in fixed}
    if not own and config.hydra.runtime.choices["hydra/sweeper"] == "optuna":
        raise InputError(
            "Nothing is searched: no value is left open. Type a space, for example "
            "'lr=tag(log, interval(1e-3, 1))', or leave hydra/sweeper=optuna out."
        )
    space = {name: distributions.distribution_to_json(values) for name, values in own.items()}
    Path(config.output, config.study).mkdir(parents=True, exist_ok=True)  # the default's place
    names = []  # as it is, and as it was when keys still told 0 and 0.0 apart
    for key in (run_key(config), former_key(config)):
        identity = json.dumps([key, config.seeds, space], sort_keys=True)
        names.append(f"{config.study}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}")
    with _explained(config.storage):
        known = optuna.get_all_study_names(config.storage)
    name = next((name for name in names if name in known), names[0])
    _open(name, config.storage, None)
    # The storage's address may hold a password: every job has it in its own config.
    write_json(folder / NOTE, {"name": name, "space": space})


@contextmanager
def trial(
    cfg: DictConfig, record: Any, overrides: Sequence[str], folder: Path | None
) -> Iterator[Observer]:
    """The trial of a job of the sweep in `folder`; it ends as the job's record says by then.

    An interrupted job's trial stays open, for the same job to go on with.

    Raises:
        InputError: a pruner, and no sweep whose jobs it could compare.
    """
    pruner = build(cfg.pruner)
    if folder is None and not isinstance(pruner, pruners.NopPruner):
        raise InputError(
            "A pruner compares the jobs of a sweep, and this is a single run. Type pruner=none, "
            "or --multirun and values to sweep over, for example lr=1e-1,1e-2,1e-3."
        )
    noted = None if folder is None else _noted(folder)
    if noted is None:
        yield NOBODY
        return
    study = _open(noted["name"], cfg.storage, pruner)
    job = Trial(study, _point(noted["space"], overrides), cfg.key)
    try:
        yield job
    except Exception:
        job.end("failed", None)
        raise
    job.end(record.status, record.value)


def plot(folder: Path, storage: str) -> list[Path]:
    """Optuna's own plots of a sweep's study as PNG files in its folder; none for a plain grid."""
    if (noted := _noted(folder)) is None:
        return []
    study = _open(noted["name"], storage, None)
    finished = study.get_trials(states=(TrialState.COMPLETE,))
    if len({trial.value for trial in finished}) < 2:
        return []  # nothing varies, so nothing has an importance
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from optuna.visualization import matplotlib as plots

    logging.getLogger("matplotlib").setLevel(logging.WARNING)
    made = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna calls these plots experimental since 2020
        for name in ("optimization_history", "param_importances", "slice", "intermediate_values"):
            getattr(plots, f"plot_{name}")(study)
            made.append(folder / f"{name}.png")
            pyplot.gcf().savefig(made[-1], dpi=120, bbox_inches="tight")
            pyplot.close("all")
    return made


def _noted(folder: Path) -> dict[str, Any] | None:
    """Name and space of a sweep's study; None if it has none.

    Raises:
        DamagedError: the note is not what was written.
    """
    path = folder / NOTE
    try:
        noted = json.loads(path.read_bytes())
        return {"name": str(noted["name"]), "space": dict(noted["space"])}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DamagedError(
            f"{path} was cut short or changed: {error}. Type the sweep's command again."
        ) from error


def _open(name: str, storage: str, pruner: pruners.BasePruner | None) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with _explained(storage):
        return optuna.create_study(
            storage=storage, pruner=pruner, study_name=name, direction="maximize",
            load_if_exists=True,
        )  # fmt: skip


@contextmanager
def _explained(storage: str) -> Iterator[None]:
    """What any database driver raises becomes one InputError."""
    try:
        yield
    except Exception as error:
        raise InputError(
            f"Cannot open Optuna's storage {without_passwords(storage)}: {error}. Type storage= "
            "with an URL that Optuna takes, for example sqlite:////tmp/optuna.db."
        ) from error


def _point(space: Mapping[str, str], overrides: Sequence[str]) -> dict[str, Any]:
    """A job's place in the space that is swept over, as Optuna's create_trial takes it."""
    given = dict(o.split("=", 1) for o in overrides if "=" in o)  # ~key has none
    searched = {name: distributions.json_to_distribution(text) for name, text in space.items()}
    params = {}
    for name, values in searched.items():
        if isinstance(values, distributions.CategoricalDistribution):
            params[name] = next(value for value in values.choices if str(value) == given[name])
        else:
            params[name] = values.to_external_repr(float(given[name]))
    return {"params": params, "distributions": searched}
