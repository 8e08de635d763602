"""An HTML page that needs no other file: its style and its pictures are inside."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from html import escape
from pathlib import Path

STYLE = """
:root { color-scheme: light dark; --text: #1b1b1b; --page: #fff; --line: #ddd; --rule: #555 }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6e6e6; --page: #161616; --line: #3a3a3a; --rule: #999 }
}
body { font: 15px/1.45 system-ui, sans-serif; color: var(--text); background: var(--page);
  max-width: 84rem; margin: 2rem auto; padding: 0 1rem }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 1rem 0 }
th, td { text-align: right; padding: .3rem .7rem; border-bottom: 1px solid var(--line);
  white-space: nowrap }
th:first-child, td:first-child { text-align: left }
thead th { border-bottom: 2px solid var(--rule); font-weight: 600 }
figure { margin: 1.5rem 0 }
img { max-width: 100%; background: #fff }
code { font-size: 13px; overflow-wrap: anywhere }
summary { cursor: pointer; margin: .5rem 0 }
"""


def page(title: str, elements: Iterable[str], style: str = "") -> str:
    """A whole page: a heading and the elements below it, which are HTML; `style` is more CSS."""
    viewport = '<meta name="viewport" content="width=device-width">'
    head = f'<meta charset="utf-8">{viewport}{_head(title, style)}'
    body = f"<h1>{escape(title)}</h1>{''.join(elements)}"
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{body}</body></html>\n'


def paragraph(text: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{escape(text)}</p>"


def wide(element: str) -> str:
    """An element that scrolls sideways where the screen is too narrow for it."""
    return f'<div class="wide">{element}</div>'


def picture(file: Path, alternative: str) -> str:
    """A PNG file inside the page; `alternative` is what a screen reader says."""
    data = base64.b64encode(file.read_bytes()).decode()
    source = f"data:image/png;base64,{data}"
    return f'<figure><img alt="{escape(alternative)}" src="{source}"></figure>'


def code(text: str) -> str:
    """Text in a fixed-width font."""
    return f"<code>{escape(text)}</code>"


def folded(summary: str, items: Iterable[str]) -> str:
    """A list that is closed until the reader opens it; the items are HTML."""
    entries = "".join(f"<li>{item}</li>" for item in items)
    return f"<details><summary>{escape(summary)}</summary><ul>{entries}</ul></details>"


def _head(title: str, style: str) -> str:
    return f"<title>{escape(title)}</title><style>{STYLE}{style}</style>"
