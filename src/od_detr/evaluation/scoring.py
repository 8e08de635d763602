"""Scoring a detector on a validation set: average precision, and whom each query matched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from od_detr.criteria.matching import MatchCost, match
from od_detr.data.annotations import Annotations
from od_detr.detectors import DetectionTransformer, select_detections
from od_detr.evaluation.analysis import analysed
from od_detr.evaluation.coco import CocoEvaluator
from od_detr.evaluation.stability import MatchingRecord
from od_detr.ranks import gathered, is_distributed
from od_detr.structures import Batch


class Scorer:
    """Collects one detector's detections and matchings over a validation pass.

    Args:
        annotations: the validation set, or its COCO file.
        category_ids: category of each label.
        cost: the cost of the recorded matching, the one of training.
        top_k: detections an image; None keeps the detector's own.
        threshold: score from which a detection counts in figures of a threshold; None takes the
            best one.

    Attributes:
        last: detections of the last whole pass, as `CocoEvaluator.detections` gives them.
    """

    def __init__(
        self,
        annotations: Annotations | Path,
        category_ids: tuple[int, ...],
        cost: MatchCost,
        top_k: int | None = None,
        threshold: float | None = None,
    ) -> None:
        self.evaluator = CocoEvaluator(annotations, category_ids)
        self.cost, self.top_k, self.threshold = cost, top_k, threshold
        self.record = MatchingRecord()
        self.last = self.evaluator.detections

    @torch.no_grad()
    def add(self, detector: DetectionTransformer, batch: Batch) -> None:
        """Runs a detector in eval mode on a batch and records what it gives."""
        encoded = detector.encode(batch)
        main = detector.decode(encoded)["main"]
        found = select_detections(main.predictions, batch.sizes, self.top_k or detector.top_k)
        self.evaluator.add_detections(batch, found)
        matching = match([main], batch.targets, self.cost)["main"].matching
        shape = (main.num_layers, main.predictions.logits.shape[2])
        self.record.add_batch(batch.image_ids, matching, batch.targets, shape, encoded.tokens)

    def finish(self) -> tuple[dict[str, Any], MatchingRecord]:
        """The metrics over all ranks (see `analysed`) and the record of the pass.

        The next pass starts empty.
        """
        if is_distributed():
            for detections, record in gathered((self.evaluator.detections, self.record)):
                self.evaluator.merge(detections)
                self.record.merge(record)
        summary, record = analysed(self.evaluator, self.threshold), self.record
        self.last = self.evaluator.detections
        self.evaluator.reset()
        self.record = MatchingRecord()
        return summary, record
