"""What a report is of: a study, or several studies or sweeps side by side."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from omegaconf import DictConfig

from caltech.errors import InputError
from caltech.report.sources.study import Found, combine, is_like, is_same
from caltech.report.trained import FINISHED, Run
from caltech.runs.known import names, typed
from caltech.settings import names_a_folder, require_allowed

RECORD = re.compile(r"(.+)-\d+\.json")  # of a job, in its sweep's folder; the key comes first
FROM = "from"  # the column that tells rows of several studies or sweeps apart


@dataclass(frozen=True)
class Asked:
    """Studies of one folder, and the sweeps that runs are taken from; without these, all runs."""

    output: Path
    studies: tuple[str, ...]
    sweeps: Mapping[str, frozenset[str]]  # by its name, the keys of a sweep's jobs

    @classmethod
    def of(cls, cfg: DictConfig) -> "Asked":
        """As typed.

        Raises:
            InputError: a study's name is none, or there is no such sweep.
        """
        output, studies = Path(cfg.output), names(cfg.study)
        for study in studies:
            require_allowed("study", study)
        if not studies:
            raise InputError("study=[] names no study. Type study=course.")
        asked = cls(output, studies, _sweeps(output, studies, names(cfg.sweeps)))
        if not names_a_folder(asked.name):
            raise InputError(
                f"{len(studies) + len(asked.sweeps)} studies and sweeps are too many for the name "
                "of their report's folder. Type fewer in study= and sweeps=."
            )
        is_own = any(asked.folder.glob("*/config.yaml")) or (asked.folder / "kept").exists()
        if asked.is_joined and is_own:
            raise InputError(
                f"{asked.folder} is where this report would be written, and {asked.name} is a "
                f"study of its own, whose report would be lost. Type {typed(asked.name)} for that "
                "one, or rename its folder."
            )
        return asked

    @property
    def name(self) -> str:
        """Of the report, and of its folder: a study's own, or all names joined by +."""
        return "+".join([*self.studies, *self.sweeps])

    @property
    def folder(self) -> Path:
        return self.output / self.name

    @property
    def is_joined(self) -> bool:
        return len(self.studies) + len(self.sweeps) > 1

    def together(self, found: Mapping[str, Found]) -> Found:
        """All that was found, as of one study; an ensemble is of no sweep."""
        studies = found.values()
        return Found(
            runs=self.joined(found),
            kept=[],
            unused=[each for of_study in studies for each in of_study.unused],
            names={digest: of for of_study in studies for digest, of in of_study.names.items()},
            ensembles=[e for of_study in studies for e in of_study.ensembles if not self.sweeps],
        )

    def joined(self, found: Mapping[str, Found]) -> list[Run]:
        """The runs of all studies, told where each is from: its studies, or of named sweeps those
        that it is of.

        Args:
            found: by study. A run of two studies that say the same of it is one run. Where they say
                other things, as after an edit of the code, each study's runs are a row of its own.
        """
        if not self.is_joined:
            return found[self.studies[0]].runs
        runs = []
        for point in dict.fromkeys(run.point for each in found.values() for run in each.runs):
            told = _agreeing(found, point)
            for studies, own in told.items():
                names = [
                    s for s, keys in self.sweeps.items() if any(run.key in keys for run in own)
                ]
                if names and len(told) > 1:
                    names = [f"{name} in {' and '.join(studies)}" for name in names]
                if origin := " and ".join(names if self.sweeps else studies):
                    runs += [replace(run, params=run.params | {FROM: origin}) for run in own]
        if not runs:
            raise InputError(f"{self.name} has no run. Type other names in study= or sweeps=.")
        return sorted(runs, key=lambda run: (run.started, run.key))


def _agreeing(found: Mapping[str, Found], point: str) -> dict[tuple[str, ...], list[Run]]:
    """The runs of a point, which are all its seeds, by the studies that say the same of them."""
    groups: dict[tuple[str, ...], list[Run]] = {}
    for study, of_study in found.items():
        own = [replace(r, place=f"../{study}/") for r in of_study.runs if r.point == point]
        if own:
            like = next((each for each, runs in groups.items() if not _differ(runs, own)), ())
            groups[(*like, study)] = combine([*groups.pop(like, []), *own], [], [])
    return groups


def _differ(runs: Sequence[Run], others: Sequence[Run]) -> bool:
    """Whether a finished run of a key has other numbers than another, by more than rounding."""
    known = {run.key: run for run in runs if run.status == FINISHED}
    pairs = [(known[r.key], r) for r in others if r.status == FINISHED and r.key in known]
    return not all(is_same(*pair) or is_like(*pair) for pair in pairs)


def _sweeps(
    output: Path, studies: Sequence[str], typed: Sequence[str]
) -> dict[str, frozenset[str]]:
    """The newest sweep of each name, of which the beginning is enough."""
    folders = [path for study in studies for path in (output / study / "sweeps").glob("*/")]
    folders.sort(key=lambda path: path.name)  # they begin with their time
    found = {}
    for name in typed:
        begun = [path for path in folders if path.name.startswith(name)]
        if not begun:
            known = ", ".join(path.name for path in folders[-5:]) or "none"
            raise InputError(
                f"sweeps={name} is no sweep of {' or '.join(studies)} in {output}. "
                f"The newest there are: {known}."
            )
        records = (RECORD.fullmatch(path.name) for path in begun[-1].glob("*-*.json"))
        found[begun[-1].name] = frozenset(record[1] for record in records if record)
    return found
