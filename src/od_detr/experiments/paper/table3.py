"""Table 3: ways of matching distillation, for classification only.

Boxes keep the student's matching.
"""

from __future__ import annotations

from od_detr.experiments.experiment import Experiment, Reported, Table


def qfl() -> Experiment:
    """QFL w/o MD. Paper: 45.8 / 63.6 / 49.8.

    od-detr train --data COCO --devices 8 --recipe qfl
    """
    return Experiment("qfl", "QFL w/o MD", "qfl", Reported(45.8, 63.6, 49.8))


def conditional_md() -> Experiment:
    """Conditional MD: hard labels, the teacher's pairs only where the box has an IoU above 0.5 with
    their target.

        od-detr train --data COCO --devices 8 --recipe md --md.reg false --qfl.loss focal
            --md.cond-iou 0.5

    Paper: 45.9 / 64.1 / 49.7.
    """
    switches = {"md.reg": False, "qfl.loss": "focal", "md.cond_iou": 0.5}
    return Experiment(
        "conditional-md", "Conditional MD", "md", Reported(45.9, 64.1, 49.7), switches=switches
    )


def qfl_md() -> Experiment:
    """QFL MD. Paper: 46.4 / 64.1 / 50.5.

    od-detr train --data COCO --devices 8 --recipe md --md.reg false
    """
    return Experiment(
        "md-cls", "QFL MD", "md", Reported(46.4, 64.1, 50.5), switches={"md.reg": False}
    )


def qfl_conditional_md() -> Experiment:
    """QFL + Conditional MD. Paper: 46.3 / 64.1 / 49.9.

    od-detr train --data COCO --devices 8 --recipe md --md.reg false --md.cond-iou 0.5
    """
    switches = {"md.reg": False, "md.cond_iou": 0.5}
    paper = Reported(46.3, 64.1, 49.9)
    return Experiment("md-cls-conditional", "QFL + Conditional MD", "md", paper, switches=switches)


TABLE = Table(
    "Table 3: matching distillation of classes", (qfl, conditional_md, qfl_md, qfl_conditional_md)
)
