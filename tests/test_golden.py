"""What must not change whatever else does: run keys, point keys, and the tables of kept results.

golden_keys.json was written by the code of commit d8c1e7e: overrides, and the keys they had.
"""

import json
import shutil
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from caltech.config import register
from caltech.keys import point_key
from caltech.settings import CONF
from tests.conftest import REPOSITORY

GOLDEN = json.loads((Path(__file__).parent / "golden_keys.json").read_text())
STUDIES = sorted(path.parent.name for path in REPOSITORY.glob("multirun/*/kept"))


def test_keys_are_what_they_were():
    register()
    with initialize_config_dir(config_dir=str(CONF)):
        composed = {typed: compose("train", typed.split()) for typed in GOLDEN}
    found = {typed: {"key": cfg.key, "point": point_key(cfg)} for typed, cfg in composed.items()}
    assert found == GOLDEN


@pytest.mark.parametrize("study", STUDIES)
def test_tables_of_kept_results_are_the_same_bytes(study, tmp_path, monkeypatch):
    from caltech.report import pictures
    from caltech.report.command import report

    monkeypatch.setattr(pictures, "draw", lambda table: [])  # takes seconds
    kept = REPOSITORY / "multirun" / study
    shutil.copytree(kept / "kept", tmp_path / study / "kept")
    register()
    with initialize_config_dir(config_dir=str(CONF)):
        own = ["tracking=none", f"output={tmp_path}", f"cache={tmp_path}", f"study={study}"]
        report(compose("report", [*own, f"data.caltech101.root={tmp_path}"]))
    for name in ("table.md", "table.csv"):
        assert (tmp_path / study / name).read_bytes() == (kept / name).read_bytes()
    for path in (kept / "kept").iterdir():
        assert (tmp_path / study / "kept" / path.name).read_bytes() == path.read_bytes()
