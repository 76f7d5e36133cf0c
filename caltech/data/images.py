"""One image file, opened unless it has more pixels than are read."""

import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

MAX_PIXELS = 64_000_000  # an image of 64 megapixels takes 200 MB; Caltech-101's largest has 0.2

# Pillow warns from 89 megapixels on, in two lines of code, of what is refused here in a sentence.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# It advises to whoever calls convert() what it does by itself.
warnings.filterwarnings("ignore", message="Palette images with Transparency", module="PIL")


@contextmanager
def opened(path: Path, formats: Sequence[str] | None = None) -> Iterator[Image.Image]:
    """The image in a file; of a large one Pillow knows the number of pixels and gives no more.

    Args:
        formats: those of Pillow's that it may have, or else any.

    Raises:
        ValueError: it has more than 179 megapixels. `require_moderate` tells of less.
    """
    try:
        with Image.open(path, formats=formats) as image:
            yield image
    # The warning is one where a program around us has made errors of them.
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        count = re.search(r"\d+", str(error))
        told = f"{count[0]} pixels; more" if count else "too many pixels; more"
        raise ValueError(f"it has {told} than {MAX_PIXELS} are not read") from error


def require_moderate(image: Image.Image, factor: float) -> None:
    """Raise ValueError for more than MAX_PIXELS, in a file or once they are `factor` as many."""
    if (pixels := factor * image.width * image.height) > MAX_PIXELS:
        larger = f", and {pixels:.0f} when its short side is as asked" if factor > 1 else ""
        raise ValueError(
            f"it has {image.width} x {image.height} pixels{larger}; more than {MAX_PIXELS} are "
            "not read"
        )
