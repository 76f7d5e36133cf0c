"""conf/README.md, made from conf/ and the table of root keys: `python -m tests.documents`."""

import re
from pathlib import Path

from caltech.settings import CONF, ROOT, kind
from tests.conftest import REPOSITORY

PLACE = REPOSITORY / "conf" / "README.md"
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


if __name__ == "__main__":
    PLACE.write_text(reference())
