"""Whether a part of one's own does what its group asks, tried before any work.

Nothing is asked of the parts that are in the package: tests do that.
"""

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from caltech import plugins
from caltech.data.dataset import PARTS
from caltech.errors import InputError

log = logging.getLogger(__name__)

_rebuilt: set[str] = set()  # what was found to be all in its weights


def require_data(data: Any, target: str) -> None:
    """Raise InputError unless a plugin's data set has labels of its classes, and rows in its parts.

    Rows of the test that are in another part are a warning.
    """
    if not plugins.adds(target):
        return
    count, classes = len(data.files), len(data.classes)

    def refuse(what: str) -> None:
        raise InputError(f"{target} gives {what}")

    if not 2 <= len(set(data.classes)) == classes:
        refuse(f"the classes {data.classes}. It is to give two or more, each once.")
    if not 1 <= data.crop <= data.side:
        refuse(f"images of {data.side} pixels and a crop of {data.crop}, which does not fit in.")
    for name in ("labels", *PARTS):
        given, most = getattr(data, name), classes if name == "labels" else count
        is_right = isinstance(given, Tensor) and given.dtype == torch.int64 and given.ndim == 1
        if not is_right or not len(given):
            is_tensor = isinstance(given, Tensor)
            found = f"{given.dtype} {tuple(given.shape)}" if is_tensor else type(given).__name__
            refuse(f"{found} as {name}. It is to give a tensor (n,) of int64.")
        if not 0 <= given.min() <= given.max() < most:
            refuse(f"{name} from {given.min()} to {given.max()}. They are to be 0 to {most - 1}.")
    if len(data.labels) != count:
        refuse(f"{len(data.labels)} labels for {count} files.")
    for name in PARTS[:2]:
        if both := int(torch.isin(getattr(data, name), data.test).sum()):
            log.warning(
                "WARNING: %s gives %d images of %s to the test, too: it says little of new images.",
                target, both, name,
            )  # fmt: skip


def require_features(frozen: Any, target: str, size: int, device: torch.device) -> None:
    """Raise InputError unless what is frozen of a plugin's model gives a tensor, which is kept."""
    if frozen is None or not plugins.adds(target):
        return
    image = torch.zeros(1, 3, size, size, dtype=torch.uint8, device=device)
    with torch.no_grad():
        given = frozen.eval()(image)
    if not isinstance(given, Tensor):
        raise InputError(
            f"{target} gives a {type(given).__name__} in the part that is frozen. It is to give "
            "one tensor, of which the other part makes the logits. Type freeze=none."
        )


def require_rebuilt(
    model: Any, again: Callable[[], Any], target: str, values: Any, size: int
) -> None:
    """Raise InputError unless a plugin's model is all in its weights, as a finished run needs it.

    Args:
        model: in eval mode; its generators' state is left as it is.
        again: builds it without weights (load=False).
        target, values: what gave it, and of what. They are asked once a process, and not in each
            trial of a sweep.
        size: of its images in pixels.
    """
    asked = f"{target} {values} {size} {plugins.digests([target])}"
    if not plugins.adds(target) or asked in _rebuilt:
        return
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)  # other numbers than those that it was made with
        images = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)
        expected, rebuilt = model(images), again()
        try:
            rebuilt.load_state_dict(model.state_dict())
            found = rebuilt.eval()(images)
            said = f"answers {found[0, 0]:.6g} in place of {expected[0, 0]:.6g}"
        except Exception as error:
            found, said = None, f"fails: {type(error).__name__}: {error}"
    tolerance = {"rtol": 1e-4, "atol": 1e-5, "equal_nan": True}
    if found is None or not torch.allclose(found, expected, **tolerance):
        raise InputError(
            f"{target} is not all in its weights: built anew, and given the same ones, it {said}. "
            "A finished run would not answer as it was tested. What is drawn at random has to be a "
            "parameter or a buffer with persistent=True, and nothing in eval mode."
        )
    _rebuilt.add(asked)


def require_loss(loss: Any, target: str, num_classes: int) -> None:
    """Raise InputError unless a plugin's loss of two images is one number that can be trained on.

    Args:
        target: what gave it.
    """
    if not plugins.adds(target):
        return
    logits = torch.zeros(2, num_classes, requires_grad=True)
    is_module = isinstance(loss, nn.Module)
    buffers = loss.named_buffers() if is_module else ()
    before = {name: each.clone() for name, each in buffers}
    try:
        value = loss(logits, torch.arange(2))
        value.backward()
    except Exception as error:
        raise InputError(
            f"{target} is no loss of logits (n, {num_classes}) and labels (n,): "
            f"{type(error).__name__}: {error}. It is to give their mean, a tensor with a gradient."
        ) from error
    weight = getattr(loss, "weight", None)
    if weight is not None and getattr(weight, "shape", None) != (num_classes,):
        raise InputError(
            f"{target} has an attribute weight, which is read as torch's losses have it: a tensor "
            f"({num_classes},), the classes' weights in their mean. Give it another name."
        )
    after = dict(loss.named_buffers()) if is_module else {}
    changed = [name for name in before if not _is_equal(before[name], after.get(name))]
    weights = loss.named_parameters() if is_module else ()
    trained = [name for name, weight in weights if weight.requires_grad]
    if changed or trained:
        log.warning(
            "%s has a state of its own (%s): it is not trained, no checkpoint keeps it, and a run "
            "that goes on begins it anew. Put what is to be trained into the model.",
            target, ", ".join(dict.fromkeys([*changed, *trained])),
        )  # fmt: skip


def _is_equal(one: Any, other: Any) -> bool:
    """Of two tensors, where what is not a number is equal to itself."""
    return other is not None and one.nan_to_num().equal(other.nan_to_num())


def require_augment(augment: Any, target: str, side: int, crop: int) -> None:
    """Raise InputError unless a plugin's augmentation gives uint8 images of the crop's size."""
    if not plugins.adds(target):
        return
    with torch.random.fork_rng(devices=[]):
        try:
            given = augment(torch.zeros(2, side, side, 3, dtype=torch.uint8), torch.arange(2), crop)
            found = f"{given.dtype} {tuple(given.shape)}"
        except Exception as error:
            found = f"{type(error).__name__}: {error}"
    if found != (asked := f"torch.uint8 {(2, 3, crop, crop)}"):
        raise InputError(
            f"{target} gives {found} for the pixels {(2, side, side, 3)} of two images, their "
            f"indices and the size {crop}. It is to give {asked}."
        )
