"""What of the documents is made: `python -m tests.documents`.

conf/README.md from conf/ and the table of root keys; README's picture from the course's table.csv.
"""

import csv
import io
import re
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from caltech.report.landscape import BLUE, INK
from caltech.report.pictures import STYLE
from caltech.settings import CONF, ROOT, kind
from tests.conftest import REPOSITORY

PLACE = REPOSITORY / "conf" / "README.md"
COURSE = REPOSITORY / "multirun" / "course"
PICTURE = COURSE / "accuracy.svg"
PAPER = "#ffffff"  # also where a page is dark
HEAD = """\
# Every group, option and key

Made by `python -m tests.documents` from the files of this folder. A group's option is chosen by
`GROUP=OPTION`, a value within it by `GROUP.KEY=VALUE`, a key of the last table by `KEY=VALUE`.
`+GROUP.KEY=VALUE` adds an argument of what the option calls: `+optimizer.nesterov=true`.
`python -m caltech.train --cfg job` and the words of a command show what it would compute with.
"""


def reference() -> str:
    """The whole document."""
    groups = [path for path in sorted(CONF.iterdir()) if path.is_dir() and path.name != "hydra"]
    named = [*groups, CONF / "hydra" / "launcher"]
    defaults = dict(re.findall(r"^  - (\w+): (\w+)", (CONF / "train.yaml").read_text(), re.M))
    parts = [HEAD, *(_group(path, defaults) for path in named), _keys()]
    return "\n".join(parts)


def _group(folder: Path, defaults: dict[str, str]) -> str:
    name = str(folder.relative_to(CONF))
    lines = [f"## {name}", "", "| option | what it is | its keys |", "| --- | --- | --- |"]
    for path in sorted(folder.rglob("*.yaml")):
        option = str(path.relative_to(folder).with_suffix(""))
        is_default = " (default)" if defaults.get(name) == option else ""
        keys = "" if name in ("experiment", "sweep") else ", ".join(_values(path))
        lines.append(f"| `{option}`{is_default} | {_cell(_comment(path))} | {_cell(keys)} |")
    return "\n".join([*lines, ""])


def _comment(path: Path) -> str:
    """The lines of an option's head, without Hydra's own; commands as such."""
    head = re.match(r"(?:#.*\n)*", path.read_text()).group().replace("\\\n#  ", "")
    lines = [line.removeprefix("#").strip() for line in head.splitlines() if "@package" not in line]
    return " ".join(re.sub(r"(?<!`)(python -m .*)$", r"`\1`", line) for line in lines)


def _values(path: Path) -> list[str]:
    """`key=value`, and what the comment behind it says, of each key at the first level."""
    found = re.findall(r"^(?!_)(\w+): ?(.*?)(?:  # (.*))?$", path.read_text(), re.M)
    pairs = [
        (f"`{key}={value}`", said) for key, value, said in found if key != "defaults" and value
    ]
    return [f"{pair} ({said})" if said else pair for pair, said in pairs]


def _keys() -> str:
    """The root keys that are no groups: default, meaning, what is allowed."""
    text = (CONF / "train.yaml").read_text()
    found = {key: rest for key, *rest in re.findall(r"^(\w+): (.*?)(?:  # (.*))?$", text, re.M)}
    lines = ["## Keys", "", "| key | default | what it is |", "| --- | --- | --- |"]
    for key in (key for key in ROOT if key in found):
        value, said = found[key]
        rule = kind(key).removeprefix("it is ")
        lines.append(f"| `{key}` | `{value}` | {_cell('; '.join(filter(None, [said, rule])))} |")
    return "\n".join([*lines, ""])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def shown() -> list[dict[str, str]]:
    """The rows of the picture: all of the course's but those on images of another size."""
    rows = csv.DictReader((COURSE / "table.csv").read_text("utf-8").splitlines())
    return [row for row in rows if "crop=" not in row["Model"]]


def name_of(row: dict[str, str]) -> str:
    """Without its precision, which no reader of the picture asks for."""
    name = re.sub(r"(, )?precision=bf16|ours", "", row["Model"])
    return name.replace("()", "").strip()


def picture() -> str:
    """Test accuracy of the course's rows with 95 % intervals, beside the published numbers: SVG."""
    own = {"svg.fonttype": "none", "svg.hashsalt": "caltech", "font.family": "serif"}
    with mpl.rc_context(fname=STYLE), mpl.rc_context(own):
        axes = Figure((7.2, 5), facecolor=PAPER).subplots()
        place, places, names, title = 0, [], [], ""
        for row in shown():
            if row["Table"] != title:
                title = row["Table"]
                axes.text(1, place, title, style="italic", va="center", fontsize=9)
                place += 1
            _mark(axes, place, row)
            places.append(place)
            names.append(name_of(row))
            place += 1
        axes.set_yticks(places, names)
        axes.set(xlim=(0, 100), ylim=(place - 0.4, -0.6), xlabel="test accuracy, %")
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="x", lw=0.3)
        handles, labels = axes.get_legend_handles_labels()
        once = dict(zip(labels, handles, strict=True))
        axes.legend(once.values(), once.keys(), loc="upper right")
        written = io.StringIO()
        axes.figure.savefig(written, format="svg", metadata={"Date": None})
    return re.sub(r"[ \t]+$", "", written.getvalue(), flags=re.M)


def _mark(axes, place: float, row: dict[str, str]) -> None:
    """Ours with its interval, and a circle for the published number."""
    ours, low, high, published = (
        100 * float(row[f"TESTING ACC{what}"] or "nan")
        for what in ("", " low", " high", " published")
    )
    axes.plot([low, high], [place, place], color=BLUE, lw=2)
    axes.plot(ours, place, "o", color=BLUE, ms=4, label="ours, 95 % interval")
    axes.plot(published, place, "o", mfc="none", mec=INK, ms=6, label="published")


if __name__ == "__main__":
    PLACE.write_text(reference())
    PICTURE.write_text(picture())
