"""Jobs are checked and written down before the first of them starts."""

import time
from types import SimpleNamespace

import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.utils import create_config_search_path
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from caltech import waiting
from caltech.errors import CaltechError, InputError
from caltech.settings import CONF
from caltech.sweeps import records, sweepers
from caltech.sweeps.composed import ComposedOnce
from caltech.sweeps.place import VARIABLE
from caltech.sweeps.sweepers import Announcing, Grid

OUTPUT = "/nowhere"


def composed(overrides: list[str]):
    """A job's config, as far as it matters where it is."""
    given = dict(override.split("=") for override in overrides)
    cfg = {"lr": "0", "study": "mine", "output": OUTPUT, "key": "${key_of:${lr}}"}
    cfg["directory"] = "${output}/${study}/${key}"
    own = {"run": {"dir": "${directory}"}, "overrides": {"task": overrides}}
    own["sweep"] = {"dir": "${output}/${study}", "subdir": "${key}"}
    return OmegaConf.create({**cfg, **given, "hydra": own})


@pytest.fixture
def launch(tmp_path, monkeypatch):
    """Launch jobs with these overrides, of which the launcher does this."""
    OmegaConf.register_resolver("key_of", lambda lr: f"key{lr}", replace=True)
    monkeypatch.setenv(VARIABLE, str(tmp_path))

    class Loader:
        def load_sweep_config(self, master, overrides):
            return composed(overrides)

    class Launcher:
        def __init__(self, action):
            self.launch = action

    def of(jobs, action=lambda overrides, first: []):
        return Announcing(Launcher(action), ComposedOnce(Loader(), None, 1)).launch(jobs, 0)

    return of


def test_a_sweep_that_loses_a_job_has_a_row_for_each(launch, tmp_path):
    """As under SLURM with a job that is cancelled at start: submitit gives up at it."""

    def four_of_six(jobs, first):
        for number in range(4):
            record = records.Record(f"key{number}", "", f"lr={number}")
            with records.kept(tmp_path, number, record):
                record.status = "finished"
        raise RuntimeError("Job 7_4 was not started\nand more")

    with pytest.raises(CaltechError, match=r"gave up: RuntimeError: Job 7_4 was not started\. "):
        launch([[f"lr={n}"] for n in range(6)], four_of_six)
    rows = records.rows(tmp_path)
    assert [row.status for row in rows] == ["finished"] * 4 + ["missing"] * 2
    assert (rows[5].key, rows[5].overrides) == ("key5", "lr=5")


def test_a_job_that_failed_is_raised_as_it_is_and_hydra_adds_nothing(launch, capsys):
    failed = JobReturn(status=JobStatus.FAILED, overrides=["lr=2"])
    failed.return_value = InputError("lr is wrong")
    with pytest.raises(InputError, match=r"^lr is wrong$"):
        launch([["lr=1"], ["lr=2"]], lambda jobs, first: [JobReturn(), failed])
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("jobs", "said"),
    [
        ([["lr=1"], ["lr=2", "study=../../x"]], r"study=\.\./\.\./x is not allowed"),
        ([["study="]], "study= is not allowed"),
        ([["output="]], "output= is empty"),
        ([["directory=/x", "lr=1"], ["directory=/x", "lr=2"]], "/x is one place for several"),
    ],
)
def test_jobs_without_a_place_of_their_own_are_refused_before_any_starts(launch, jobs, said):
    def start(*args):
        raise AssertionError("started")

    with pytest.raises(InputError, match=said):
        launch(jobs, start)


