"""List a network's blocks: `python -m caltech.models NAME [WEIGHTS] [size=PIXELS] [images=N]`."""

import re
import sys
from collections.abc import Sequence

import torch
from omegaconf import DictConfig, OmegaConf

from caltech.amounts import size_of
from caltech.arguments import nearest
from caltech.config import build
from caltech.errors import InputError, shown_as_messages
from caltech.models.blocks import Block, blocks_of
from caltech.settings import CONF

USAGE = """\
python -m caltech.models NAME [WEIGHTS] [size=PIXELS] [images=N] [classes=N]

List a network's blocks in the order in which they run, for freeze=until
freeze.at=BLOCK: the parameters of each, the shape of its output for an image,
and what a cache of the outputs before it takes on the disk in float32
(freeze.store=bfloat16: half of it) for each view of `images` images.

  python -m caltech.models efficientnet_lite0
  python -m caltech.models vit_small_patch14_dinov2 lvd142m size=224
  python -m caltech.models convnext_tiny size=160 images=1797

NAME is an option of conf/model, or a network of torchvision or timm (timm/NAME
for timm's where both have one). Nothing is downloaded or computed."""
# As a training says it.
NAMED, LIBRARIES = re.compile(r"^model(\.name|\.weights)?="), ("model=timm", "model=torchvision")
# Of Caltech-101 (conf/data/caltech101.yaml): it is not read for that.
IMAGES, CLASSES = 8677, 101


def main(words: Sequence[str]) -> int:
    """The command; 0, or an error."""
    if not words or {"-h", "--help"} & set(words):
        print(USAGE)
        return 0
    if "model=timm" in words:
        words = [re.sub(r"^model\.name=(?!timm/|hf)", "timm/", word) for word in words]
    words = [NAMED.sub("", word) for word in words if word not in LIBRARIES]
    typed = [word for word in words if "=" not in word]
    numbers = {"size": _default_size(), "images": IMAGES, "classes": CLASSES}
    for name, _, value in (word.partition("=") for word in words if "=" in word):
        if name not in numbers:
            near = f"{nearest(name, numbers)}={value}" if nearest(name, numbers) else "--help"
            raise InputError(f"{name}={value} is not of this command. Type {near}.")
        if not value.isdecimal() or int(value) < 1:
            example = f"{name}={numbers[name]}"
            raise InputError(f"{name}={value} is not allowed: it is from 1 on. Type {example}.")
        numbers[name] = int(value)
    if not 1 <= len(typed) <= 2:
        raise InputError(f"One network at a time. Type {USAGE.splitlines()[0]}.")
    option = _option(*typed)
    size = numbers["size"]
    with torch.random.fork_rng(devices=[]):
        model = build(option, num_classes=numbers["classes"], load=False, size=size)
    print("\n".join(_table(blocks_of(model, size), numbers["images"])))
    return 0


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
