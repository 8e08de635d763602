"""Four images as one, in two rows of two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torchvision.transforms.v2 import functional

from od_detr.data.transforms import Sample

GREY = 114  # of what no image covers
CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))


def mosaic(samples: Sequence[Sample], tile: tuple[int, int]) -> Sample:
    """A sample of four, each at the top left of its quarter and as large as fits into it.

    Args:
        samples: four samples; the mosaic has the id and the file size of the first one.
        tile: (height, width) of a quarter in pixels.
    """
    height, width = tile
    canvas = torch.full((3, 2 * height, 2 * width), GREY, dtype=torch.uint8)
    boxes = []
    for sample, (row, column) in zip(samples, CORNERS, strict=True):
        tall, wide = inside(sample, tile)
        top, left = row * height, column * width
        small = functional.resize(sample.image, [tall, wide], antialias=True)
        canvas[:, top : top + tall, left : left + wide] = small
        scale = torch.tensor([wide / (2 * width), tall / (2 * height)]).repeat(2)
        offset = torch.tensor([column / 2, row / 2, 0.0, 0.0])
        boxes.append(sample.boxes * scale + offset)
    labels = torch.cat([sample.labels for sample in samples])
    return replace(samples[0], image=canvas, boxes=torch.cat(boxes), labels=labels)


def inside(sample: Sample, tile: tuple[int, int]) -> tuple[int, int]:
    """The largest (height, width) of a sample's image that fits into a tile."""
    rows, columns = sample.image.shape[1:]
    ratio = min(tile[0] / rows, tile[1] / columns)
    return max(1, int(rows * ratio)), max(1, int(columns * ratio))
