"""Table 5: ways of prediction distillation, on top of matching distillation."""

from __future__ import annotations

from dataclasses import replace

from od_detr.experiments.experiment import Experiment, Reported, Table
from od_detr.experiments.paper import table2


def without_pd() -> Experiment:
    """w/o PD: MD of Table 2. Paper: 46.8 / 64.6 / 50.7.

    od-detr train --data COCO --devices 8 --recipe md
    """
    return replace(table2.md(), title="w/o PD")


def naive() -> Experiment:
    """Naive distillation: the teacher's scores as they are, every query's box with weight 1.

    Paper: 44.2 / 62.6 / 47.7.

    od-detr train --data COCO --devices 8 --recipe md+pd --ema.stop off --pd.listen2stu false
        --pd.tood false --pd.reg-unmatched one
    """
    switches = {
        "ema.stop": "off",
        "pd.listen2stu": False,
        "pd.tood": False,
        "pd.reg_unmatched": "one",
    }
    return Experiment(
        "pd-naive", "Naive Distillation", "md+pd", Reported(44.2, 62.6, 47.7), switches=switches
    )


def tood_weight() -> Experiment:
    """TOOD-weight. Paper: 46.5 / 64.4 / 50.4.

    od-detr train --data COCO --devices 8 --recipe md+pd --ema.stop off --pd.listen2stu false
    """
    switches = {"ema.stop": "off", "pd.listen2stu": False}
    return Experiment(
        "pd-tood", "TOOD-weight", "md+pd", Reported(46.5, 64.4, 50.4), switches=switches
    )


def listen2stu() -> Experiment:
    """TOOD-weight + Listen2stu. Paper: 46.6 / 64.4 / 50.6.

    od-detr train --data COCO --devices 8 --recipe md+pd --ema.stop off
    """
    paper = Reported(46.6, 64.4, 50.6)
    return Experiment(
        "pd-no-stop", "TOOD-weight + Listen2stu", "md+pd", paper, switches={"ema.stop": "off"}
    )


def stop_update() -> Experiment:
    """TOOD-weight + Listen2stu + Stop Update: the method, MD + PD of Table 2.

    Paper: 47.3 / 65.0 / 51.4.

    od-detr train --data COCO --devices 8 --recipe md+pd
    """
    return replace(table2.md_pd(), title="TOOD-weight + Listen2stu + Stop Update")


def query_prior() -> Experiment:
    """Query-prior Assignment Distillation, DETRDistill's; the teacher is not stopped, as the row
    does not say so.

        od-detr train --data COCO --devices 8 --recipe md+pd --ema.stop off --query-prior.on true

    Paper: 46.9 / 64.5 / 50.9.
    """
    switches = {"ema.stop": "off", "query_prior.on": True}
    paper = Reported(46.9, 64.5, 50.9)
    return Experiment(
        "qpad", "Query-prior Assignment Distillation", "md+pd", paper, switches=switches
    )


TABLE = Table(
    "Table 5: prediction distillation",
    (without_pd, naive, tood_weight, listen2stu, stop_update, query_prior),
)
