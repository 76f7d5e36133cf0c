"""The device that is checked, and the table of what was found."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision

from caltech.training import memory
from caltech.training.device import be_deterministic, use_tf32

FOUND: list[tuple[str, object]] = []


@pytest.fixture(scope="session")
def device() -> torch.device:
    named = os.environ.get("CALTECH_CHECKED_DEVICE", "cuda")
    if named == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU that torch can use; CALTECH_CHECKED_DEVICE=cpu tries it on the CPU")
    if named == "cuda":
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // 2))  # of what is compared with it
    return torch.device(named)


@pytest.fixture
def cuda(device) -> torch.device:
    """For what makes sense on a GPU alone."""
    if device.type != "cuda":
        pytest.skip("only a GPU has this")
    return device


@pytest.fixture
def tell(request) -> Callable[[object], None]:
    """Put what a test measured into the table."""
    return lambda value: FOUND.append((request.node.name, value))


def pytest_terminal_summary(terminalreporter) -> None:
    if not FOUND:
        return
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    head = {"card": card, "torch": torch.__version__, "torchvision": torchvision.__version__}
    terminalreporter.write_line(", ".join(head.values()))
    for name, value in FOUND:
        terminalreporter.write_line(f"{name}: {value}")
    Path("gpu_check.json").write_text(json.dumps(head | {"found": dict(FOUND)}, indent=2) + "\n")


@pytest.fixture(autouse=True)
def settings_restored():
    yield
    use_tf32(False)
    be_deterministic(False, torch.device("cpu"))
    memory._pixels.clear()
