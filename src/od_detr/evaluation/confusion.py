"""The confusion matrix of the detections above a threshold, counted by supervision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from od_detr.evaluation.pairing import FOUND, Pairing, corners_of

if TYPE_CHECKING:
    import supervision

NOTHING = "background"  # the last row: not an object; the last column: not detected


def confusion_matrix(pairing: Pairing, threshold: float) -> dict[str, Any]:
    """Objects by their class (rows) and by the class they were detected as (columns).

    Detections and objects are paired at IoU 0.5 whatever their classes. The last row counts
    detections of background, the last column objects that were missed. Crowds, and detections in
    them, count nowhere.

    Returns:
        `classes`, with "background" as the last one, and the counts as `matrix`.
    """
    import supervision

    truth = pairing.truth
    shown = np.flatnonzero((pairing.score >= threshold) & ~pairing.ignored)
    wanted = np.flatnonzero(~truth.crowd)
    boxes_xyxy = corners_of(truth.boxes_xywh)

    def objects(places: np.ndarray) -> supervision.Detections:
        return supervision.Detections(
            xyxy=boxes_xyxy[places].reshape(-1, 4), class_id=truth.category[places]
        )

    def detections(places: np.ndarray) -> supervision.Detections:
        return supervision.Detections(
            xyxy=pairing.boxes_xyxy[places].reshape(-1, 4),
            class_id=pairing.category[places],
            confidence=pairing.score[places],
        )

    images = range(len(truth.images))
    counts = supervision.ConfusionMatrix.from_detections(
        predictions=[detections(each) for each in _split(pairing.image, shown, len(images))],
        targets=[objects(each) for each in _split(truth.image, wanted, len(images))],
        classes=truth.names,
        conf_threshold=0.0,
        iou_threshold=FOUND,
    ).matrix
    return {"classes": [*truth.names, NOTHING], "matrix": counts.astype(int).tolist()}


def _split(image: np.ndarray, places: np.ndarray, images: int) -> list[np.ndarray]:
    """The places of each image, images without any included."""
    order = places[np.argsort(image[places], kind="stable")]
    ends = np.searchsorted(image[order], np.arange(1, images))
    return np.split(order, ends)
