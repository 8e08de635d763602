"""Whether a model and an image size suit the data."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from od_detr.architectures import ARCHITECTURES
from od_detr.data.annotations import Annotations
from od_detr.data.counts import counted
from od_detr.data.transforms import Transform, fitted
from od_detr.detectors.sizes import DinoSizes, Sizes
from od_detr.doctor.checks.boxes import in_other_unit
from od_detr.doctor.problem import Problem, Split, of_boxes, of_images

SMALL = 8.0  # pixels: the stride of the finest feature map
CROWDED = 1 / 3  # of the queries


@dataclass(frozen=True)
class Model:
    """What the checks need to know of a model.

    Args:
        name: the architecture.
        queries: number of object queries.
    """

    name: str
    queries: int

    @classmethod
    def named(cls, name: str, queries: int | None = None) -> Model:
        """An architecture with its own number of queries, or this one."""
        sizes = DinoSizes if ARCHITECTURES[name].two_stage else Sizes
        return cls(name, sizes.queries if queries is None else queries)


def fit_problems(split: Split, image_size: int, model: Model | None) -> list[Problem]:
    """Objects against the queries of a model, and their sizes after resizing to `image_size`."""
    found = split.annotations
    objects = split.objects
    problems: list[Problem] = []
    if model is not None:

        def detail(image: int) -> str:
            shown = counted(int(objects[image]), "object")
            return f"{shown}, {model.queries} queries of {model.name}"

        many = objects > model.queries
        few = (objects > CROWDED * model.queries) & ~many
        problems += of_images("fit-queries", split, np.flatnonzero(many), detail)
        problems += of_images("fit-queries-few", split, np.flatnonzero(few), detail)
    if in_other_unit(found):
        return problems
    sides = trained_sides(found, image_size)
    small = (sides < SMALL) & (sides > 0) & ~found.crowd
    return problems + of_boxes(
        "fit-small",
        split,
        np.flatnonzero(small),
        lambda box: f"{sides[box]:.1f} pixels at --image-size {image_size}",
    )


def trained_sides(found: Annotations, image_size: int) -> Float64[np.ndarray, " N"]:
    """Side in pixels of the square with the area of each box, in the image as it is evaluated.

    Training also shows images at half that size, so its objects are smaller.
    """
    longest = Transform(image_size).scaled(1333)
    known, inverse = np.unique(found.sizes, axis=0, return_inverse=True)
    scales = np.array(
        [
            min(fitted(height, width, image_size, longest)) / min(height, width)
            if min(height, width) > 0
            else 0.0
            for height, width in known.tolist()
        ]
    )
    area = np.maximum(found.boxes_xywh[:, 2:], 0).prod(1)
    return np.sqrt(area) * scales[inverse.reshape(-1)][found.owners]
