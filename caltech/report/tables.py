"""The columns of the report, each once: for people, for a spreadsheet, and what is said of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from caltech.metrics import COLLAPSED_SHARE
from caltech.report.rows import Row, Table
from caltech.report.sources.ensembles import Ensemble
from caltech.report.trained import MEAN_OVER_CLASSES

# The study's columns, in its order.
HYPERPARAMETERS = ("lr", "momentum", "weight_decay", "num_epochs", "step_size", "gamma")
MEASURES = {
    "TRAINING LOSS AT LAST STEP": "train/loss_last_step",
    "VALIDATION ACC": "val/accuracy",
    "TESTING ACC": "test/accuracy",
}
SMALL_NUMBERS = ("lr", "weight_decay")  # the study writes these as 1e-3


class Cell:
    """A number of ours beside the published one."""

    def __init__(self, row: Row, metric: str) -> None:
        is_loss = "loss" in metric
        self.digits, self.change = ("#.4g", "+.2g") if is_loss else (".4f", "+.4f")
        self.ours, self.deviation = row.mean(metric), row.deviation(metric)
        self.published = row.published and row.published.numbers.get(metric)
        self.status = row.status if self.ours is None else ""  # why there is none
        # agrees, better, worse, open, erratum, other protocol, or the status.
        self.verdict, self.difference = self.status, None
        if self.published is None:
            return
        if metric in row.published.errata:
            self.verdict = "erratum"
        elif row.finished and not row.published.protocol:
            self.verdict = "no protocol"
        elif row.other_protocol:
            self.verdict = "other protocol"
        elif self.ours is not None:
            self.difference = self.ours - self.published
            differs, has_one_seed = row.differs(metric, self.published), len(row.finished) == 1
            if differs is not None:
                apart = "better" if (self.difference > 0) != is_loss else "worse"
                self.verdict = apart if differs else "agrees"
            elif not is_loss and (has_one_seed or metric == MEAN_OVER_CLASSES):
                self.verdict = "open"

    @property
    def parts(self) -> list[tuple[str, str]]:
        """Ours, the published number, and how they compare: each with its class on a page."""
        parts = [("missing", self.status)]
        if self.ours is not None:
            parts = [("", _spread(self.ours, self.deviation, self.digits))]
        if self.published is not None:
            parts.append(("published", f"published {self.published:{self.digits}}"))
        compared = [] if self.difference is None else [f"{self.difference:{self.change}}"]
        compared += [self.verdict] * (self.verdict != self.status)
        if compared:
            parts.append((f"difference {self.verdict}".strip(), ", ".join(compared)))
        return parts

    def __str__(self) -> str:
        """`0.2969 ± 0.0021 (published 0.3001, -0.0032, agrees)`."""
        ours, *others = [text for _, text in self.parts]
        return f"{ours} ({', '.join(others)})" if others else ours


@dataclass(frozen=True)
class Column:
    """A column of the report. One more is one more in a list below, and nothing else."""

    name: str
    show: Callable[[Row], object] | None  # for people: text or a Cell; None is only in spreadsheets
    value: Callable[[Row], dict[str, object]] | None = None  # there, by name; None is as shown
    explanation: str = ""  # in "How to read this"; a line is a point
    wraps: bool = False  # on a page, being long

    def cells(self, row: Row) -> dict[str, object]:
        """In a spreadsheet, by name, in full precision."""
        return self.value(row) if self.value else {self.name: self.show(row)}


def parameters(table: Table) -> list[Column]:
    """The study's hyperparameters, or the keys that differ."""
    if table.columns:
        return [Column(name, partial(_parameter, name)) for name in table.columns]
    return [Column(name.upper(), partial(_hyperparameter, name)) for name in HYPERPARAMETERS]


def _parameter(name: str, row: Row) -> str:
    """As the study writes it: 1e-3 and 5e-5, but 0.1 for gamma."""
    value = row.params.get(name, "")
    try:
        number = float(value)
    except ValueError:
        return value
    if name == "start":  # a key, though it may read as a number
        return value
    if name not in SMALL_NUMBERS or number == 0:
        return f"{number:g}"
    mantissa, exponent = f"{number:.4e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def _hyperparameter(name: str, row: Row) -> str:
    schedule = row.params.get("schedule", "step")
    if schedule != "step" and name in ("step_size", "gamma"):  # the others have neither
        return schedule if name == "step_size" else ""
    return _parameter(name, row)


