"""The device that is checked, and the table of what was found."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision

FOUND: list[tuple[str, object]] = []


@pytest.fixture(scope="session")
def device() -> torch.device:
    named = os.environ.get("CALTECH_CHECKED_DEVICE", "cuda")
    if named == "cuda" and not torch.cuda.is_available():
        pytest.skip("no GPU that torch can use; CALTECH_CHECKED_DEVICE=cpu tries it on the CPU")
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
