"""A sweep's folder says of every job what became of it, whatever happened to the folder."""

import json
from dataclasses import asdict

import pytest
from filelock import FileLock

from caltech.errors import DamagedError
from caltech.sweeps import records
from caltech.sweeps.records import Record

PLANNED = {n: Record(f"key{n}", f"/runs/key{n}", f"lr={n}") for n in range(3)}


def ended(folder, number: int, **told) -> None:
    with records.kept(folder, number, record := Record(f"key{number}", "", f"lr={number}")):
        vars(record).update({"status": "finished", "value": 0.5, **told})


def statuses(folder) -> list[str]:
    return [row.status for row in records.rows(folder)]


def test_a_job_that_was_asked_for_has_a_row_always(tmp_path):
    with records.launching(tmp_path):
        records.announce(tmp_path, PLANNED, 3)
        assert statuses(tmp_path) == ["waiting"] * 3
        with records.kept(tmp_path, 1, Record("key1", "", "lr=1")):
            assert statuses(tmp_path) == ["waiting", "running", "waiting"]
        ended(tmp_path, 1)
        assert statuses(tmp_path) == ["waiting", "finished", "waiting"]
    assert statuses(tmp_path) == ["missing", "finished", "missing"]
    assert [row.key for row in records.rows(tmp_path)] == ["key0", "key1", "key2"]
    assert not [*tmp_path.glob("*.lock")]


def test_a_lock_says_what_runs_and_nothing_else(tmp_path):
    """A job on another host that was killed, or is alive after its sweep's command has ended."""
    records.write_json(tmp_path / "key0-0.json", asdict(Record("key0", "", "", host="elsewhere")))
    assert statuses(tmp_path) == ["missing"]
    with FileLock(tmp_path / "key0-0.lock"):
        assert statuses(tmp_path) == ["running"]
    assert statuses(tmp_path) == ["missing"]


def test_trials_are_written_down_as_they_are_proposed(tmp_path):
    for number, job in PLANNED.items():
        records.announce(tmp_path, {number: job}, 30)
    assert len(records.rows(tmp_path)) == 3
    assert records.plan(tmp_path).total == 30


def test_a_sweep_of_earlier_code_is_read(tmp_path):
    old = {"key": "6ba21d19c4", "directory": "d", "overrides": "lr=1", "status": "finished",
           "value": 0.9, "seconds": 1.0, "reason": ""}  # fmt: skip
    (tmp_path / "6ba21d19c4-0.json").write_text(json.dumps(old))
    assert records.rows(tmp_path) == [Record("6ba21d19c4", "d", "lr=1", "finished", 0.9, 1.0)]


@pytest.mark.parametrize(
    "harm",
    [b"", b'{"key": "key1", "dir', b"[]", b"null", b"{}", b"\xff\xfe", b'{"key": 1}', b"[" * 99999,
     b'{"key": "", "directory": "", "overrides": "", "value": NaN}',
     b'{"key": "", "directory": "", "overrides": "", "value": "high"}'],
)  # fmt: skip
def test_a_harmed_record_is_a_row_that_says_so(tmp_path, harm):
    records.announce(tmp_path, PLANNED, 3)
    for number in PLANNED:
        ended(tmp_path, number)
    (tmp_path / "key1-1.json").write_bytes(harm)
    assert statuses(tmp_path) == ["finished", "unreadable", "finished"]
    assert records.rows(tmp_path)[1].overrides == "lr=1"
    with pytest.raises(DamagedError, match=r"key1-1\.json was cut short or changed"):
        records.read(tmp_path / "key1-1.json")


@pytest.mark.parametrize("harm", [b"", b"{", b"[]", b'{"jobs": 3}', b'{"jobs": [{}]}'])
def test_a_harmed_list_of_jobs_leaves_the_records(tmp_path, caplog, harm):
    ended(tmp_path, 1)
    (tmp_path / records.JOBS).write_bytes(harm)
    assert statuses(tmp_path) == ["finished"]
    assert "jobs without a record are unknown" in caplog.text


def test_foreign_files_are_no_jobs(tmp_path):
    ended(tmp_path, 0)
    for name in ("notes-of-mine.json", "x.json", "0-.json", ".key0-0.json.host.1.partial"):
        (tmp_path / name).write_text("anything")
    (tmp_path / "a-folder-7").mkdir()
    assert statuses(tmp_path) == ["finished"]


def test_a_job_that_was_killed_after_a_checkpoint_is_interrupted(tmp_path):
    record = Record("0123456789", str(tmp_path / "run"), "lr=1", status=records.RUNNING)
    (tmp_path / "0123456789-0.json").write_text(json.dumps(asdict(record)))
    assert [job.status for job in records.rows(tmp_path)] == [records.MISSING]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint.pt").touch()
    assert [job.status for job in records.rows(tmp_path)] == [records.INTERRUPTED]


def test_a_job_that_slurm_queued_again_waits_as_long_as_its_sweep_s_command(tmp_path):
    """Cancelled in the queue, it would wait for ever."""
    record = Record("0123456789", str(tmp_path / "run"), "lr=1", status=records.WAITING)
    path = tmp_path / "0123456789-0.json"
    path.write_text(json.dumps(asdict(record)))
    with records.launching(tmp_path):
        assert statuses(tmp_path) == [records.WAITING]
    assert statuses(tmp_path) == [records.MISSING]
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoint.pt").touch()
    assert statuses(tmp_path) == [records.INTERRUPTED]
    with FileLock(path.with_suffix(".lock")):  # it goes on, and is about to say so
        assert statuses(tmp_path) == [records.WAITING]


def test_of_two_searches_folders_that_were_merged_the_list_says_whose_a_number_is(tmp_path):
    records.announce(tmp_path, PLANNED, 3)
    for number in range(3):
        ended(tmp_path, number)
    for key in ("aaaa", "zzzz"):  # before and after key0 among the files
        other = Record(key, "", "lr=9", "finished", 0.9)
        records.write_json(tmp_path / f"{key}-0.json", asdict(other))
    assert [row.key for row in records.rows(tmp_path)] == ["key0", "key1", "key2"]


def test_a_job_that_is_only_answered_keeps_its_seconds(tmp_path):
    """On a busy machine an answer may take longer than the training took."""
    ended(tmp_path, 0, seconds=2.0)
    ended(tmp_path, 0, seconds=9.0)
    assert records.rows(tmp_path)[0].seconds == 2.0


def test_a_job_that_goes_on_has_the_seconds_of_all_its_pieces(tmp_path):
    ended(tmp_path, 0, status=records.WAITING, value=None, seconds=2.0)  # queued again
    ended(tmp_path, 0, status=records.INTERRUPTED, value=None, seconds=3.0)
    path = tmp_path / "key0-0.json"
    with records.kept(tmp_path, 0, killed := Record("key0", "", "lr=0")):
        while_it_runs = path.read_bytes()
        assert records.rows(tmp_path)[0].seconds == 5.0 and killed.seconds == 0.0
    path.write_bytes(while_it_runs)
    ended(tmp_path, 0, seconds=4.0)
    assert records.rows(tmp_path)[0].seconds == 9.0