@pytest.mark.parametrize(("jobs", "is_told"), [(30, True), (3, False)])
def test_a_large_grid_is_told_before_its_configs_are_composed(
    launch, caplog, monkeypatch, jobs, is_told
):
    """In a log; and then how far it is."""
    monkeypatch.setattr(waiting, "TELL_SECONDS", 0.0 if is_told else 10.0)
    caplog.set_level("INFO")
    launch([[f"lr={n}"] for n in range(jobs)], lambda words, first: [JobReturn()] * jobs)
    expected = ["30 jobs: the config of each is composed before the first starts"]
    expected += [f"composing configs: {n} of 30 jobs, about 0 s left" for n in range(1, 30)]
    assert caplog.messages == (expected if is_told else [])


def test_two_hundred_jobs_are_written_down_in_no_time(tmp_path):
    jobs = {n: records.Record(f"key{n}", "", f"lr={n}") for n in range(200)}
    start = time.perf_counter()
    records.announce(tmp_path, jobs, 200)
    assert len(records.rows(tmp_path)) == 200
    assert time.perf_counter() - start < 2


def split(*typed: str) -> list[list[str]]:
    loader = ConfigLoaderImpl(create_config_search_path(str(CONF)))
    overrides = OverridesParser.create(config_loader=loader).parse_overrides([*typed])
    return Grid.split_arguments(overrides, None)[0]


@pytest.mark.parametrize(("jobs", "seeds", "is_told"), [(1, None, 1), (2, None, 0), (1, 5, 0)])
def test_a_grid_without_values_says_that_it_is_one_run(caplog, jobs, seeds, is_told):
    grid = Grid(max_batch_size=None)
    grid.launcher, grid.config = SimpleNamespace(), OmegaConf.create({"seeds": seeds})
    grid.overrides, grid.batch_index = [[["lr=0.1"]] * jobs], 0
    assert len(grid.get_job_batch()) == jobs
    assert len(caplog.records) == is_told


def test_a_glob_finds_experiments_in_folders():
    folder = CONF / "experiment"
    paths = [path.relative_to(folder).with_suffix("") for path in folder.rglob("*.yaml")]
    everything = {f"experiment={path.as_posix()}" for path in paths}
    assert {job[0] for job in split("experiment=glob(*)")} == everything
    scratch = split("experiment=glob(scratch/*)")
    assert 1 < len(scratch) < len(everything)
    assert len(split("freeze=glob(*,exclude=[linear,until])", "lr=1,2")) == 6


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("experiment=glob(nosuch*)", r"no value: .* Options of experiment are .*scratch/base"),
        ("freeze=glob([])", "no value"),
        ("lr=range(1,1)", "no value"),
        ("lr=interval(0.1,1)", "hydra/sweeper=optuna"),
    ],
)
def test_a_sweep_of_no_job_is_refused(typed, said):
    with pytest.raises(InputError, match=said):
        split("num_epochs=1", typed)


SEARCH = OmegaConf.load(CONF / "hydra" / "sweeper" / "optuna.yaml")
SEARCH.n_jobs = 1  # else the root's workers


@pytest.mark.parametrize(
    ("name", "value"),
    [("direction", "minimize"), ("direction", ["maximize", "minimize"]), ("n_trials", 0),
     ("n_trials", -3), ("n_trials", "ten"), ("n_trials", None), ("n_jobs", 0), ("n_jobs", 1.5),
     ("max_failure_rate", 2), ("max_failure_rate", "all"), ("storage", "sqlite:///x.db"),
     ("study_name", "mine")],
)  # fmt: skip
def test_a_search_that_cannot_be_is_refused(name, value):
    sweepers.require_search(SEARCH)
    with pytest.raises(InputError, match=rf"hydra\.sweeper\.{name}"):
        sweepers.require_search(OmegaConf.merge(SEARCH, {name: value}))


def test_options_of_a_search_without_the_search_are_refused():
    for typed in ("hydra.sweeper.n_trials=3", "+hydra.sweeper.seed=1", "hydra/sweeper/sampler=tpe"):
        with pytest.raises(InputError, match="is for a search"):
            sweepers.refuse_half_typed([typed])
        sweepers.refuse_half_typed(["--multirun", "sweep=search_head", typed])
