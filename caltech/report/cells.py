"""One number of ours beside the published one, and how numbers are written."""

from dataclasses import dataclass

from caltech.report.rows import Row, Run
from caltech.report.statistics import Interval

INCOMPARABLE = ("erratum", "other images")
SMALL_NUMBERS = ("lr", "weight_decay")  # the study writes these as 1e-3


@dataclass(frozen=True)
class Cell:
    """A number of ours, and what is published of it."""

    ours: float | None
    deviation: float | None  # over seeds
    published: float | None
    status: str  # why there is no number of ours: not run, running, pruned, failed
    # agrees, better, worse, erratum, other images, or the status; empty without both numbers
    verdict: str
    is_loss: bool

    @property
    def difference(self) -> float | None:
        if self.ours is None or self.published is None or self.verdict in INCOMPARABLE:
            return None
        return self.ours - self.published

    def text(self) -> str:
        """`0.2969 ± 0.0021 (published 0.3001, -0.0032, agrees)`."""
        told = [] if self.published is None else [f"published {self.show(self.published)}"]
        told += [] if self.difference is None else [self.show_difference()]
        told += [self.verdict] if self.verdict != self.status else []
        return f"{self.show_ours()} ({', '.join(told)})" if told else self.show_ours()

    def show(self, number: float) -> str:
        """Four digits: what 2893 images can tell."""
        return f"{number:#.4g}" if self.is_loss else f"{number:.4f}"

    def show_ours(self) -> str:
        if self.ours is None:
            return self.status
        spread = "" if self.deviation is None else f" ± {self.show(self.deviation)}"
        return self.show(self.ours) + spread

    def show_difference(self) -> str:
        number = self.difference
        return f"{number:+.2g}" if self.is_loss else f"{number:+.4f}"


def cell(row: Row, metric: str) -> Cell:
    """One number of a row beside the published one."""
    ours, published = row.mean(metric), None
    if row.published is not None:
        published = row.published.numbers.get(metric)
    is_loss, status = "loss" in metric, _status(row) if ours is None else ""
    verdict = status
    if published is not None and metric in row.published.errata:
        verdict = "erratum"
    elif published is not None and not row.is_comparable:
        verdict = "other images"
    elif published is not None and ours is not None:
        verdict = _verdict(ours, row.interval(metric), published, is_loss)
    return Cell(ours, row.deviation(metric), published, status, verdict, is_loss)


def _verdict(ours: float, interval: Interval | None, published: float, is_loss: bool) -> str:
    if interval is None:
        return ""
    if published in interval:
        return "agrees"
    return "better" if (ours > published) != is_loss else "worse"


def _status(row: Row) -> str:
    """Of a row without a finished run."""
    if not row.runs:
        return "not run"
    return state(row.runs[0])


def state(run: Run) -> str:
    """What became of a run, or how far it is."""
    if run.status == "pruned":
        return f"pruned after epoch {run.epochs}"
    if run.status == "running":
        return f"running, epoch {run.epochs} of {run.params['num_epochs']}"
    return run.status


def show_parameter(name: str, value: str) -> str:
    """As the study writes it: 1e-3 and 5e-5, but 0.1 for gamma."""
    if name == "start":  # a key, though it may read as a number
        return value
    try:
        number = float(value)
    except ValueError:
        return value
    if name not in SMALL_NUMBERS or number == 0:
        return f"{number:g}"
    mantissa, exponent = f"{number:.4e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def show_seconds(seconds: float | None) -> str:
    """In a unit that fits."""
    if seconds is None:
        return ""
    if seconds < 100:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min"


def show_p(value: float) -> str:
    """Three digits, and no more zeros than matter."""
    return "< 1e-6" if value < 1e-6 else f"{value:.2g}"
