"""What an evaluation reports beyond COCO's metrics: the threshold, the mistakes, the duplicates."""

from __future__ import annotations

from typing import Any

from od_detr.evaluation.coco import CocoEvaluator, coco_metrics
from od_detr.evaluation.mistakes import duplicate_share, error_kinds, without_duplicates
from od_detr.evaluation.pairing import Pairing, paired
from od_detr.evaluation.thresholds import Sweep, at_threshold, best_threshold

DEFAULT_THRESHOLD = 0.3  # where no threshold finds anything, or none was ever measured


def analysed(
    evaluator: CocoEvaluator, threshold: float | None = None, pairing: Pairing | None = None
) -> dict[str, Any]:
    """The metrics of what an evaluator collected, COCO's and those of a threshold.

    Args:
        evaluator: holds objects and detections.
        threshold: score from which a detection counts; None takes the best one.
        pairing: of the detections with the objects, where it is known.

    Returns:
        The metrics of `evaluate_detections`, and `best_threshold` (that of the highest F1 over all
        classes, None if nothing is found), the `threshold` used, `precision`, `recall` and `F1` at
        it, the same by class as `classes`, and over all thresholds as `curves`; the counts of
        `errors` (see `error_kinds`); `duplicates`, the share of detections that repeat another; and
        `AP_nms`, the AP after non-maximum suppression at IoU 0.7.
    """
    detections = evaluator.detections
    pairing = paired(evaluator.truth, detections) if pairing is None else pairing
    sweep = Sweep.of(pairing)
    best = best_threshold(sweep)
    chosen = threshold if threshold is not None else DEFAULT_THRESHOLD if best is None else best
    kept = without_duplicates(detections)
    metrics = coco_metrics(evaluator.truth, detections)
    fewer = len(kept) < len(detections)
    return {
        **metrics,
        "best_threshold": best,
        "threshold": chosen,
        **at_threshold(pairing, sweep, chosen),
        "errors": error_kinds(pairing, chosen),
        "duplicates": duplicate_share(pairing, chosen),
        "AP_nms": coco_metrics(evaluator.truth, kept)["AP"] if fewer else metrics["AP"],
    }