def results(table: Table) -> tuple[Column, ...]:
    """The study's measures, and the mean over classes where a published number is of it."""
    numbers = [row.published.numbers for row in table.rows if row.published]
    if not any(MEAN_OVER_CLASSES in each for each in numbers):
        return RESULTS
    name = "Macro TESTING ACC"
    return *RESULTS, _measure(name, MEAN_OVER_CLASSES), _of_measure(name, MEAN_OVER_CLASSES)


def _measure(name: str, metric: str) -> Column:
    return Column(name, partial(Cell, metric=metric), lambda row: {name: row.mean(metric)})


def _of_measure(name: str, metric: str) -> Column:
    """What stands in one cell for people."""
    kept = {"sd": "deviation"} | {each: each for each in ("published", "difference", "verdict")}

    def value(row: Row) -> dict[str, object]:
        cell = Cell(row, metric)
        return {f"{name} {word}": getattr(cell, attribute) for word, attribute in kept.items()}

    return Column(name, None, value)


def _over_seeds(name: str, metric: str, explanation: str = "", show=None) -> Column:
    def value(row: Row) -> dict[str, object]:
        return {name: row.mean(metric), f"{name} sd": row.deviation(metric)}

    def spread(row: Row) -> str:
        return _spread(row.mean(metric), row.deviation(metric), ".4f")

    return Column(name, show or spread, value, explanation)


def _spread(mean: float | None, deviation: float | None, digits: str) -> str:
    return " ± ".join(f"{value:{digits}}" for value in (mean, deviation) if value is not None)


def _bounds(row: Row) -> dict[str, object]:
    bounds = row.interval("test/accuracy")
    return {"TESTING ACC low": bounds.low, "TESTING ACC high": bounds.high} if bounds else {}


def _time(row: Row) -> str:
    """In a unit that fits."""
    seconds = row.mean("seconds")
    if seconds is None or seconds >= 100:
        return "" if seconds is None else f"{seconds / 60:.0f} min"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"


def _device(row: Row) -> str:
    """Of all seeds, over which the training time is a mean."""
    return "; ".join(dict.fromkeys(_computed_on(run.environment) for run in row.finished))


def _computed_on(told: Mapping[str, str]) -> str:
    name, threads = told.get("device", ""), told.get("threads")
    return f"{name}, {threads} thread{'s' * (threads != '1')}" if threads else name


RESULTS = (
    *(_measure(*each) for each in MEASURES.items()),
    *(_of_measure(*each) for each in MEASURES.items()),
    Column("TESTING ACC", None, _bounds),
)
STATISTICS = (
    Column("Seeds", lambda row: len(row.finished)),
    replace(
        _over_seeds("Best epoch", "val/best_epoch",
            "Validation chose the best epoch, so the best epoch's VALIDATION ACC is the highest of "
            "as many tries, and higher than on new images. Its TESTING ACC had no say.",
            lambda row: ", ".join(f"{epoch:.0f}" for epoch in row.values("val/best_epoch"))),
        name="Best epoch, chosen by validation"),
    _over_seeds("Best epoch's VALIDATION ACC", "val/best_accuracy"),
    _over_seeds("Best epoch's TESTING ACC", "test/best_accuracy"),
    Column("95 % interval of TESTING ACC",
        lambda row: " to ".join(f"{bound:.4f}" for bound in _bounds(row).values()),
        lambda row: {},
        "The 95 % interval is Wilson's for the number of test images and, with several seeds, "
        "Student's over the seeds joined to it.\n"
        "McNemar's exact two-sided test compares rows on the same test images, by the last epoch's "
        "answers of the first seed."),
    _over_seeds("Macro TESTING ACC", "test/accuracy_per_class",
        f"A run is called collapsed if {COLLAPSED_SHARE:.0%} of its answers or more are "
        "one class. Macro accuracy is the mean of the classes' own accuracies; TESTING ACC counts "
        "images."),
    Column("Calibration error",
        lambda row: f"{row.calibration_error:.4f}" if row.predictions else "", None,
        "The calibration error is the expected one, over 15 bins of equal width. It and the "
        "pictures are of the first seed."),
    Column("Training time", _time, lambda row: {},
        "Training time is the mean over seeds of all epochs with their validation, without "
        "decoding images and without computing a frozen part's outputs."),
    Column("Device", _device, wraps=True),
    Column("Code", lambda row: ", ".join(dict.fromkeys(run.version for run in row.finished)),
        wraps=True),
    Column("Training time", None, lambda row: {"Training seconds": row.mean("seconds")}),
)  # fmt: skip


