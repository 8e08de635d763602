"""Table 4: where the costlier of a target's two queries is weighed down."""

from __future__ import annotations

from dataclasses import replace

from od_detr.experiments.experiment import Experiment, Reported, Table
from od_detr.experiments.paper import table2, table3


def classes_only() -> Experiment:
    """Method 1: boxes are not distilled, QFL MD of Table 3. Paper: 46.4 / 64.1 / 50.5.

    od-detr train --data COCO --devices 8 --recipe md --md.reg false
    """
    return replace(table3.qfl_md(), title="1: cls w/o w_d, reg N/A")


def no_down_weight() -> Experiment:
    """Method 2: boxes are distilled at full weight. Paper: 46.6 / 64.5 / 50.6.

    od-detr train --data COCO --devices 8 --recipe md --md.wd 1.0
    """
    return Experiment(
        "md-wd1",
        "2: cls w/o w_d, reg w/o w_d",
        "md",
        Reported(46.6, 64.5, 50.6),
        switches={"md.wd": 1.0},
    )


def boxes_down_weighted() -> Experiment:
    """Method 3: the method, MD of Table 2. Paper: 46.8 / 64.6 / 50.7.

    od-detr train --data COCO --devices 8 --recipe md
    """
    return replace(table2.md(), title="3: cls w/o w_d, reg w/ w_d")


def both_down_weighted() -> Experiment:
    """Method 4: classification too. Paper: 46.7 / 64.3 / 50.5.

    od-detr train --data COCO --devices 8 --recipe md --md.wd-cls true
    """
    paper = Reported(46.7, 64.3, 50.5)
    return Experiment(
        "md-wd-cls", "4: cls w/ w_d, reg w/ w_d", "md", paper, switches={"md.wd_cls": True}
    )


TABLE = Table(
    "Table 4: the down-weight of matching distillation",
    (classes_only, no_down_weight, boxes_down_weighted, both_down_weighted),
)
