"""The findings on a screen or two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

WIDTH = 150


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """A line or a few for each check: how it ended, then its figures."""
    lines = []
    for name, facts in found.items():
        if "failed" in facts or "skipped" in facts:
            end = facts.get("failed") or facts.get("skipped")
            lines.append(f"{'FAILED' if 'failed' in facts else 'left out'}  {name}: {end}"[:400])
            continue
        verdict = {True: "holds ", False: "BROKEN", None: "      "}[facts.get("holds")]
        lines.append(f"{verdict}  {name} ({facts.get('seconds')} s)")
        for key, value in facts.items():
            if key not in ("holds", "seconds", "largest"):
                lines += [f"          {key}: {part}" for part in _parts(value)]
        lines += [f"          {line}" for line in facts.get("largest", [])[:12]]
    return "\n".join(lines) + "\n"


def _parts(value: Any) -> list[str]:
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [text(each)[:WIDTH] for each in value]
    return [text(value)[:WIDTH]]


def text(value: Any) -> str:
    """Numbers with four digits."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return " ".join(f"{key} {text(each)}" for key, each in value.items())
    if isinstance(value, list):
        return " ".join(map(text, value))
    return str(value)
