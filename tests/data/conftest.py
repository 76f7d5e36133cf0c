"""A data set small enough to be harmed."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return two_categories(tmp_path)


def two_categories(root: Path) -> Path:
    """Below `root`, eight small images in each, no two alike."""
    random = np.random.default_rng(0)
    for category in ("ant", "bee"):
        folder = root / "caltech101" / "101_ObjectCategories" / category
        folder.mkdir(parents=True)
        for number in range(1, 9):
            noise = random.integers(0, 255, (8, 8, 3), dtype=np.uint8)
            image = Image.fromarray(noise).resize((80, 90), Image.Resampling.BICUBIC)
            image.save(folder / f"image_{number:04d}.jpg")
    return root
