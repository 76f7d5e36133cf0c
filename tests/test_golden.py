"""What must not change whatever else does: run keys and point keys.

golden_keys.json was written by the code of commit d8c1e7e: overrides, and the keys they had.
"""

import json
from pathlib import Path

from hydra import compose, initialize_config_dir

from caltech.config import register
from caltech.keys import point_key
from caltech.settings import CONF

GOLDEN = json.loads((Path(__file__).parent / "golden_keys.json").read_text())


def test_keys_are_what_they_were():
    register()
    with initialize_config_dir(config_dir=str(CONF)):
        composed = {typed: compose("train", typed.split()) for typed in GOLDEN}
    found = {typed: {"key": cfg.key, "point": point_key(cfg)} for typed, cfg in composed.items()}
    assert found == GOLDEN
