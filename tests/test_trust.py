"""What a config file may say of Hydra, and that a file which says more does no harm."""

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from caltech.config import register
from caltech.errors import InputError
from caltech.runs import provenance
from caltech.settings import CONF
from caltech.trust import require_harmless

HARM = {
    "hydra.job_logging.handlers.file.filename": "PROOF",
    "hydra.job_logging.formatters.file.format": "touch PROOF",
    "hydra.job_logging.formatters.file.()": "os.system",
    "hydra.job_logging.root.level": "ext://os.system",
    "hydra.hydra_logging.handlers.x.filename": "PROOF",
    "hydra.job.env_set.PATH": "PROOF",
    "hydra.job.env_set.LD_PRELOAD": "PROOF",
    "hydra.job.env_set.PYTHONPATH": "PROOF",
    "hydra.job.env_copy": ["HOME"],
    "hydra.job.name": "../x",
    "hydra.job.chdir": True,
    "hydra.callbacks.x._target_": "logging.FileHandler",
    "hydra.run.dir": "PROOF",
    "hydra.sweep.dir": "PROOF",
    "hydra.sweep.subdir": "../x",
    "hydra.output_subdir": "../x",
    "hydra.searchpath": ["pkg://evil"],
    "hydra.launcher._target_": "os.system",
    "hydra.launcher.setup": ["touch PROOF"],
    "hydra.launcher.ray.init.address": "evil:6379",
    "hydra.sweeper._target_": "os.system",
    "hydra.sweeper.storage": "sqlite:///PROOF",
    "hydra.sweeper.custom_search_space": "os.system",
    "hydra.sweeper.sampler._target_": "logging.FileHandler",
    "hydra.sweeper.sampler.crossover._target_": "os.system",
    "hydra.sweeper.sampler.crossover": "${evil}",
    "hydra.sweeper.params": {"hydra.run.dir": "PROOF"},
    "hydra.sweeper": "${evil}",
    "hydra": "${evil}",
    "model.weights": "${oc.env:AWS_SECRET_ACCESS_KEY}",
    "study": "${${a}:AWS_SECRET_ACCESS_KEY}",
    "lr": "${oc.decode:'1'}",
}
HARMLESS = {
    "hydra.job_logging.root.level": "WARNING",
    "hydra.job_logging.handlers.file.level": "DEBUG",
    "hydra.hydra_logging.loggers.x.level": 10,
    "hydra.sweeper.n_trials": 3,
    "hydra.sweeper.direction": ["maximize", "minimize"],
    "hydra.sweeper.sampler._target_": "optuna.samplers.TPESampler",
    "hydra.sweeper.sampler.seed": 0,
    "hydra.sweeper.params": {"optimizer.lr": "interval(1,2)"},
    "hydra.launcher.partition": "gpu",
    "hydra.launcher.n_jobs": 2,
    "cache": "${oc.env:SCRATCH,/tmp}/cache",
    "study": "job-${oc.env:SLURM_JOB_ID,0}",
}


def of(path: str, value):
    cfg = OmegaConf.create()
    OmegaConf.update(cfg, path, value, force_add=True)
    return cfg


@pytest.mark.parametrize("path", HARM)
def test_a_file_may_not_set_it(path):
    with pytest.raises(InputError, match=r"x\.yaml may not set") as refused:
        require_harmless(of(path, HARM[path]), "x.yaml")
    if path in ("hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir"):  # no word's, either
        assert str(refused.value).endswith("Take it out of the file.")


@pytest.mark.parametrize("path", HARMLESS)
def test_a_file_may_set_it(path):
    require_harmless(of(path, HARMLESS[path]), "x.yaml")


@pytest.fixture
def attack(forks, tmp_path):
    """Run a command with a config file of somebody else's; what is left and what was said."""
    names = iter(range(99))

    def run(body: str, *words: str, header: str = "_global_", group: str = "experiment"):
        path = tmp_path / "sent" / group / f"evil{next(names)}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"# @package {header}\n{body.replace('PROOF', str(tmp_path / 'proof'))}")
        own = [f"--config-dir={tmp_path / 'sent'}", f"output={tmp_path / 'multirun'}"]
        (ended,) = forks.run([*own, *words, f"{group}={path.stem}"])
        assert ended.code == 1 and "Traceback" not in ended.output
        assert "error: " in ended.output and "may not set" in ended.output, ended.output
        assert {each.name for each in tmp_path.iterdir()} <= {"sent"}, "something was written"

    return run


LOG = "hydra: {job_logging: {handlers: {file: {filename: PROOF, delay: false}}}}"


@pytest.mark.slow  # by its own process; in a job of a sweep it is tested below
def test_a_log_file_is_not_written_where_a_file_says(attack):
    attack(LOG)
    attack("handlers: {file: {filename: PROOF, delay: false}}", header="hydra.job_logging")
    attack(LOG.replace("job_logging", "hydra_logging"), "--help")


def test_nor_by_a_job_of_a_sweep(attack):
    attack(LOG, "--multirun", "seed=0,1")
    attack(LOG, "--multirun", "hydra/launcher=parallel", "seed=0,1")


def test_nor_by_an_option_of_hydra_s_own_groups(attack):
    attack("handlers: {file: {filename: PROOF, class: logging.FileHandler}}\nversion: 1",
           header="hydra.job_logging", group="hydra/job_logging")  # fmt: skip


def test_what_is_typed_by_hand_may_set_it(tmp_path):
    register()
    words = [f"hydra.run.dir={tmp_path}", "+hydra.job.env_set.A=b"]
    with initialize_config_dir(config_dir=str(CONF)):
        hydra = compose("train", words, return_hydra_config=True).hydra
    assert (hydra.run.dir, hydra.job.env_set.A) == (str(tmp_path), "b")


def test_git_is_not_looked_for_in_the_path_of_a_job(tmp_path, monkeypatch):
    program = tmp_path / "git"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path / 'proof'}")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    provenance._commit.cache_clear()
    provenance.code_version()
    assert not (tmp_path / "proof").exists()
