"""Studies that the paper does not have: what pays at equal time, and what stable matching does.

Every row of `FRONTIER` changes one thing of a row of Table 2. Run them with
``od-detr reproduce frontier --equal-time``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from od_detr.experiments.experiment import Experiment, Table
from od_detr.experiments.paper import table1, table2
from od_detr.options import RecipeName
from od_detr.reporting.curves import PANELS, STABILITY_PANELS


def candidate(
    name: str, title: str, recipe: RecipeName = "od", **switches: Any
) -> Callable[[], Experiment]:
    """A row; in its switches `__` stands for a dot."""
    named = {key.replace("__", "."): value for key, value in switches.items()}
    return lambda: Experiment(name, title, recipe, switches=named)


FRONTIER = Table(
    "Frontier: AP at equal time",
    (
        table2.baseline,
        table2.qfl,
        table2.md,
        table2.md_pd,
        table2.md_ag,
        table2.od,
        candidate("od-half", "od for the first half", distill__stop=0.5),
        candidate("od-quarter", "od for the first quarter", distill__stop=0.25),
        candidate("od-every2", "od in every second step", distill__every=2),
        candidate("od-last", "od, auxiliary groups of the last stage", ag__stages=(-1,)),
        candidate("od-maps", "od, teacher reads the student's maps", ema__share="backbone"),
        candidate("od-own", "od, no positives of the teacher alone", md__teacher_only=False),
        candidate("md+pd-half", "MD + PD for the first half", "md+pd", distill__stop=0.5),
        candidate("md+pd-quarter", "MD + PD for the first quarter", "md+pd", distill__stop=0.25),
        candidate("qfl-w4", "QFL, class weight 4", "qfl", qfl__class_weight=4.0),
        candidate("od-w4", "od, class weight 4", qfl__class_weight=4.0),
    ),
    panels=PANELS,
)

CONVERGENCE = Table(
    "Convergence: stable matching and AP, by architecture",
    (
        table2.baseline,
        table1.od,
        table1.dab_baseline,
        table1.dab_od,
        table1.dino4_baseline,
        table1.dino4_od,
    ),
    panels=STABILITY_PANELS,
)
