"""Average precision and recall of boxes as COCO defines them.

Faster-coco-eval does the counting.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torchvision.ops import clip_boxes_to_image

from od_detr.collector import collector_paused
from od_detr.data.annotations import Annotations
from od_detr.detectors import Detections
from od_detr.evaluation.ground_truth import GroundTruth, ground_truth
from od_detr.structures import Batch

if TYPE_CHECKING:
    import supervision

# The twelve metrics in COCO's order, and what faster-coco-eval calls them.
METRICS = {
    "AP": "AP_all",
    "AP50": "AP_50",
    "AP75": "AP_75",
    "APs": "AP_small",
    "APm": "AP_medium",
    "APl": "AP_large",
    "AR1": "AR_all",
    "AR10": "AR_second",
    "AR100": "AR_third",
    "ARs": "AR_small",
    "ARm": "AR_medium",
    "ARl": "AR_large",
}


def evaluate_detections(
    annotations_json: str | Path | dict, detections: list[dict]
) -> dict[str, Any]:
    """The twelve COCO metrics, and the AP of every class and IoU threshold.

    Args:
        annotations_json: a COCO file or its content. Without `iscrowd` an object is not a crowd,
            without `area` its area is that of its box.
        detections: COCO results with `image_id`, `category_id`, `bbox` (x, y, width, height in
            pixels) and `score`.

    Returns:
        The keys of `METRICS`, each in [0, 1] or -1 where there is nothing to find (as COCO does),
        "per_class": AP by class name, and "per_iou": AP at each of the ten IoU thresholds that AP
        is the mean of, from "0.50" to "0.95".

    Raises:
        InputError: a detection of an unknown image or category.
    """
    evaluator = CocoEvaluator(annotations_json)
    evaluator.add_results(detections)
    return evaluator.summary()


def detections_to_coco(
    detections: supervision.Detections, image_id: int, category_ids: Sequence[int] | None = None
) -> list[dict[str, Any]]:
    """Detections of one image as COCO results.

    `category_ids` maps a class to its category; by default they are equal.
    """
    if len(detections) == 0:
        return []
    if detections.class_id is None or detections.confidence is None:
        raise ValueError("COCO results need the class_id and the confidence of every detection")
    return [
        {
            "image_id": image_id,
            "category_id": int(label) if category_ids is None else category_ids[int(label)],
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "score": float(score),
        }
        for (x1, y1, x2, y2), score, label in zip(
            detections.xyxy.tolist(), detections.confidence, detections.class_id, strict=True
        )
    ]


class CocoEvaluator:
    """Collects the detections of a validation pass; the ground truth is read once for all passes.

    An image added twice counts once, with its last detections. An image never added counts as one
    without detections.

    Args:
        annotations: a split that was read, a COCO file, or the content of one.
        category_ids: category of each label; by default labels number the categories by ascending
            id.
    """

    def __init__(
        self,
        annotations: Annotations | str | Path | dict,
        category_ids: Sequence[int] | None = None,
    ) -> None:
        self.truth = truth = ground_truth(annotations)
        if category_ids is None:
            numbers = [float(number) for number in truth.categories.values()]
        else:
            numbers = [_category_of(truth, identity) for identity in category_ids]
        self._category_of_label = torch.tensor(numbers, dtype=torch.float64)
        self._rows: dict[int, Float[Tensor, "D 7"]] = {}

    def add(
        self,
        image_id: int,
        boxes_xyxy_px: Float[Tensor, "D 4"],
        scores: Float[Tensor, " D"],
        labels: Int[Tensor, " D"],
    ) -> None:
        """Records the detections of one image, boxes in pixels; those not finite are left out."""
        image = self.truth.image_number(image_id, "the detector's output")
        boxes, scores = boxes_xyxy_px.detach().cpu().double(), scores.detach().cpu().double()
        columns = [
            torch.full_like(scores, image)[:, None],
            boxes[:, :2],
            boxes[:, 2:] - boxes[:, :2],
            scores[:, None],
            self._category_of_label[labels.cpu()][:, None],
        ]
        rows = torch.cat(columns, 1)
        self._rows[image] = rows[rows.isfinite().all(1)]

    def add_detections(self, batch: Batch, found: Detections) -> None:
        """Records the detections in the images of a batch, clipped to them as in `predict`."""
        for image, (image_id, size) in enumerate(zip(batch.image_ids, batch.sizes, strict=True)):
            boxes = clip_boxes_to_image(found.boxes_xyxy[image], size)
            self.add(image_id, boxes, found.scores[image], found.labels[image])

    def add_results(self, detections: list[dict]) -> None:
        """Records COCO results of any number of images."""
        rows = [self.truth.result_row(result, number) for number, result in enumerate(detections)]
        self.merge(torch.tensor(rows, dtype=torch.float64).reshape(-1, 7))

    @property
    def detections(self) -> Float[Tensor, "D 7"]:
        """All detections: image number, x, y, width, height in pixels, score, category number.

        Numbers count the images and the categories of the ground truth by ascending id, so that
        rows of one process mean the same to another with the same ground truth (see `merge`).
        """
        return torch.cat([torch.zeros(0, 7, dtype=torch.float64), *self._rows.values()])

    def merge(self, detections: Float[Tensor, "D 7"]) -> None:
        """Takes over the `detections` of another process."""
        rows = detections[detections[:, 0].argsort(stable=True)]
        images, counts = rows[:, 0].unique_consecutive(return_counts=True)
        self._rows.update(zip(images.long().tolist(), rows.split(counts.tolist()), strict=True))

    def reset(self) -> None:
        """Forgets the detections and keeps the ground truth."""
        self._rows.clear()

    def results(self) -> list[dict[str, Any]]:
        """What was added so far as COCO results, as a file for pycocotools holds them."""
        image_ids, category_ids = list(self.truth.images), list(self.truth.categories)
        return [
            {
                "image_id": image_ids[int(image)],
                "category_id": category_ids[int(category)],
                "bbox": box,
                "score": score,
            }
            for image, *box, score, category in self.detections.tolist()
        ]

    def summary(self) -> dict[str, Any]:
        """The metrics of what was added so far; see `evaluate_detections`."""
        return coco_metrics(self.truth, self.detections)


def coco_metrics(truth: GroundTruth, detections: Float[Tensor, "D 7"]) -> dict[str, Any]:
    """The metrics of `evaluate_detections` for rows as `CocoEvaluator.detections` gives them."""
    with collector_paused():
        return _coco_metrics(truth, detections)


def _coco_metrics(truth: GroundTruth, detections: Float[Tensor, "D 7"]) -> dict[str, Any]:
    from faster_coco_eval import COCO, COCOeval_faster

    found = detections.numpy()
    images = [{"id": number} for number in range(len(truth.images))]
    categories = [{"id": number, "name": name} for number, name in enumerate(truth.names)]
    shared = {"images": images, "categories": categories}
    objects = _as_annotations(
        truth.image, truth.category, truth.boxes_xywh, truth.area, truth.crowd
    )
    area = found[:, 3] * found[:, 4]
    crowd = np.zeros(len(found), dtype=np.bool_)
    detected = _as_annotations(found[:, 0], found[:, 6], found[:, 1:5], area, crowd)
    for each, confidence in zip(detected, found[:, 5].tolist(), strict=True):
        each["score"] = confidence
    evaluation = COCOeval_faster(
        COCO(shared | {"annotations": objects}),
        COCO(shared | {"annotations": detected}),
        iouType="bbox",
    )
    evaluation.run()
    # (thresholds, recalls, classes, areas, most detections): all areas, 100 detections.
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    per_class = [
        _mean_where_defined(precision[:, :, number]) for number in range(precision.shape[2])
    ]
    per_iou = {
        f"{threshold:.2f}": _mean_where_defined(at)
        for threshold, at in zip(evaluation.params.iouThrs, precision, strict=True)
    }
    metrics = evaluation.stats_as_dict
    return {name: float(metrics[theirs]) for name, theirs in METRICS.items()} | {
        "per_class": dict(zip(truth.names, per_class, strict=True)),
        "per_iou": per_iou,
    }


def _category_of(truth: GroundTruth, identity: int) -> float:
    """The category number of a class; NaN, which is left out, for one that is not annotated."""
    if identity < 0:
        return float("nan")
    return float(truth.category_number(identity, "the detector's classes"))


def _as_annotations(
    image: np.ndarray,
    category: np.ndarray,
    boxes_xywh: np.ndarray,
    area: np.ndarray,
    crowd: np.ndarray,
) -> list[dict[str, Any]]:
    """Columns as the counting code takes them, numbered from 1, as 0 means "not matched" there."""
    columns = (image.astype(np.int64), category.astype(np.int64), boxes_xywh, area)
    rows = zip(
        *(column.tolist() for column in columns), crowd.astype(np.int64).tolist(), strict=True
    )
    return [
        {"id": n, "image_id": i, "category_id": c, "bbox": box, "area": size, "iscrowd": group}
        for n, (i, c, box, size, group) in enumerate(rows, 1)
    ]


def _mean_where_defined(values: np.ndarray) -> float:
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else -1.0
