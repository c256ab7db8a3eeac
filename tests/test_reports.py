"""Reports: one file that needs nothing else, says what it was given and nothing that it was not."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest
from browser import colours_of, look_at
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcache_plugins.reports import (
    Bar,
    Code,
    Drawing,
    Figure,
    Line,
    Part,
    Slice,
    Table,
    Tiles,
    Words,
    bars,
    chart,
    columns,
    page,
    share,
)

if TYPE_CHECKING:
    from pathlib import Path

EVIL = '<img src=x onerror="alert(1)">&\'"</svg></script>'


COLUMN_WORDS = ("whole_label", "part_label", "begin", "end", "unit")
NOT_XML = dict.fromkeys((*range(32), 0xFFFE, 0xFFFF, *range(0xD800, 0xE000)), " ")


def all_charts(text: str = "calls", value: float = 3.0) -> list[str]:
    return [
        share([Slice(label=text, value=value, text=text), Slice(label=text, value=1, text=text)], title=text),
        bars(
            [Bar(label=text, value=value, text=text, note=text), Bar(label="b", value=1, text="1")],
            title=text,
        ),
        columns(
            [5, 0, 3],
            [2, 0, 3],
            title=text,
            whole_label=text,
            part_label=text,
            begin=text,
            end=text,
            unit=text,
        ),
        chart(title=text, x_title=text, x_values=(0.5, 1, 3), lines=[Line(label=text, values=[1, 20, 3])]),
    ]


def a_page(text: str = "calls") -> str:
    drawings = [Drawing(svg) for svg in all_charts(text)]
    table = Table(head=[text, "n"], rows=[[text, "1,234"], ["b", "2"]], marked=0)
    figures = Tiles([Figure(value="$12.34", name=text, note=text, is_first=True)])
    return page(
        title=text,
        made=text,
        parts=[Part(text, [figures, Words(text), Code(text), *drawings, table])],
    )


def test_a_page_has_what_it_was_given():
    made = a_page("of all calls")
    for words in ("$12.34", "1,234", "<h1>of all calls</h1>", "<svg", "prefers-color-scheme: dark"):
        assert words in made
    assert made.count("<svg") == 4


def test_a_page_needs_nothing_else():
    made = a_page()
    assert "default-src 'none'" in made
    assert not re.findall(r"(?:src|href)=|@import|url\(|<script|<link|<iframe", made)
    assert set(re.findall(r"https?://[^\"' ]+", made)) == {"http://www.w3.org/2000/svg"}


def test_what_is_evil_is_only_text():
    made = a_page(EVIL)
    assert "<img" not in made
    assert "</script" not in made
    assert made.count("</svg>") == 4


@given(st.text(max_size=30))
@settings(deadline=None, max_examples=50)
def test_charts_are_well_formed_whatever_they_say(text: str):
    for svg in all_charts(
        text.translate(dict.fromkeys((*range(32), 65534, 65535, *range(55296, 57344)), " "))
    ):
        ElementTree.fromstring(svg)


@given(st.lists(st.floats(-5, 1e12), max_size=6))
@settings(deadline=None, max_examples=50)
def test_no_bar_leaves_its_drawing(values: list[float]):
    slices = [Slice(label="a", value=value, text="1") for value in values]
    rows = [Bar(label="a", value=value, text="1") for value in values]
    for svg in (share(slices, title="t"), bars(rows, title="t")):
        boxes = re.findall(r'<rect x="([-0-9.]+)" y="[-0-9.]+" width="([-0-9.]+)"', svg)
        assert all(float(x) >= 0 and float(x) + float(width) <= 721.1 for x, width in boxes)
        assert "nan" not in svg


def test_nothing_to_draw_is_a_drawing_too():
    nothing = columns([], [], title="t", **dict.fromkeys(COLUMN_WORDS, ""))
    for svg in (share([], title="t"), bars([], title="t"), nothing):
        ElementTree.fromstring(svg)


# --- In a browser -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dark", [False, True])
def test_a_browser_shows_it_and_asks_for_nothing(tmp_path: Path, dark: bool):
    file = tmp_path / "report.html"
    file.write_text(a_page(EVIL), "utf-8")
    seen = look_at(file, tmp_path, dark=dark)
    assert seen.console == []
    assert seen.asked_for == []
    assert seen.dom.count("</svg>") == 4
    assert "$12.34" in seen.dom
    colours = colours_of(seen.screenshot)
    assert colours[0x2F, 0x9E, 0x63] > 10_000  # bars are drawn
    (paper, _), *_ = colours.most_common(1)
    assert paper == ((0x0D, 0x11, 0x17) if dark else (255, 255, 255))


def test_the_browser_of_these_tests_sees_what_is_wrong(tmp_path: Path):
    file = tmp_path / "bad.html"
    file.write_text('<script>console.error("boo")</script><img src="http://127.0.0.1:9/x.png">', "utf-8")
    seen = look_at(file, tmp_path)
    assert any("boo" in line for line in seen.console)
    assert seen.asked_for == ["http://127.0.0.1:9/x.png"]
