"""What an output directory shows for a table: Markdown, JSON, a figure, and one page that needs no other file."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from od_detr.experiments.results import COLUMNS
from od_detr.files import written_whole

PAGE = "report.html"
HEAD = (
    *("row", "paper AP / 50 / 75", "AP", "AP50", "AP75", "instability", "consistency %", "seconds", "seeds"),
    "has its control's final AP in",
)
AXES = {"epoch": "epochs", "seconds": "time"}
STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1b1b1b; max-width: 84rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 1rem 0 }
th, td { text-align: right; padding: .3rem .7rem; border-bottom: 1px solid #ddd; white-space: nowrap }
th:first-child, td:first-child { text-align: left } thead th { border-bottom: 2px solid #555; font-weight: 600 }
figure { margin: 1.5rem 0 } img { max-width: 100% } code { font-size: 13px } .note { color: #555 }
summary { cursor: pointer; margin: .5rem 0 } section { margin-bottom: 3rem }
"""


def write(output: Path, name: str, title: str, setting: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes `name`.md and `name`.json; each appears whole or not at all."""
    output.mkdir(parents=True, exist_ok=True)
    facts = json.dumps({"title": title, "setting": setting, "rows": rows}, indent=1)
    for file, content in ((f"{name}.md", as_markdown(title, setting, rows)), (f"{name}.json", facts)):
        with written_whole(output / file) as partial:
            partial.write_text(content)


def write_page(output: Path, names: Iterable[str]) -> None:
    """Writes `report.html`: what `write` left of these tables and, where they were drawn, their curves."""
    sections = [
        _section(json.loads(file.read_text()), output / f"{name}.png")
        for name in names
        if (file := output / f"{name}.json").is_file()
    ]
    head = f'<meta charset="utf-8"><title>OD-DETR, reproduced</title><style>{STYLE}</style>'
    page = f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(sections)}</body></html>\n'
    with written_whole(output / PAGE) as partial:
        partial.write_text(page, encoding="utf-8")


def as_markdown(title: str, setting: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """The table, the paper's figures beside ours."""
    lines = [f"# {title}", "", setting, "", _legend(rows), "", f"| {' | '.join(HEAD)} |", "|" + "---|" * len(HEAD)]
    lines += [f"| {' | '.join(_cells(row))} |" for row in rows]
    return "\n".join([*lines, "", f"Commits: {_commits(rows)}.", ""])


def _section(facts: Mapping[str, Any], picture: Path) -> str:
    rows, title = facts["rows"], escape(facts["title"])
    head = "".join(f"<th>{escape(name)}</th>" for name in HEAD)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in _cells(row))}</tr>" for row in rows)
    notes = [facts["setting"], _legend(rows), f"Commits: {_commits(rows)}."]
    parts = [f"<h1>{title}</h1>", *(f'<p class="note">{escape(note)}</p>' for note in notes)]
    parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")
    if picture.is_file():
        data = base64.b64encode(picture.read_bytes()).decode()
        parts.append(f'<figure><img alt="{title}" src="data:image/png;base64,{data}"></figure>')
    items = "".join(f"<li>{escape(row['label'])}: {_by_seed(row)}<br>{_command(row)}</li>" for row in rows)
    parts.append(f"<details><summary>AP of every seed; the paper's own runs</summary><ul>{items}</ul></details>")
    return f"<section>{''.join(parts)}</section>"


def _cells(row: Mapping[str, Any]) -> list[str]:
    paper = " / ".join(f"{value:.1f}" for value in row["paper"].values()) if row["paper"] else "-"
    return [row["label"], paper, *(_figure(row, key) for key in COLUMNS), str(len(row["seeds"])), _reaches(row)]


def _figure(row: Mapping[str, Any], key: str) -> str:
    if key not in row["mean"]:
        return "-"
    digits = {"instability": 2, "seconds": 0}.get(key, 1)
    spread = f" ± {row['spread'][key]:.{digits}f}" if len(row["seeds"]) > 1 else ""
    return f"{row['mean'][key]:.{digits}f}{spread}"


def _reaches(row: Mapping[str, Any]) -> str:
    shares = row["reaches_control"]
    if not shares:
        return "-" if shares is None else "never"
    return ", ".join(f"{100 * shares[axis]:.0f} % of its {word}" for axis, word in AXES.items() if axis in shares)


def _legend(rows: Sequence[Mapping[str, Any]]) -> str:
    seeds = sorted({int(seed) for row in rows for seed in row["seeds"]})
    return f"Ours: mean ± half the range over seeds {', '.join(map(str, seeds)) or '(none yet)'}; after the last epoch."


def _commits(rows: Sequence[Mapping[str, Any]]) -> str:
    return ", ".join(sorted({run["commit"] or "unknown" for row in rows for run in row["seeds"].values()})) or "-"


def _by_seed(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{run['AP']:.1f}" for run in row["seeds"].values()) or "not run"


def _command(row: Mapping[str, Any]) -> str:
    return f"<code>{escape(row['command'])}</code>"
