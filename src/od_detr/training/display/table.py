"""The table of validations, a row each: plain text of less than 80 columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Title, width, column of metrics.csv, factor, digits.
COLUMNS = (
    ("epoch", 5, "epoch", 1, 0),
    ("AP", 7, "val/AP", 100, 1),
    ("AP50", 7, "val/AP50", 100, 1),
    ("teacher AP", 12, "val/teacher/AP", 100, 1),
    ("instability", 13, "stability/instability", 1, 2),
    ("consistency %", 15, "stability/consistency", 100, 1),
)
BEST = ("best AP", 10)


def table_header() -> str:
    """The titles."""
    titles = [title.rjust(width) for title, width, *_ in COLUMNS]
    return "".join([*titles, BEST[0].rjust(BEST[1])])


def table_row(row: Mapping[str, Any], best_ap: float) -> str:
    """A validation.

    Args:
        row: its row of `metrics.csv`.
        best_ap: highest AP so far, of the detector or its teacher; a star says that it is of now.
    """
    cells = [
        _number(row.get(name), factor, digits).rjust(width)
        for _, width, name, factor, digits in COLUMNS
    ]
    now = max(row.get("val/AP", -1.0), row.get("val/teacher/AP", -1.0))
    star = "*" if now == best_ap and best_ap >= 0 else " "
    return "".join([*cells, (_number(best_ap, 100, 1) + star).rjust(BEST[1])]).rstrip()


def _number(value: int | float | None, factor: int, digits: int) -> str:
    """A value as shown; "-" where it was not measured or is not defined (-1)."""
    return "-" if value is None or value < 0 else f"{factor * value:.{digits}f}"
