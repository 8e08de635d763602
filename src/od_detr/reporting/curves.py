"""Curves of runs as one picture: AP, instability (Fig. 1), consistency (Fig. 5) and loss."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from od_detr.reporting.figures import saved_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = Mapping[str, Any]

# Okabe and Ito's colours, distinct with any colour vision; their yellow is too light on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
ROLES = {"online": "online", "teacher": "moving average (teacher)"}
STYLES = {"online": "-", "teacher": (0, (4, 1.6))}
SHADE = 0.13
LEAST, MOST = "/least", "/most"  # ends of the names of columns that hold the range of several runs


@dataclass(frozen=True)
class Panel:
    """One plot: columns of metrics.csv by detector, against epochs or minutes."""

    title: str
    columns: dict[str, str]
    scale: float = 1.0
    zero: bool = True
    against: str = "epoch"


AP = {"online": "val/AP", "teacher": "val/teacher/AP"}
AXES = {
    "epoch": ("epoch", 1.0),
    "minutes of training": ("seconds", 1 / 60),
    "queries per image that changed their object": ("stability/instability", 1.0),
}  # axis: column and its scale
INSTABILITY = Panel(
    "Matching instability (queries per image)",
    {"online": "stability/instability", "teacher": "stability/teacher_instability"},
)
PANELS = (
    Panel("AP (%)", AP, scale=100.0),
    Panel("AP (%)", AP, scale=100.0, against="minutes of training"),
    Panel("Training loss (each recipe's own terms)", {"online": "train/loss"}, zero=False),
    INSTABILITY,
    Panel(
        "Matching consistency with the teacher (%)",
        {"online": "stability/consistency"},
        scale=100.0,
        zero=False,
    ),
)
STABILITY_PANELS = (
    replace(INSTABILITY, columns={"online": "stability/instability"}),
    Panel("AP (%)", {"online": "val/AP"}, scale=100.0),
    Panel(
        "AP (%) as matching becomes stable",
        {"online": "val/AP"},
        scale=100.0,
        against="queries per image that changed their object",
    ),
)


def curves(
    runs: Mapping[str, Sequence[Row]],
    output: Path,
    title: str = "",
    panels: Sequence[Panel] = PANELS,
) -> None:
    """Draws the curves of several runs, a colour each, and saves them as `output` (PNG, or what its
    suffix says).

    `runs` maps a run's name to its rows of metrics.csv: numbers or their text; what is missing,
    empty or not finite is left out. Where rows are the mean of several runs and also hold a
    column's range over them (its name and `LEAST`, `MOST`), that of the online detector is shaded.
    """
    columns = 3 if len(panels) > 3 else 2
    lines = math.ceil((len(panels) + 1) / columns)  # the last place is the legend's
    drawn = [(rows, panel) for rows in runs.values() for panel in panels]
    teacher = any(_series(rows, panel, "teacher")[0] for rows, panel in drawn)
    ranges = any(_series(rows, panel, "online", LEAST)[0] for rows, panel in drawn)
    with saved_figure(output, title, figsize=(4 * columns, 3.1 * lines), dpi=150) as figure:
        *places, last = figure.subplots(lines, columns).flat
        for axes, panel in zip(places, panels, strict=True):
            _draw_panel(axes, panel, runs)
        handles = _legend([*runs], teacher, ranges)
        last.axis("off")
        last.legend(handles=handles, loc="center left", frameon=False, fontsize=10)


def _draw_panel(axes: Axes, panel: Panel, runs: Mapping[str, Sequence[Row]]) -> None:
    from matplotlib.ticker import MaxNLocator

    for number, rows in enumerate(runs.values()):
        colour = COLOURS[number % len(COLOURS)]
        (places, least), (_, most) = (_series(rows, panel, "online", end) for end in (LEAST, MOST))
        if places:
            axes.fill_between(places, least, most, color=colour, alpha=SHADE, linewidth=0)
        for role in panel.columns:
            places, values = _series(rows, panel, role)
            axes.plot(
                places,
                values,
                color=colour,
                linestyle=STYLES[role],
                linewidth=1.6,
                marker="o" if len(places) < 3 else None,
                markersize=4,
            )
    axes.set_title(panel.title, loc="left", fontsize=10)
    axes.set_xlabel(panel.against, fontsize=9)
    axes.tick_params(labelsize=8, length=2)
    axes.xaxis.set_major_locator(MaxNLocator(integer=panel.against == "epoch", min_n_ticks=1))
    axes.grid(axis="y", color="#e4e4e4", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    drawn = any(np.size(line.get_xdata()) for line in axes.lines)
    if drawn and panel.zero:
        axes.set_ylim(0, max(axes.get_ylim()[1], 1))
    elif not drawn:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.text(
            0.5,
            0.5,
            "not recorded",
            transform=axes.transAxes,
            ha="center",
            color="#808080",
            fontsize=9,
        )


def _series(
    rows: Sequence[Row], panel: Panel, role: str, end: str = ""
) -> tuple[list[float], list[float]]:
    """The finite points of a column, or of the `end` of its range: places and heights."""
    column = panel.columns.get(role, "") + end
    axis, unit = AXES[panel.against]
    points = [
        (unit * _number(row.get(axis)), panel.scale * _number(row.get(column))) for row in rows
    ]
    finite = [point for point in points if all(map(math.isfinite, point))]
    return [place for place, _ in finite], [value for _, value in finite]


def _number(text: Any) -> float:
    return math.nan if text in (None, "") else float(text)


def _legend(names: list[str], teacher: bool, ranges: bool) -> list[Any]:
    """A coloured line a run, the two line styles where a teacher has curves, and what is shaded."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [
        Line2D([], [], color=COLOURS[number % len(COLOURS)], linewidth=2, label=name)
        for number, name in enumerate(names)
    ]
    if teacher:
        handles += [
            Line2D([], [], color="#555555", linestyle=style, label=ROLES[role])
            for role, style in STYLES.items()
        ]
    if ranges:
        handles.append(
            Patch(color="#555555", alpha=SHADE, linewidth=0, label="range of the runs, online")
        )
    return handles
