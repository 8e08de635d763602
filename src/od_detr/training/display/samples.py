"""Pictures of validation images: their objects on the left, the detections on the right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from od_detr.data.dataset import CocoDataset
from od_detr.evaluation.ground_truth import GroundTruth

MOST_DETECTIONS = 30  # of an image that are drawn: those with the highest scores


def sample_places(images: int, samples: int) -> list[int]:
    """Places of the images to draw, spread evenly over the data set."""
    samples = min(images, samples)
    return [number * images // samples for number in range(samples)]


def draw_samples(
    val: CocoDataset,
    places: Sequence[int],
    truth: GroundTruth,
    detections: Float[Tensor, "D 7"],
    threshold: float,
    output: Path,
) -> None:
    """Draws each image twice, with its objects and with its detections, and saves one PNG.

    Args:
        val: the validation set.
        places: which images of it.
        truth: its objects, which number its images and classes.
        detections: rows as `CocoEvaluator.detections` gives them.
        threshold: lowest score that is drawn.
        output: file to write; its folder is made.
    """
    import supervision

    from od_detr.reporting.drawing import contact_sheet, draw

    found = detections.numpy()
    pictures: list[Image.Image] = []
    for place in places:
        pixels = val.decoded(place).image.permute(1, 2, 0).contiguous().numpy()
        corners, labels = val.annotations.targets(place)
        objects = supervision.Detections(
            xyxy=corners.astype(float).reshape(-1, 4), class_id=labels.astype(int)
        )
        number = truth.images[int(val.annotations.image_ids[place])]
        rows = found[(found[:, 0] == number) & (found[:, 5] >= threshold)]
        rows = rows[np.argsort(-rows[:, 5], kind="stable")][:MOST_DETECTIONS]
        best = supervision.Detections(
            xyxy=np.concatenate([rows[:, 1:3], rows[:, 1:3] + rows[:, 3:5]], 1),
            confidence=rows[:, 5],
            class_id=rows[:, 6].astype(int),
        )
        pictures += [draw(pixels, objects, val.classes), draw(pixels, best, truth.names)]
    output.parent.mkdir(parents=True, exist_ok=True)
    sheet = contact_sheet(pictures, columns=2, titles=("labels", "detections"))
    sheet.save(output, compress_level=1)
