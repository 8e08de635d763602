"""What an output directory shows of a table: Markdown, JSON, a figure, and a page that needs no other file."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from od_detr.experiments.results import COLUMNS, Curve
from od_detr.files import atomic_write
from od_detr.reporting.curves import curves as draw

Row = Mapping[str, Any]  # of `od_detr.experiments.results.summarise`
HEAD = (
    *(
        "row",
        "--rows",
        "paper AP / 50 / 75",
        "AP",
        "AP50",
        "AP75",
        "instability",
        "consistency %",
        "seconds",
        "seeds",
    ),
    "has the baseline's final AP after",
)
STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1b1b1b; max-width: 84rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 1rem 0 }
th, td { text-align: right; padding: .3rem .7rem; border-bottom: 1px solid #ddd; white-space: nowrap }
th:first-child, td:first-child { text-align: left } thead th { border-bottom: 2px solid #555; font-weight: 600 }
figure { margin: 1.5rem 0 } img { max-width: 100% } code { font-size: 13px }
summary { cursor: pointer; margin: .5rem 0 }
"""


def write(
    output: Path,
    name: str,
    title: str,
    setting: str,
    rows: Sequence[Row],
    curves: Mapping[str, Curve] | None = None,
) -> None:
    """Writes `name`.md, .json and .html, each whole or not at all, and, given `curves` by label, .png before."""
    output.mkdir(parents=True, exist_ok=True)
    picture = None
    if curves:
        picture = output / f"{name}.png"
        draw(curves, picture, title)
    facts = json.dumps({"title": title, "setting": setting, "rows": rows}, indent=1)
    contents = {
        "md": as_markdown(title, setting, rows),
        "json": facts,
        "html": as_page(title, setting, rows, picture),
    }
    for suffix, content in contents.items():
        with atomic_write(output / f"{name}.{suffix}") as partial:
            partial.write_text(content, encoding="utf-8")


def as_markdown(title: str, setting: str, rows: Sequence[Row]) -> str:
    """The table, the paper's figures beside ours."""
    lines = [
        f"# {title}",
        "",
        setting,
        "",
        _legend(rows),
        "",
        f"| {' | '.join(HEAD)} |",
        "|" + "---|" * len(HEAD),
    ]
    lines += [f"| {' | '.join(_cells(row))} |" for row in rows]
    return "\n".join([*lines, "", f"Commits: {_commits(rows)}.", ""])


def as_page(title: str, setting: str, rows: Sequence[Row], picture: Path | None = None) -> str:
    """The same as a page that needs no other file: table, curves, AP of every seed, the paper's commands."""
    head = "".join(f"<th>{escape(name)}</th>" for name in HEAD)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in _cells(row))}</tr>" for row in rows
    )
    parts = [f"<h1>{escape(title)}</h1>"]
    parts += [
        f"<p>{escape(note)}</p>" for note in (setting, _legend(rows), f"Commits: {_commits(rows)}.")
    ]
    parts.append(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")
    if picture is not None:
        data = base64.b64encode(picture.read_bytes()).decode()
        parts.append(f'<figure><img alt="curves" src="data:image/png;base64,{data}"></figure>')
    items = "".join(
        f"<li>{escape(row['label'])}: {_by_seed(row)}<br><code>{escape(row['command'])}</code></li>"
        for row in rows
    )
    parts.append(
        f"<details><summary>AP of every seed; commands of the paper's runs</summary><ul>{items}</ul></details>"
    )
    meta = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{STYLE}</style>'
    return (
        f'<!doctype html><html lang="en"><head>{meta}</head><body>{"".join(parts)}</body></html>\n'
    )


def _cells(row: Row) -> list[str]:
    paper = " / ".join(f"{value:.1f}" for value in row["paper"].values()) if row["paper"] else "-"
    seeds = str(len(row["seeds"])) if row["seeds"] else "not run"
    return [
        row["label"],
        row["name"],
        paper,
        *(_figure(row, key) for key in COLUMNS),
        seeds,
        _reaches(row),
    ]


def _figure(row: Row, key: str) -> str:
    if key not in row["mean"]:
        return "-"
    digits = {"instability": 2, "seconds": 0}.get(key, 1)
    spread = f" ± {row['spread'][key]:.{digits}f}" if len(row["seeds"]) > 1 else ""
    return f"{row['mean'][key]:.{digits}f}{spread}"


def _reaches(row: Row) -> str:
    if row["control"] is None:
        return "-"
    share = row["reaches_control"]
    return "never" if share is None else f"{100 * share:.0f} % of the epochs"


def _legend(rows: Sequence[Row]) -> str:
    seeds = sorted({seed for row in rows for seed in row["seeds"]})
    return (
        f"Ours: mean ± half the range over seeds {', '.join(map(str, seeds)) or '(none yet)'}, after the last epoch. "
        "Instability: queries an image that changed their object since the last validation; fewer is better. "
        "Consistency: objects matched by the same query of the detector and of its moving average; more is better. "
        "Seconds: training alone, on whatever the machine did besides, so no comparison. "
        "Last column: the share of the epochs after which the mean curve, interpolated between validations, has the "
        "AP that the baseline ends with, trained as long with the same seeds."
    )


def _commits(rows: Sequence[Row]) -> str:
    return (
        ", ".join(
            sorted({run["commit"] or "unknown" for row in rows for run in row["seeds"].values()})
        )
        or "-"
    )


def _by_seed(row: Row) -> str:
    return ", ".join(f"{run['AP']:.1f}" for run in row["seeds"].values()) or "not run"
