"""Table 7: the teachers of DINO-4scale and OD-DINO-4scale; their students are rows of Table 1."""

from __future__ import annotations

from dataclasses import replace

from od_detr.experiments.experiment import Experiment, Reported, Table
from od_detr.experiments.paper import table1


def dino_ema() -> Experiment:
    """DINO-EMA: the average of a DINO that it does not teach. Paper: 50.7 / 68.4 / 55.2.

    od-detr train --data COCO --devices 8 --model dino-4scale --recipe baseline
    """
    return replace(
        table1.dino4_baseline(),
        title="DINO-EMA",
        weights="teacher",
        reported=Reported(50.7, 68.4, 55.2),
    )


def od_dino_ema() -> Experiment:
    """OD-DINO-EMA: the average that goes on for evaluation after Stop Update.

    Paper: 52.0 / 69.4 / 56.8.

    od-detr train --data COCO --devices 8 --model dino-4scale --recipe od
    """
    return replace(
        table1.dino4_od(),
        title="OD-DINO-EMA",
        weights="teacher",
        reported=Reported(52.0, 69.4, 56.8),
    )


TABLE = Table("Table 7: the teachers", (dino_ema, od_dino_ema))
