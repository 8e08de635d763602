"""Table 2: the components, on Def-DETR+."""

from __future__ import annotations

from dataclasses import replace

from od_detr.experiments.experiment import Experiment, Reported, Table
from od_detr.experiments.paper import table1, table3


def baseline_50() -> Experiment:
    """Method 0, the first row of Table 1. Paper: 45.4 / 64.7 / 49.0.

    od-detr train --data COCO --devices 8 --recipe baseline --epochs 50
    """
    return replace(table1.baseline_50(), title="0: baseline, 50 epochs")


def baseline() -> Experiment:
    """A control that the paper does not have: the baseline for as long as the other rows.

    od-detr train --data COCO --devices 8 --recipe baseline
    """
    return Experiment("baseline", "baseline (control)", "baseline")


def qfl() -> Experiment:
    """A control: what the loss gives without any distillation, the first row of Table 3.

    Paper: 45.8 / 63.6 / 49.8.

    od-detr train --data COCO --devices 8 --recipe qfl
    """
    return replace(table3.qfl(), title="QFL (control)")


def md() -> Experiment:
    """Method 1: matching distillation. Paper: 46.8 / 64.6 / 50.7.

    od-detr train --data COCO --devices 8 --recipe md
    """
    return Experiment("md", "1: MD", "md", Reported(46.8, 64.6, 50.7))


def md_pd() -> Experiment:
    """Method 2: matching and prediction distillation. Paper: 47.3 / 65.0 / 51.4.

    od-detr train --data COCO --devices 8 --recipe md+pd
    """
    return Experiment("md+pd", "2: MD + PD", "md+pd", Reported(47.3, 65.0, 51.4))


def md_ag() -> Experiment:
    """Method 3: matching distillation and auxiliary groups. Paper: 47.2 / 65.0 / 51.2.

    od-detr train --data COCO --devices 8 --recipe md+ag
    """
    return Experiment("md+ag", "3: MD + AG", "md+ag", Reported(47.2, 65.0, 51.2))


def od() -> Experiment:
    """Method 4: all three, OD-DETR of Table 1. Paper: 47.7 / 65.2 / 51.4.

    od-detr train --data COCO --devices 8 --recipe od
    """
    return replace(table1.od(), title="4: MD + PD + AG")


TABLE = Table("Table 2: the components", (baseline_50, baseline, qfl, md, md_pd, md_ag, od))
