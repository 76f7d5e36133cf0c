"""List a network's blocks: `python -m caltech.models NAME [WEIGHTS] [size=PIXELS] [images=N]`."""

import argparse
import sys
from collections.abc import Sequence

import torch
from omegaconf import DictConfig, OmegaConf

from caltech.amounts import size_of
from caltech.arguments import Parser, count
from caltech.config import build
from caltech.errors import InputError, shown_as_messages
from caltech.models.blocks import Block, blocks_of
from caltech.settings import CONF

USAGE = "python -m caltech.models NAME [WEIGHTS] [size=N] [images=N] [classes=N]"
DESCRIPTION = """\
List a network's blocks in the order in which they run, for freeze=until
freeze.at=BLOCK: the parameters of each, the shape of its output for an image,
and what a cache of the outputs before it takes on the disk in float32
(freeze.store=bfloat16: half of it) for each view of `images` images.

  python -m caltech.models efficientnet_lite0
  python -m caltech.models vit_small_patch14_dinov2 lvd142m size=224
  python -m caltech.models convnext_tiny size=160 images=1797

NAME is an option of conf/model, or a network of torchvision or timm (timm/NAME
for timm's where both have one). Nothing is downloaded or computed.
"""
LIBRARIES = ("timm", "torchvision")
# Of Caltech-101 (conf/data/caltech101.yaml): it is not read for that.
IMAGES, CLASSES = 8677, 101


def main(words: Sequence[str]) -> int:
    """The command; 0, or an error."""
    parser = Parser(USAGE, DESCRIPTION)
    parser.add_argument("name", metavar="NAME", nargs="?", help="a network; model=NAME, too")
    parser.add_argument("weights", metavar="WEIGHTS", nargs="?", help="model.weights=WEIGHTS, too")
    for name, default in {"size": _default_size(), "images": IMAGES, "classes": CLASSES}.items():
        parser.add_argument(
            f"--{name}", metavar=str(default), type=count, help="default: %(metavar)s"
        )
        parser.set_defaults(**{name: default})
    for name in ("model", "model.name", "model.weights"):  # as a training says it
        parser.add_argument(f"--{name}", metavar="NAME", help=argparse.SUPPRESS)
    given = parser.read(words)
    option = _option(*_asked(parser, given))
    with torch.random.fork_rng(devices=[]):
        model = build(option, num_classes=given.classes, load=False, size=given.size)
    print("\n".join(_table(blocks_of(model, given.size), given.images)))
    return 0


def _asked(parser: Parser, given: argparse.Namespace) -> tuple[str, str | None]:
    """The one network, and its weights, of all the words that can name them."""
    model, name, weights = (vars(given)[f"model{each}"] for each in ("", ".name", ".weights"))
    if model in LIBRARIES and name is not None:
        is_timms = model == "timm" and not name.startswith(("timm/", "hf"))
        model, name = None, f"timm/{name}" if is_timms else name
    names = {each for each in (given.name, model, name) if each is not None}
    both = {each for each in (given.weights, weights) if each is not None}
    if len(names) != 1 or len(both) > 1:
        told = " and ".join(sorted(names if len(names) > 1 else both)) or "NAME is missing"
        parser.error(f"{told}: one network at a time. Type {USAGE.removeprefix('python -m ')}")
    return names.pop(), next(iter(both), None)


def _default_size() -> int:
    return OmegaConf.load(CONF / "data" / "caltech101.yaml").crop


def _option(name: str, weights: str | None = None) -> DictConfig:
    """What conf/model has of that name, or the library's option with the name filled in."""
    from torchvision import models

    given = {} if weights is None else {"weights": None if weights == "null" else weights}
    if (CONF / "model" / f"{name}.yaml").is_file():
        option = OmegaConf.load(CONF / "model" / f"{name}.yaml")
        if OmegaConf.is_missing(option, "name"):
            raise InputError(f"{name} is a library. Type the name of a network.")
        return OmegaConf.merge(option, given)
    library = "torchvision" if name in models.list_models(module=models) else "timm"
    option = OmegaConf.load(CONF / "model" / f"{library}.yaml")
    return OmegaConf.merge(option, {"name": name}, given)


def _table(blocks: Sequence[Block], images: int) -> list[str]:
    width = max(len(block.name) for block in blocks)
    lines = [f"freeze.at  {'block':{width}}  {'parameters':>11}  {'output':14}  cache before it"]
    before: Block | None = None
    for number, block in enumerate(blocks):
        shape = "unknown" if block.shape is None else " x ".join(map(str, block.shape))
        room = size_of(4 * before.numbers * images) if before and before.numbers else ""
        line = f"{number:9d}  {block.name:{width}}  {block.parameters:11,d}  {shape:14}  {room}"
        lines.append(line.rstrip())
        before = block
    return lines


if __name__ == "__main__":
    with shown_as_messages(composes=False):
        sys.exit(main(sys.argv[1:]))
