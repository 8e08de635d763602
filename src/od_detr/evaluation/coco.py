"""Average precision and recall of boxes as COCO defines them; faster-coco-eval does the counting."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from od_detr.evaluation.ground_truth import read_ground_truth

if TYPE_CHECKING:
    import supervision
    from rich.console import Group

# The twelve figures in COCO's order, and what faster-coco-eval calls them.
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
    """The twelve COCO figures and the AP of every class.

    `annotations_json` is a COCO file or its content; `detections` are COCO results: `image_id`,
    `category_id`, `bbox` (x, y, width, height in pixels) and `score`. Neither is changed. Without `iscrowd` an
    object is no crowd, without `area` its area is that of its box.

    Returns the keys of `METRICS`, each in [0, 1] or -1 where there is nothing to find (as COCO does), and
    "per_class": AP by class name. Raises InputError for detections of an unknown image or category.
    """
    evaluator = CocoEvaluator(annotations_json)
    evaluator.add_results(detections)
    return evaluator.summary()


def detections_to_coco(
    detections: supervision.Detections, image_id: int, category_ids: Sequence[int] | None = None
) -> list[dict[str, Any]]:
    """supervision's detections of one image as COCO results; `category_ids` maps a class to its category."""
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

    `category_ids[label]` is the category a label stands for; by default labels number the categories by
    ascending id. An image added twice counts once, with its last detections; an image never added counts as
    one without detections.
    """

    def __init__(
        self, annotations: str | Path | dict, category_ids: Sequence[int] | None = None
    ) -> None:
        self.truth = truth = read_ground_truth(annotations)
        labels = truth.categories.values()
        if category_ids is not None:
            labels = [
                truth.category(identity, "the detector's classes") for identity in category_ids
            ]
        self._category_of_label = torch.tensor(list(labels), dtype=torch.float64)
        self._rows: dict[int, Float[Tensor, "D 7"]] = {}

    def add(
        self,
        image_id: int,
        boxes_xyxy_px: Float[Tensor, "D 4"],
        scores: Float[Tensor, " D"],
        labels: Int[Tensor, " D"],
    ) -> None:
        """Records the detections of one image, boxes in pixels; those that are not finite find nothing."""
        image = self.truth.image(image_id, "the detector's output")
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

    def add_results(self, detections: list[dict]) -> None:
        """Records COCO results of any number of images."""
        rows = [self.truth.result_row(result, number) for number, result in enumerate(detections)]
        self.merge(torch.tensor(rows, dtype=torch.float64).reshape(-1, 7))

    @property
    def detections(self) -> Float[Tensor, "D 7"]:
        """All detections: image number, x, y, width, height in pixels, score, category number.

        Numbers count the images and the categories of the ground truth by ascending id, so that the rows
        of one process mean the same to another that holds the same ground truth (see `merge`).
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

    def summary(self) -> dict[str, Any]:
        """The figures of what was added so far; see `evaluate_detections`."""
        from faster_coco_eval import COCO, COCOeval_faster

        found = [
            _as_annotation(number, row) for number, row in enumerate(self.detections.tolist(), 1)
        ]
        truth = self.truth.dataset
        evaluation = COCOeval_faster(
            COCO(truth), COCO(truth | {"annotations": found}), iouType="bbox"
        )
        evaluation.run()
        # (thresholds, recalls, classes, areas, most detections): all areas, 100 detections.
        precision = evaluation.eval["precision"][:, :, :, 0, -1]
        per_class = [
            _mean_where_defined(precision[:, :, number]) for number in range(precision.shape[2])
        ]
        figures = evaluation.stats_as_dict
        return {name: float(figures[theirs]) for name, theirs in METRICS.items()} | {
            "per_class": dict(zip(self.truth.names, per_class, strict=True))
        }


def format_table(summary: dict[str, Any], title: str = "") -> Group:
    """A rich renderable: the twelve figures in percent, then the classes from best to worst."""
    from rich.columns import Columns
    from rich.console import Group
    from rich.table import Table

    def percent(value: float) -> str:
        return "-" if value < 0 else f"{100 * value:.1f}"

    names = list(METRICS)
    tables = []
    for row in (names[:6], names[6:]):
        table = Table(
            title=title if row[0] == "AP" and title else None,
            box=None,
            pad_edge=False,
            header_style="dim",
        )
        for name in row:
            table.add_column(name, justify="right", min_width=5)
        table.add_row(*[percent(summary[name]) for name in row])
        tables.append(table)
    ranked = sorted(summary["per_class"].items(), key=lambda item: -item[1])
    width = max((len(name) for name, _ in ranked), default=0)
    classes = Columns(
        [f"{name:<{width}} {percent(value):>5}" for name, value in ranked],
        padding=(0, 3),
        expand=False,
    )
    return Group(*tables, "", classes)


def _as_annotation(number: int, row: list[float]) -> dict[str, Any]:
    image, x, y, width, height, score, category = row
    return {
        "id": number,
        "image_id": int(image),
        "category_id": int(category),
        "bbox": [x, y, width, height],
        "area": width * height,
        "score": score,
        "iscrowd": 0,
    }


def _mean_where_defined(values: np.ndarray) -> float:
    defined = values[values > -1]
    return float(defined.mean()) if defined.size else -1.0
