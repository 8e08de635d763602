"""A data set of labelled images, checked when it is opened and read sample by sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import torch
from torch.utils.data import Dataset

from od_detr.boxes import xyxy_to_cxcywh
from od_detr.data.annotations import Annotations, Dropped
from od_detr.data.counts import counted
from od_detr.data.findings import raise_errors
from od_detr.data.folders import Split, open_split
from od_detr.data.formats.choices import Choices
from od_detr.data.images import read_image
from od_detr.data.sampling.composition import Composition, Draw
from od_detr.data.strong.mosaic import mosaic
from od_detr.data.transforms import Sample, Transform
from od_detr.errors import InputError

MOSAIC = 0.5  # share of the images that `--augment strong` makes a mosaic of


class CocoDataset(Dataset[Sample]):
    """Images with boxes, in any format that `od_detr.data.folders` reads; every index gives a
    `Sample`.

    Crowd boxes and boxes without area inside their image are dropped, boxes that reach outside it
    are clipped, and `dropped` counts them. Images without boxes are kept. Nothing on disk is ever
    changed.

    An index is a `Draw`; a plain place means its first copy in epoch 0. All randomness of a sample
    is a `random.Random` keyed by seed, epoch, image id and copy, so that a sample is the same
    whichever worker, rank or resumed run asks for it.

    Args:
        annotations: images and boxes, with the image files looked up.
        transform: turns a decoded sample into one of the input size, given that sample's source of
            randomness.
        seed: any integer.

    Raises:
        InputError: with the file, the id, the field and the fix of the first fault, and how many
            more there are.
    """

    def __init__(
        self,
        annotations: Annotations,
        transform: Callable[[Sample, Random], Sample] | None = None,
        *,
        seed: int = 0,
    ) -> None:
        raise_errors(annotations.findings)
        self.annotations = annotations
        self.transform = transform
        self.seed = seed
        self.composition = Composition.each_once(len(annotations.image_ids))  # of an epoch
        self.most_in_mosaic = 100  # objects; no more than the detector has queries

    @classmethod
    def from_folder(
        cls,
        data: Path,
        split: Split,
        transform: Callable[[Sample, Random], Sample] | None = None,
        *,
        classes: Sequence[str] | None = None,
        choices: Choices | None = None,
        seed: int = 0,
    ) -> CocoDataset:
        """Opens one split of a data set's folder, in any layout that `open_split` knows.

        `classes` are those of another split or of a detector; categories are matched with them by
        name.
        """
        return cls(open_split(Path(data), split, choices, classes), transform, seed=seed)

    def __len__(self) -> int:
        return len(self.annotations.image_ids)

    def __getitem__(self, index: int | Draw) -> Sample:
        draw = Draw(0, index) if isinstance(index, int) else index
        sample = self.decoded(draw.place)
        if self.transform is None:
            return sample
        key = f"{self.seed} {draw.epoch} {sample.image_id}"
        if draw.copy:
            key += f" {draw.copy}"
        rng = Random(key)
        strong = isinstance(self.transform, Transform) and self.transform.augment == "strong"
        if strong and rng.random() < MOSAIC:
            sample = self.in_mosaic(sample, rng)
        return self.transform(sample, rng)

    def in_mosaic(self, sample: Sample, rng: Random) -> Sample:
        """The sample with three others, if they do not have too many objects together.

        An image is among the others as often as it is in the epochs, see `composition`.
        Each of the four gets the size that the first one has in evaluation, or what fits into it.
        """
        assert isinstance(self.transform, Transform)
        places = [self.composition.any_image(rng) for _ in range(3)]
        others = sum(len(self.annotations.targets(place)[1]) for place in places)
        if len(sample.labels) + others > self.most_in_mosaic:
            return sample
        tile = self.transform.usual_size(*sample.image.shape[1:])
        return mosaic([sample, *map(self.decoded, places)], tile)

    def decoded(self, place: int) -> Sample:
        """The sample as it is on disk, untransformed.

        Raises:
            InputError: the image is unreadable or not of the size its entry says.
        """
        found = self.annotations
        place = range(len(self))[place]
        image_id = int(found.image_ids[place])
        height, width = map(int, found.sizes[place])
        try:
            image = read_image(found.paths[place], (height, width))
        except InputError as error:
            raise InputError(f"{found.file}: image {image_id}: {error}") from error
        corners, labels = found.targets(place)
        boxes_xyxy = torch.from_numpy(corners) / torch.tensor([width, height, width, height])
        return Sample(
            image, xyxy_to_cxcywh(boxes_xyxy), torch.from_numpy(labels), image_id, (height, width)
        )

    def input_sizes(self) -> list[tuple[int, int]]:
        """(height, width) of every image as it enters the detector, under a fixed transform."""
        assert isinstance(self.transform, Transform)
        assert self.transform.augment == "none"
        return [self.transform.usual_size(*size) for size in self.annotations.sizes.tolist()]

    def described(self, split: str) -> list[str]:
        """What was found: format, images, boxes, classes, and what was left out and why."""
        found = self.annotations
        names = ", ".join(self.classes[:8]) + (", …" if len(self.classes) > 8 else "")
        lines = [
            f"{split}: {found.format.upper()} data in {found.file}: "
            f"{counted(len(self), 'image')}, {counted(len(found.labels), 'box')}, "
            f"{counted(len(self.classes), 'class')} ({names})"
        ]
        if self.dropped != Dropped():
            lines.append(f"{found.file}: {self.dropped}")
        if not self.most_targets:
            lines.append(
                f"{found.file}: there are no objects in it"
                + (", so AP cannot be measured" if split == "val" else "")
            )
        return lines + [str(finding) for finding in found.findings if finding.severity != "error"]

    @property
    def classes(self) -> tuple[str, ...]:
        """The class name of every label."""
        return self.annotations.classes

    @property
    def category_ids(self) -> tuple[int, ...]:
        """The category id of every label; -1 for a class that the split does not list."""
        return self.annotations.category_ids

    @property
    def dropped(self) -> Dropped:
        """How many boxes are dropped and clipped; prints as one line."""
        return self.annotations.target_summary[0]

    @property
    def most_targets(self) -> int:
        """Number of boxes of the fullest image; a detector needs at least as many queries."""
        return self.annotations.target_summary[1]
