"""Which images a page shows: the worst ones, and samples of each split."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from od_detr.data.images import read_image
from od_detr.doctor.diagnosis import Diagnosis
from od_detr.doctor.problem import Problem, Split
from od_detr.errors import InputError
from od_detr.reporting.boxed import Box, boxed

WORST = 12
OF_A_KIND = 3
SAMPLES = 12


@dataclass(frozen=True, eq=False)
class Shown:
    """An image to show, and the problem that it has."""

    split: Split
    image: int
    problem: Problem | None = None

    def figure(self) -> str:
        """The image with its boxes; those at fault are marked."""
        found, look = self.split.annotations, self.split.looks[self.image]
        mine = range(int(found.starts[self.image]), int(found.starts[self.image + 1]))
        marked = set() if self.problem is None else set(self.problem.boxes.tolist())
        boxes = [
            Box(
                tuple(found.boxes_xywh[box].tolist()),
                int(found.labels[box]),
                found.classes[int(found.labels[box])],
                box in marked,
            )
            for box in mine
        ]
        caption = f"{self.split.name}: {self.split.image(self.image)}"
        text = "" if self.problem is None else self.problem.kind.title
        readable = found.paths[self.image] and not look.header.code and not look.problem
        return boxed(_pixels(found.paths[self.image]) if readable else None, boxes, caption, text)


def worst(diagnosis: Diagnosis) -> list[Shown]:
    """At most `WORST` images by the cost of their problem, at most `OF_A_KIND` for each."""
    splits = {split.name: split for split in diagnosis.splits}
    costly = [
        problem
        for problem in diagnosis.problems
        if len(problem.images) and problem.split in splits and problem.severity != "note"
    ]
    shown: dict[tuple[str, int], Shown] = {}
    for turn in range(OF_A_KIND):
        for problem in costly:
            if turn < len(problem.images) and len(shown) < WORST:
                image = int(problem.images[turn])
                place = (problem.split, image)
                shown.setdefault(place, Shown(splits[problem.split], image, problem))
    order = {id(problem): place for place, problem in enumerate(costly)}
    return sorted(shown.values(), key=lambda each: order[id(each.problem)])


def samples(splits: Sequence[Split]) -> list[Shown]:
    """Images of the first split, evenly spaced among those that have objects and can be read."""
    if not splits:
        return []
    split = splits[0]
    objects = np.diff(split.annotations.starts)
    usable = [
        image
        for image, look in enumerate(split.looks)
        if objects[image] and split.annotations.paths[image]
        if not look.header.code and not look.problem
    ]
    chosen = np.linspace(0, len(usable) - 1, min(SAMPLES, len(usable))).round().astype(int)
    return [Shown(split, usable[place]) for place in chosen.tolist()]


def _pixels(path: str) -> np.ndarray | None:
    try:
        return read_image(path).permute(1, 2, 0).numpy()
    except InputError:  # without decoding, a damaged image is met only here
        return None
