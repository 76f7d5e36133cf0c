"""A study's tables as Markdown, for the terminal and for git."""

import re
from collections.abc import Sequence

from caltech.report.cells import show_p
from caltech.report.statistics import Pair
from caltech.report.tables import MEASURES, STATISTICS, Line, Sheet


def write(
    study: str, sheets: Sequence[Sheet], baselines: Sequence[str], reading: Sequence[str]
) -> str:
    """All tables with their notes."""
    parts = [f"# Study {escape(study)}", *map(escape, baselines)]
    for each in sheets:
        parts += [f"## {escape(each.title)}", _markdown_results(each)]
        parts += [f"({letter}) {escape(text)}." for letter, text in each.notes.items()]
        if each.missing:
            commands = "\n".join(each.missing)
            parts.append(f"Not run or not finished; to run them:\n\n```sh\n{commands}\n```")
        finished = [line for line in each.lines if line.row.finished]
        if finished:
            body = [[_marked(line.label, line), *line.statistics.values()] for line in finished]
            parts.append(_markdown_table([each.head, *STATISTICS], body))
        if each.pairs:
            parts.append(_markdown_pairs(each.pairs))
    parts += ["## How to read this", "\n".join(f"- {escape(line)}" for line in reading)]
    return "\n\n".join(parts) + "\n"


def _markdown_results(each: Sheet) -> str:
    names = list(each.lines[0].values)
    body = [
        [
            _marked(line.label, line),
            *line.values.values(),
            *(cell.text() for cell in line.cells.values()),
        ]
        for line in each.lines
    ]
    return _markdown_table([each.head, *names, *MEASURES], body)


def _markdown_pairs(pairs: Sequence[Pair]) -> str:
    header = ["McNemar", "only the first is right", "only the second", "p", "p (Holm)"]
    body = [
        [
            f"{p.first} / {p.second}",
            p.only_first,
            p.only_second,
            show_p(p.p_value),
            show_p(p.p_adjusted),
        ]
        for p in pairs
    ]
    return _markdown_table(header, body)


def _marked(text: str, line: Line) -> str:
    return f"{text} ({', '.join(line.marks)})" if line.marks else text


def _markdown_table(header: Sequence[str], body: Sequence[Sequence[object]]) -> str:
    rows = [header, ["---"] * len(header), *body]
    return "\n".join("| " + " | ".join(escape(str(c)) for c in row) + " |" for row in rows)


def escape(text: str) -> str:
    """Text in a cell: no column's end, no link, no HTML; `p < 0.05` stays as it is."""
    text = re.sub(r"([\\`*|\[\]])", r"\\\1", " ".join(text.split()))
    text = re.sub(r"&(?=#?\w+;)", "&amp;", text)
    return re.sub(r"<(?=[A-Za-z/!?])", "&lt;", text)
