"""The images and boxes of one split, whatever format they were written in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import chain
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, UInt8

from od_detr.data.counts import counted
from od_detr.data.findings import Finding

# COCO rounds coordinates to a hundredth of a pixel, so a box may overshoot its image by that much.
ROUNDING = 0.02
# Coordinates and areas are smaller; NaN fails the comparison.
LARGEST = 1e300


class Strings:
    """Texts in two flat arrays, which can be memory-mapped and shared by workers without copies."""

    def __init__(self, data: UInt8[np.ndarray, " B"], ends: Int64[np.ndarray, " I"]) -> None:
        self.data, self.ends = data, ends

    @classmethod
    def of(cls, texts: Iterable[str]) -> Strings:
        """Packs texts; lone surrogates, which JSON allows, survive."""
        pieces = list(texts)
        joined = "".join(pieces)
        lengths = map(len, pieces if joined.isascii() else map(cls._encoded, pieces))
        ends = np.cumsum(np.fromiter(lengths, np.int64, len(pieces)))
        return cls(np.frombuffer(cls._encoded(joined), dtype=np.uint8), ends)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> str:
        index = range(len(self))[index]
        start = int(self.ends[index - 1]) if index else 0
        return self._text(self.data[start : int(self.ends[index])].tobytes())

    def __iter__(self) -> Iterator[str]:
        data, ends = self.data.tobytes(), self.ends.tolist()
        places = zip(chain([0], ends), ends, strict=False)
        if data.isascii():
            text = data.decode("ascii")
            return (text[start:end] for start, end in places)
        return (self._text(data[start:end]) for start, end in places)

    @staticmethod
    def _encoded(text: str) -> bytes:
        return text.encode("utf-8", "surrogatepass")

    @staticmethod
    def _text(encoded: bytes) -> str:
        return encoded.decode("utf-8", "surrogatepass")


@dataclass(frozen=True)
class Categories:
    """The classes of a split by ascending category id.

    `parents` are COCO's supercategories, or "".
    """

    ids: tuple[int, ...]
    names: tuple[str, ...]
    parents: tuple[str, ...]


@dataclass(frozen=True)
class Dropped:
    """How many boxes are not trained on, and how many are clipped to their image."""

    crowd: int = 0
    degenerate: int = 0
    clipped: int = 0

    def __str__(self) -> str:
        return (
            f"{counted(self.crowd, 'crowd box')} and {counted(self.degenerate, 'box')} without "
            f"area dropped, {counted(self.clipped, 'box')} clipped to the image"
        )


@dataclass(frozen=True)
class Annotations:
    """The images of one split in the order of their source, and every box of theirs as it was
    written.

    The boxes of image i are rows ``starts[i]`` to ``starts[i + 1]`` of the flat arrays. Flat
    arrays, unlike lists of objects, can be mapped from a file and are shared by data-loading
    workers. Training takes `targets`; an evaluation takes the boxes as written, with crowd and
    area.

    Attributes:
        file: the annotation file, or the folder of label files; named in messages.
        format: the format it was read from, such as "coco".
        image_ids: a number of each image; all randomness of a sample is keyed by it.
        names: file name of each image as written.
        paths: where the image files are; empty until they were looked up.
        sizes: (height, width) of each image in pixels; 0 where the source does not say.
        starts: first box of each image, and the number of boxes.
        boxes_xywh: x, y, width, height in pixels.
        labels: index into `categories`.
        crowd: whether the box marks a group of objects: not trained on, ignored by an evaluation.
        area: area of the object in square pixels, that of its mask where there is one.
        record_ids: the id of each box in its source, or -1.
        places: the number of each box in its source, counted from 0.
        categories: all categories of the source.
        findings: what is wrong or worth knowing.
    """

    file: Path
    format: str
    image_ids: Int64[np.ndarray, " I"]
    names: Strings
    paths: Strings
    sizes: Int64[np.ndarray, "I 2"]
    starts: Int64[np.ndarray, " I1"]
    boxes_xywh: Float64[np.ndarray, "N 4"]
    labels: Int64[np.ndarray, " N"]
    crowd: Bool[np.ndarray, " N"]
    area: Float64[np.ndarray, " N"]
    record_ids: Int64[np.ndarray, " N"]
    places: Int64[np.ndarray, " N"]
    categories: Categories
    findings: tuple[Finding, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """The class name of each label."""
        return self.categories.names

    @property
    def category_ids(self) -> tuple[int, ...]:
        """The category id of each label."""
        return self.categories.ids

    @cached_property
    def owners(self) -> Int64[np.ndarray, " N"]:
        """The image of each box."""
        return np.repeat(np.arange(len(self.image_ids)), np.diff(self.starts))

    def record(self, box: int) -> str:
        """What messages call a box."""
        if self.format != "coco":
            image = int(np.searchsorted(self.starts, box, side="right")) - 1
            return f"{self.names[image]}: object {self.places[box] + 1}"
        known = int(self.record_ids[box])
        return f"annotation {known}" if known >= 0 else f"annotation number {self.places[box]}"

    def targets(self, image: int) -> tuple[Float32[np.ndarray, "M 4"], Int64[np.ndarray, " M"]]:
        """Corners in pixels inside the image, and labels, of the objects to train on."""
        mine = slice(int(self.starts[image]), int(self.starts[image + 1]))
        boxes, _ = clipped(self.boxes_xywh[mine], self.sizes[image : image + 1])
        kept = has_area(boxes) & ~self.crowd[mine]
        return boxes[kept], np.array(self.labels[mine][kept])

    @cached_property
    def target_summary(self) -> tuple[Dropped, int]:
        """What is dropped or clipped, and the number of objects of the fullest image."""
        dropped, most, step = Dropped(), 0, 1 << 14  # images at a time: bounds the memory
        for first in range(0, len(self.image_ids), step):
            images = slice(first, min(first + step, len(self.image_ids)))
            starts = self.starts[images.start : images.stop + 1]
            mine, owners = slice(int(starts[0]), int(starts[-1])), np.diff(starts)
            crowd = self.crowd[mine]
            boxes, overshot = clipped(
                self.boxes_xywh[mine], np.repeat(self.sizes[images], owners, axis=0)
            )
            solid = has_area(boxes)
            kept = solid & ~crowd
            counts = np.diff(np.concatenate([[0], np.cumsum(kept)])[starts - starts[0]])
            most = max(most, int(counts.max(initial=0)))
            dropped = Dropped(
                dropped.crowd + int(crowd.sum()),
                dropped.degenerate + int((~solid & ~crowd).sum()),
                dropped.clipped + int((overshot & kept).sum()),
            )
        return dropped, most

    def with_findings(self, findings: Iterable[Finding]) -> Annotations:
        """The same data with more findings."""
        return replace(self, findings=(*self.findings, *findings))

    def selected(self, images: Int64[np.ndarray, " J"]) -> Annotations:
        """The images of these indices alone, in their order."""
        counts = np.diff(self.starts)[images]
        firsts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        # Row k of image i is its first row in the old arrays plus the distance from its first in
        # the new.
        rows = np.arange(firsts[-1]) + np.repeat(self.starts[images] - firsts[:-1], counts)
        return replace(
            self.with_boxes(rows, firsts),
            image_ids=self.image_ids[images],
            names=Strings.of(self.names[int(i)] for i in images),
            paths=Strings.of(self.paths[int(i)] for i in images) if len(self.paths) else self.paths,
            sizes=self.sizes[images],
        )

    def with_boxes(
        self, rows: Int64[np.ndarray, " M"], starts: Int64[np.ndarray, " I1"]
    ) -> Annotations:
        """The boxes of these rows alone, grouped by `starts`."""
        return replace(
            self,
            starts=starts,
            boxes_xywh=self.boxes_xywh[rows],
            labels=self.labels[rows],
            crowd=self.crowd[rows],
            area=self.area[rows],
            record_ids=self.record_ids[rows],
            places=self.places[rows],
        )


def clipped(
    boxes_xywh: Float64[np.ndarray, "N 4"], sizes: Int64[np.ndarray, "M 2"]
) -> tuple[Float32[np.ndarray, "N 4"], Bool[np.ndarray, " N"]]:
    """Corners inside images of these sizes (one, or one a box), and which boxes reached outside."""
    limits = sizes[:, [1, 0, 1, 0]].astype(np.float64)
    corners = np.concatenate([boxes_xywh[:, :2], boxes_xywh[:, :2] + boxes_xywh[:, 2:]], 1)
    inside = np.clip(corners, 0, limits)
    return inside.astype(np.float32), np.abs(corners - inside).max(1, initial=0) > ROUNDING


def has_area(boxes_xyxy: Float32[np.ndarray, "N 4"]) -> Bool[np.ndarray, " N"]:
    """Which boxes have a positive width and height."""
    return np.asarray((boxes_xyxy[:, 2:] > boxes_xyxy[:, :2]).all(1))
