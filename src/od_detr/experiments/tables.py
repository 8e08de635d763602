"""The paper's tables and figures by name, their rows, and the baseline of each row."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import TypeVar

from od_detr.errors import InputError
from od_detr.experiments import studies
from od_detr.experiments.experiment import Experiment, Table
from od_detr.experiments.paper import (
    figures,
    table1,
    table2,
    table3,
    table4,
    table5,
    table6,
    table7,
)

Thing = TypeVar("Thing")
TABLES: dict[str, Table] = {
    "table1": table1.TABLE,
    "table2": table2.TABLE,
    "table3": table3.TABLE,
    "table4": table4.TABLE,
    "table5": table5.TABLE,
    "table6": table6.TABLE,
    "table7": table7.TABLE,
    "fig1": figures.FIGURE_1,
    "fig5": figures.FIGURE_5,
    "fig6": figures.FIGURE_6,
}
STUDIES: dict[str, Table] = {  # which the paper does not have
    "frontier": studies.FRONTIER,
    "convergence": studies.CONVERGENCE,
}


def named_table(name: str) -> Table:
    """The table or figure of the paper or the study of our own of that name.

    Raises:
        InputError: there is none, with the nearest name.
    """
    return _named(name, TABLES | STUDIES, f"{name}: no such table")


def chosen_rows(table: Table, names: str | None) -> list[Experiment]:
    """The rows of these names, joined by commas, in the table's order; all without names.

    Raises:
        InputError: one is not a row of the table, with the nearest name.
    """
    rows = {experiment.name: experiment for experiment in table.experiments()}
    if names is None:
        return [*rows.values()]
    wanted = [name.strip() for name in names.split(",")]
    for name in wanted:
        _named(name, rows, f"--rows: {name!r} is not a row of {table.title}")
    return [row for row in rows.values() if row.name in wanted]


def control_of(experiment: Experiment) -> Experiment | None:
    """The baseline trained as long, in whatever table it stands; None for a baseline."""
    known = (row for table in TABLES.values() for row in table.experiments())
    return next((row for row in known if row.is_control_of(experiment)), None)


def listing(title: str, experiments: Iterable[Experiment]) -> str:
    """Rows, the paper's figures and the commands of its own runs, as text."""
    lines = [title]
    for row in experiments:
        paper = f"   AP / AP50 / AP75 in the paper: {row.reported}" if row.reported else ""
        teacher = ", the teacher" if row.weights == "teacher" else ""
        lines += ["", f"{row.name:<20} {row.title}{teacher}{paper}", f"    {row.command}"]
    return "\n".join(lines)


def _named(name: str, known: Mapping[str, Thing], problem: str) -> Thing:
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
        raise InputError(f"{problem}; {hint}")
    return known[name]
