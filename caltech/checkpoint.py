"""What is written to disk during and after training: always complete, or the previous version."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from caltech.loop import Totals
from caltech.pixels import replacing


class Stateful(Protocol):
    """A module, an optimizer, a schedule or a gradient scaler."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> Any: ...


def save(path: Path, parts: Mapping[str, Stateful], progress: Mapping[str, Any]) -> None:
    """Write the parts' states and the plain values and tensors in `progress`, atomically."""
    states = {name: part.state_dict() for name, part in parts.items()}
    with replacing(path) as partial:
        torch.save({"states": states, "progress": progress}, partial)


def load(path: Path, parts: Mapping[str, Stateful]) -> dict[str, Any]:
    """Put the saved states into `parts` and return the progress; executes nothing from the file."""
    saved = torch.load(path, map_location="cpu", weights_only=True)
    for name, part in parts.items():
        part.load_state_dict(saved["states"][name])
    return saved["progress"]


def keeper(
    path: Path,
    parts: Mapping[str, Stateful],
    progress: Mapping[str, Any],
    interval_seconds: float,
    interrupted: Callable[[], BaseException | None],
) -> Callable[[Totals], None]:
    """What to do after a step: save when it is time to or when interrupted, then raise that."""
    start = saved = time.perf_counter()

    def keep(totals: Totals) -> None:
        nonlocal saved
        now, error = time.perf_counter(), interrupted()
        if error is not None or now - saved > interval_seconds:
            inside = {
                "totals": dataclasses.asdict(totals),
                "generators": generator_states(),
            }
            seconds = progress["seconds"] + now - start
            save(path, parts, {**progress, "inside": inside, "seconds": seconds})
            saved = now
        if error is not None:
            raise error

    return keep


def save_weights(path: Path, model: nn.Module) -> None:
    """Write a complete model's parameters and buffers as safetensors, atomically."""
    tensors = {name: tensor.cpu().contiguous() for name, tensor in model.state_dict().items()}
    with replacing(path) as partial:
        save_file(tensors, partial)


def load_weights(path: Path, model: nn.Module) -> None:
    """Load what save_weights wrote into a model of the same architecture."""
    model.load_state_dict(load_file(path))


def copy_of(module: nn.Module) -> dict[str, Tensor]:
    """The module's present state in memory that training does not change."""
    return {name: tensor.detach().cpu().clone() for name, tensor in module.state_dict().items()}


def generator_states() -> dict[str, Any]:
    """States of torch's global generators, on the CPU and on every GPU."""
    return {"cpu": torch.get_rng_state(), "cuda": torch.cuda.get_rng_state_all()}


def set_generator_states(states: Mapping[str, Any]) -> None:
    """Go on with what generator_states gave."""
    torch.set_rng_state(states["cpu"])
    torch.cuda.set_rng_state_all(states["cuda"])
