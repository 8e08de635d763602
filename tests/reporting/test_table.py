"""A table shows the same cells as Markdown and as HTML."""

from __future__ import annotations

from html import unescape

from od_detr.reporting.table import TextTable

TABLE = TextTable(("row", "AP"), (("<od> & co", "47.7"), ("baseline", "-")))


def test_markdown_has_a_line_for_each_row() -> None:
    assert TABLE.as_markdown().splitlines() == [
        "| row | AP |",
        "|---|---|",
        "| <od> & co | 47.7 |",
        "| baseline | - |",
    ]


def test_html_shows_text_as_it_is() -> None:
    html = TABLE.as_html()
    assert "<od>" not in html
    for cell in (*TABLE.head, *TABLE.rows[0], *TABLE.rows[1]):
        assert f">{cell}<" in unescape(html)
