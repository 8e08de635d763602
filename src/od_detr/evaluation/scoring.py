"""Scoring a detector on a validation set: average precision, and whom each query matched."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from od_detr.criteria.matching import MatchCost, match
from od_detr.data.annotations import Annotations
from od_detr.detectors import DetectionTransformer, select_detections
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
    """

    def __init__(
        self,
        annotations: Annotations | Path,
        category_ids: tuple[int, ...],
        cost: MatchCost,
        top_k: int | None = None,
    ) -> None:
        self.evaluator = CocoEvaluator(annotations, category_ids)
        self.cost, self.top_k = cost, top_k
        self.record = MatchingRecord()

    @torch.no_grad()
    def add(self, detector: DetectionTransformer, batch: Batch) -> None:
        """Runs the detector, which must be in eval mode, on a batch and records what it gives."""
        encoded = detector.encode(batch)
        main = detector.decode(encoded)["main"]
        found = select_detections(main.predictions, batch.sizes, self.top_k or detector.top_k)
        for image, image_id in enumerate(batch.image_ids):
            self.evaluator.add(
                image_id, found.boxes_xyxy[image], found.scores[image], found.labels[image]
            )
        matching = match([main], batch.targets, self.cost)["main"].matching
        shape = (main.num_layers, main.predictions.logits.shape[2])
        self.record.add_batch(batch.image_ids, matching, batch.targets, shape, encoded.tokens)

    def finish(self) -> tuple[dict[str, Any], MatchingRecord]:
        """The figures over all ranks and the record of the pass; starts the next pass empty."""
        if is_distributed():
            for detections, record in gathered((self.evaluator.detections, self.record)):
                self.evaluator.merge(detections)
                self.record.merge(record)
        summary, record = self.evaluator.summary(), self.record
        self.evaluator.reset()
        self.record = MatchingRecord()
        return summary, record


def score(
    detector: DetectionTransformer, batches: Iterable[Batch], scorer: Scorer
) -> dict[str, Any]:
    """The figures of a detector, put into eval mode, over a whole validation set."""
    detector.eval()
    device = next(detector.parameters()).device
    for batch in batches:
        scorer.add(detector, batch.to(device))
    return scorer.finish()[0]
