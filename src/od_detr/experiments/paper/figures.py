"""Figures 1, 5 and 6: curves of rows of the tables, the online detector's solid and its teacher's
dashed.

A row that does not distil has a teacher too, which teaches nothing and is only compared with.
DINO's queries are compared by memory token.
"""

from __future__ import annotations

from od_detr.experiments.experiment import Table
from od_detr.experiments.paper import table1, table2, table5
from od_detr.reporting.curves import PANELS

FIGURE_1 = Table("Figure 1: matching instability", (table2.baseline, table1.od), panels=PANELS)

FIGURE_5 = Table(
    "Figure 5: matching consistency",
    (table2.baseline, table1.od, table1.dino4_baseline, table1.dino4_od),
    panels=PANELS,
)

FIGURE_6 = Table(
    "Figure 6: Stop Update",
    (table5.without_pd, table5.listen2stu, table5.stop_update),
    panels=PANELS,
)
