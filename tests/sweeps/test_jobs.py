"""What became of a sweep's jobs; tests/test_command_line.py has whole sweeps and their tables."""

import pytest
from omegaconf import OmegaConf

from caltech.sweeps import jobs, records


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (ValueError("wrong"), "failed", "ValueError: wrong"),
        (KeyboardInterrupt(), "interrupted", ""),
    ],
)
def test_jobs_of_one_key_have_a_record_each_of_how_they_ended(
    tmp_path, monkeypatch, error, status, reason
):
    monkeypatch.setenv(jobs.VARIABLE, str(tmp_path))
    cfg = OmegaConf.create({"key": "key", "directory": str(tmp_path / "key"), "dry_run": False})
    with jobs.recorded(cfg, ["lr=1"], OmegaConf.create({"num": 0})) as record:
        record.status = "finished"
    with pytest.raises(type(error)), jobs.recorded(cfg, ["lr=2"], OmegaConf.create({"num": 1})):
        raise error
    first, second = records.rows(tmp_path)
    assert (first.status, first.overrides) == ("finished", "lr=1")
    assert (second.status, second.reason, second.overrides) == (status, reason, "lr=2")
