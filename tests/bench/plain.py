"""The plain recipe that the benchmarks compare with, and the few things that all of them need.

The plain recipe is what a student writes from torchvision's tutorial: ImageFolder with PIL
transforms, a DataLoader of two workers, contiguous float batches, torch.optim.SGD, glibc's malloc
as it is. It uses nothing of caltech but the place of the images.
"""

import functools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["HF_HUB_OFFLINE"] = "1"

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

REPOSITORY = Path(__file__).resolve().parents[2]
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
NUM_CLASSES = 101


def transforms() -> Callable:
    """What every tutorial has; the mean and std of the weights make no difference to time."""
    from torchvision import transforms as vision

    return vision.Compose(
        [vision.Resize(256), vision.CenterCrop(224), vision.ToTensor(), vision.Normalize(*IMAGENET)]
    )


def loader(root: Path, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Shuffled batches of all images but the background's, without end."""
    from torch.utils.data import DataLoader, Subset
    from torchvision.datasets import ImageFolder

    folder = ImageFolder(str(root / "caltech101" / "101_ObjectCategories"), transforms())
    background = folder.class_to_idx.get("BACKGROUND_Google", -1)
    wanted = [i for i, target in enumerate(folder.targets) if target != background]
    repeated = wanted * (1 + 8192 // len(wanted))  # the queue never runs dry while it is timed
    return iter(DataLoader(Subset(folder, repeated), batch_size, shuffle=True, num_workers=2))


def network(name: str, frozen: bool = False) -> nn.Module:
    """A torchvision network or EfficientNet-Lite0 by timm; frozen: all but its head.

    As in most tutorials, frozen means no gradient; train() still puts BatchNorm in training mode.
    """
    if name == "efficientnet_lite0":
        import timm

        model = timm.create_model("tf_efficientnet_lite0", num_classes=NUM_CLASSES)
    else:
        import torchvision

        model = torchvision.models.get_model(name, num_classes=NUM_CLASSES)
    if frozen:
        model.requires_grad_(False)
        list(model.children())[-1].requires_grad_(True)
    return model


def train_step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor, y: Tensor) -> None:
    """The training step of every tutorial."""
    optimizer.zero_grad()
    loss = F.cross_entropy(model(x), y)
    loss.backward()
    optimizer.step()


def train_rate(root: Path, name: str, batch_size: int, batches: int, frozen: bool = False) -> float:
    """Images a second of the plain recipe's training over `batches`, after two to warm up."""
    model = network(name, frozen).train()
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(trained, lr=1e-3, momentum=0.9, weight_decay=5e-5)

    def step(x: Tensor, y: Tensor) -> None:
        train_step(model, optimizer, x, y.clamp(max=NUM_CLASSES - 1))

    return _rate(loader(root, batch_size), step, batch_size, batches)


def evaluation_rate(root: Path, name: str, batch_size: int, batches: int) -> float:
    """Images a second of the plain recipe's validation."""
    model = network(name).eval()
    with torch.no_grad():
        return _rate(loader(root, batch_size), lambda x, y: model(x), batch_size, batches)


def _rate(source: Iterator, step: Callable, batch_size: int, batches: int) -> float:
    for _ in range(2):
        step(*next(source))
    start = time.perf_counter()
    for _ in range(batches):
        step(*next(source))
    return batches * batch_size / (time.perf_counter() - start)


@functools.cache
def images_root() -> Path:
    """Root of the real Caltech-101, or of generated images, which are deleted at exit."""
    places = [os.environ.get("CALTECH101_ROOT"), REPOSITORY.parent / "shared" / "datasets"]
    for place in filter(None, places):
        if (Path(place) / "caltech101" / "101_ObjectCategories").is_dir():
            return Path(place).resolve()
    root = Path(_folder())
    random = np.random.default_rng(0)
    for number in range(20):
        category = root / "caltech101" / "101_ObjectCategories" / f"category_{number:02d}"
        category.mkdir(parents=True)
        for index in range(30):
            small = random.integers(0, 255, (25, 30, 3), dtype=np.uint8)
            large = Image.fromarray(small).resize((300, 250), Image.Resampling.BICUBIC)
            large.save(category / f"image_{index:04d}.jpg", quality=90)
    os.environ["CALTECH101_ROOT"] = str(root)  # for subprocesses
    return root


@functools.cache
def _folder() -> str:
    folder = tempfile.TemporaryDirectory(prefix="caltech-bench-")
    _folder.kept = folder
    return folder.name


def data_line() -> str:
    """Which images are measured."""
    root = images_root()
    generated = str(root) == getattr(getattr(_folder, "kept", None), "name", None)
    return "GENERATED images, not Caltech-101" if generated else f"real Caltech-101 in {root}"


def cache() -> Path:
    """The warm cache: CALTECH_CACHE or the user's own, as the product has it."""
    return Path(os.environ.get("CALTECH_CACHE") or Path.home() / ".cache" / "caltech")


def typed(checkout: Path, cache: Path, *words: str) -> float:
    """Seconds of the training command as the code there has it, in a process of its own."""
    environment = os.environ | {"CALTECH_CACHE": str(cache), "PYTHONPATH": str(checkout)}
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "caltech.train", *words],
        cwd=checkout, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"{checkout} failed:\n{done.stderr[-2000:]}")
    return seconds


