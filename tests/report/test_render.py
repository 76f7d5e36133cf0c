"""The forms of a report: nothing that a name holds is taken for markup, and numbers are numbers."""

import csv
import io
import re

import pytest

from caltech.report import render, rows
from tests.conftest import REPOSITORY
from tests.report.conftest import CLASSES, DATA, made_up, table


@pytest.mark.parametrize("name", ["<script>alert(1)<script>", "a|b 'c\" $d$", "=1+1"])
def test_names_are_escaped(name):
    run = made_up("model=alexnet")
    named = rows.Row(name, (run,), run.params | {"model": name})
    sheet = render.Sheet(rows.Table("Runs", (named,), ("model",), False), [run])
    text, html = render.text_and_page(name, [sheet], [run], {"Runs": []})
    assert "<script" not in html and "<b>" not in html and "<script" not in text
    assert len(table(text, "Runs")) == 1
    lines = csv.reader(io.StringIO(render.spreadsheet([sheet])))
    assert not [cell for line in lines for cell in line if cell[:1] in "=@" and cell]


@pytest.mark.parametrize("text", ["=1+1", "+x", "-x", "@x", "\tx", "\rx", "=-1"])
def test_no_cell_is_a_formula(text):
    assert render.harmless(text) == f"'{text}"


@pytest.mark.parametrize("value", [-1.5, "-1.5", "+0.0032", "1e-3", "ant", "", None])
def test_numbers_and_words_stay_as_they_are(value):
    assert render.harmless(value) == ("" if value is None else str(value))


def test_markdown_s_cells():
    assert render.markdown("a|b") == "a\\|b"
    assert render.markdown("<img src=x>") == "&lt;img src=x>"
    assert render.markdown("p < 0.05\nand") == "p < 0.05 and"
    assert render.markdown("\x1b[31mred\udcff") == "?\\[31mred?"  # a terminal shows it
    assert render.markdown("[x](y)") == "\\[x\\](y)"


def test_the_surest_errors_come_first():
    run = made_up(accuracy=0.5)
    found = render.mistakes(rows.Table("Runs", (rows.Row("x", (run,), {}),), (), False), 3)
    assert [mistake["index"] for mistake in found] == [399, 398, 397]
    assert found[0]["label"] == CLASSES[3] and found[0]["answer"] == CLASSES[0]


def test_a_page_needs_nothing_else():
    html = (REPOSITORY / "multirun" / "course" / "report.html").read_text()
    assert "default-src 'none'" in html and "data:image/png" in html
    assert set(re.findall(r"(?:src|href|url)\s*[=(]\s*[\"']?(\w+:)", html)) == {"data:"}
    assert not re.search(r"https?://|<script|<link|@import", html)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("0.3094", "30.94 %"),
        ("published 0.2969", "published 29.69 %"),
        ("+0.0124, agrees", "+1.24, agrees"),
        ("0.9585 ± 0.0023", "95.85 ± 0.23 %"),
        ("not run", "not run"),
    ],
)
def test_shares_are_percentages_on_a_page(text, shown):
    assert render.percent(text).replace("\N{NO-BREAK SPACE}", " ") == shown


@pytest.mark.parametrize("study", ["course", "search_best"])
def test_a_page_begins_with_what_came_out_and_every_link_leads_somewhere(study):
    folder = REPOSITORY / "multirun" / study
    html = (folder / "report.html").read_text()
    assert html.index("What came out") < html.index("Contents") < html.index("<table>")
    assert html.index(">TESTING ACC<") < html.index("TRAINING LOSS")
    links = re.findall(r'href="([^"]+)"', html)
    assert len([link for link in links if link.startswith("kept/")]) > 1
    for link in links:
        place = folder / link
        assert f'id="{link[1:]}"' in html if link.startswith("#") else place.is_file(), link


def test_one_test_image_is_no_images():
    run = made_up(data=DATA | {"images": {"test": 1}})
    (line,) = render._lines("baselines", runs=[run])
    assert line.startswith("On the 1 test image of made_up,")
