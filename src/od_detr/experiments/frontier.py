"""Which form of online distillation pays at equal time: candidates that the paper does not have.

Every row changes one thing of `od`, or several that were promising alone. Run them with
``od-detr reproduce frontier --equal-time``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from od_detr.experiments.experiment import Experiment, Table
from od_detr.experiments.paper import table2
from od_detr.options import RecipeName


def candidate(
    name: str, title: str, recipe: RecipeName = "od", **switches: Any
) -> Callable[[], Experiment]:
    """A row; in its switches `__` stands for a dot."""
    named = {key.replace("__", "."): value for key, value in switches.items()}
    return lambda: Experiment(name, title, recipe, switches=named)


def heavy(
    name: str, title: str, recipe: RecipeName = "od", **switches: Any
) -> Callable[[], Experiment]:
    """The same with a classification weight of 4."""
    return candidate(name, f"{title}, class weight 4", recipe, qfl__class_weight=4.0, **switches)


TABLE = Table(
    "Frontier: AP at equal time",
    (
        table2.baseline,
        table2.qfl,
        table2.od,
        heavy("qfl-w4", "QFL", "qfl"),
        heavy("md-w4", "MD", "md"),
        heavy("md+pd-w4", "MD + PD", "md+pd"),
        heavy("md+ag-w4", "MD + AG", "md+ag"),
        heavy("od-w4", "MD + PD + AG"),
        candidate("od-half", "od for the first half", distill__stop=0.5),
        heavy("od-w4-half", "od for the first half", distill__stop=0.5),
        heavy("od-w4-quarter", "od for the first quarter", distill__stop=0.25),
        heavy("od-w4-every2", "od in every second step", distill__every=2),
        heavy("od-w4-last", "od, auxiliary groups of the last stage", ag__stages=(3,)),
        heavy("od-w4-maps", "od, teacher reads the student's maps", ema__share="backbone"),
        heavy("od-w4-own", "od, no positives of the teacher alone", md__teacher_only=False),
        heavy("md+pd-w4-half", "MD + PD for the first half", "md+pd", distill__stop=0.5),
    ),
    curves=True,
)