def configure(output: Path, *overrides: str) -> Any:
    """Compose a config as the command line does, on the CPU and without tracking."""
    from hydra import compose, initialize_config_dir

    from caltech.config import register
    from caltech.settings import CONF

    register()
    own = [f"output={output}", f"data.root={images_root()}", f"cache={cache()}"]
    own += ["device=cpu", "tracking=none", "study=bench"]
    with initialize_config_dir(config_dir=str(CONF)):
        return compose("train", [*own, *overrides])


def head(title: str) -> None:
    """Say what is measured, where, and with what."""
    import torchvision

    from caltech.runs.provenance import code_version

    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    print(title)
    print(
        f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores, "
        f"{torch.get_num_threads()} threads, Python {platform.python_version()}, "
        f"torch {torch.__version__}, torchvision {torchvision.__version__}, "
        f"caltech {code_version()['git']}"
    )
    print(data_line(), flush=True)


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print aligned columns; floats with three significant digits or whole numbers."""

    def shown(value: Any) -> str:
        if not isinstance(value, float):
            return str(value)
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"

    cells = [[shown(value) for value in row] for row in [header, *rows]]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        first, *others = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        print("  ".join([row[0].ljust(len(first)), *others]))
    sys.stdout.flush()


def verdict(what: str, ratio: float, goal: str, met: bool) -> None:
    """The number that a benchmark is for."""
    print(f"RATIO {what}: {ratio:.3g}  (goal {goal}: {'met' if met else 'MISSED'})", flush=True)


def alternate(
    sides: dict[str, Callable[[], float]], repeats: int, waits: bool = True
) -> dict[str, list[float]]:
    """Measure the sides in turn, in turning order, so that a slow drift falls on all of them.

    Args:
        waits: for a quiet machine, before each; for want of one, processor seconds still tell.
    """
    values: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(repeats):
        names = list(sides) if repeat % 2 == 0 else list(sides)[::-1]
        for name in names:
            values[name].append(undisturbed(sides[name], 3 if waits else 0))
    return values


def undisturbed(measure: Callable[[], Any], attempts: int = 3) -> Any:
    """The value of `measure` from the attempt in which other processes took least, see Others.

    Two processes of as many threads as there are cores wait for each other in every layer: another
    one's test made a training step not two but eight times as slow. So a measurement begins when
    the machine is quiet, and is made again if others took more than a tenth of it.

    Args:
        attempts: at most; 0 is one that waits for nothing.
    """
    tried = []
    for _ in range(max(1, attempts)):
        if attempts:
            wait_until_quiet()
        with Others() as others:
            value = measure()
        tried.append((others.share, value))
        if others.share < 0.1:
            break
    share, value = min(tried, key=lambda pair: pair[0])
    Others.seen.append(share)
    return value


def wait_until_quiet(seconds: float = 40) -> None:
    """Until other processes leave nine tenths of the machine for two seconds; not for ever."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with Others() as others:
            time.sleep(2)
        if others.share < 0.1:
            return


class Others:
    """Which share of all cores' time other processes (and the hypervisor) take while it is open."""

    seen: ClassVar[list[float]] = []
    share = 0.0

    def __enter__(self) -> "Others":
        self.start = self._now()
        return self

    def __exit__(self, *error: object) -> None:
        wall, busy, own = (b - a for a, b in zip(self.start, self._now(), strict=True))
        self.share = max(0.0, busy - own) / (wall * (os.cpu_count() or 1))

    @staticmethod
    def _now() -> tuple[float, float, float]:
        stat = Path("/proc/stat")
        own = sum(os.times()[:4])  # with children that have ended
        if not stat.is_file():
            return time.monotonic(), own, own
        ticks = [int(field) for field in stat.read_text().split("\n", 1)[0].split()[1:9]]
        busy = (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")  # not idle, not iowait
        return time.monotonic(), busy, own


def others_line() -> None:
    """How disturbed the measurements were."""
    if Others.seen:
        most = max(Others.seen)
        print(f"share of the machine that other processes took meanwhile: at most {most:.0%}")


def medians(values: dict[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(series) for name, series in values.items()}


def in_process(module: str, *arguments: object) -> Any:
    """What `python -m tests.bench.MODULE ARGUMENTS` prints as JSON in its last line."""
    command = [sys.executable, "-m", f"tests.bench.{module}", *map(str, arguments)]
    images_root()
    done = subprocess.run(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def one_step_seconds(step: Callable[[], Any], warmup: int, steps: int) -> float:
    """Median seconds of a call."""
    seconds = []
    for number in range(warmup + steps):
        start = time.perf_counter()
        step()
        if number >= warmup:
            seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)