def _first(name: str, row: Row) -> str:
    """A number of the first seed, as the calibration error is."""
    number = row.first.number(name) if row.finished else None
    return "" if number is None else f"{number:.4f}"


CALIBRATED = (
    Column("Temperature", partial(_first, "test/temperature")),
    Column("Calibrated error", partial(_first, "test/calibrated_error"), None,
        "The temperature is what logits are divided by so that the loss on the validation images "
        "is least (Guo et al., 2017). The calibrated error is the calibration error after it, of "
        "the first seed, too. No answer changes."),
)  # fmt: skip


def statistics_of(tables: Sequence[Table]) -> tuple[Column, ...]:
    """STATISTICS, with the temperature's where there is one: runs of earlier code have none."""
    rows = [row for table in tables for row in table.rows]
    if not any(row.values("test/temperature") for row in rows):
        return STATISTICS
    place = 1 + next(n for n, each in enumerate(STATISTICS) if each.name == "Calibration error")
    return (*STATISTICS[:place], *CALIBRATED, *STATISTICS[place:])


def joined(ensemble: Ensemble) -> dict[str, str]:
    """An ensemble's row for people, by column."""
    told, known = ensemble.metrics, ensemble.predictions
    only, other, p_value = ensemble.pair
    bounds = ensemble.interval
    error = f"{known.calibration.error:.4f}"
    if "test/temperature" in told:
        error += f"; {told['test/calibrated_error']:.4f} at T {told['test/temperature']:.3f}"
    single = next(each["name"] for each in ensemble.members if each["key"] == ensemble.single)
    validation = told.get("val/accuracy")
    return {
        "Ensemble": ensemble.name,
        "VALIDATION ACC": "" if validation is None else f"{validation:.4f}",
        "TESTING ACC": f"{told['test/accuracy']:.4f}",
        "95 % interval of TESTING ACC": f"{bounds.low:.4f} to {bounds.high:.4f}",
        "Best epochs' TESTING ACC": f"{told['test/best_accuracy']:.4f}",
        "Macro TESTING ACC": f"{told['test/accuracy_per_class']:.4f}",
        "Calibration error": error,
        "best single run": single,
        "its TESTING ACC": f"{ensemble.single_accuracy:.4f}",
        "only the ensemble is right": str(only),
        "only the single run": str(other),
        "p (McNemar)": f"{p_value:.2g}",
    }


def in_full(ensemble: Ensemble) -> dict[str, object]:
    """An ensemble's row in a spreadsheet, in the names of the runs' columns."""
    told, bounds = ensemble.metrics, ensemble.interval
    return {
        "Model": ensemble.name,
        "VALIDATION ACC": told.get("val/accuracy"),
        "TESTING ACC": told["test/accuracy"],
        "TESTING ACC low": bounds.low,
        "TESTING ACC high": bounds.high,
        "Best epoch's VALIDATION ACC": told.get("val/best_accuracy"),
        "Best epoch's TESTING ACC": told["test/best_accuracy"],
        "Macro TESTING ACC": told["test/accuracy_per_class"],
        "Calibration error": ensemble.predictions.calibration.error,
        "Temperature": told.get("test/temperature"),
        "Calibrated error": told.get("test/calibrated_error"),
        "Best single run": ensemble.single,
        "Its TESTING ACC": ensemble.single_accuracy,
        "McNemar p": ensemble.pair[2],
    }
