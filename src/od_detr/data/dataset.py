"""A COCO data set, checked when it is opened and read sample by sample."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

import numpy as np
import torch
from torch.utils.data import Dataset

from od_detr.boxes import xyxy_to_cxcywh
from od_detr.data.annotations import Dropped, read_annotations
from od_detr.data.formats import Split, find_split
from od_detr.data.images import read_image
from od_detr.data.transforms import Sample
from od_detr.errors import InputError


class CocoDataset(Dataset[Sample]):
    """Images with boxes from a COCO file; every index gives a `Sample`.

    Opening checks the whole file and that every image exists; decoding an image checks that it has the
    size its entry says. Crowd boxes and boxes without area inside their image are dropped, boxes reaching
    outside it are clipped, and `dropped` counts them; images without boxes are kept. Nothing on disk is
    ever changed.

    An index is a pair (epoch, place); a plain place means epoch 0. All randomness of a sample is a
    `random.Random` keyed by seed, epoch and image id, so that a sample is the same whichever worker, rank
    or resumed run asks for it.

    Args:
        annotation_file: JSON in COCO format.
        image_folder: where a `file_name` is looked up.
        transform: what becomes of a decoded sample, given that sample's source of randomness.
        root: the data set's folder, where a `file_name` not found below `image_folder` is looked up as well.
        classes: class names the labels must stand for, when another split or a detector fixed them.
        category_ids: the category ids of these classes; without them categories are matched by name.
        seed: any integer.

    Raises:
        InputError: with the file, the id, the field and the mend of the first fault.
    """

    def __init__(
        self,
        annotation_file: Path,
        image_folder: Path,
        transform: Callable[[Sample, Random], Sample] | None = None,
        *,
        root: Path | None = None,
        classes: Sequence[str] | None = None,
        category_ids: Sequence[int] | None = None,
        seed: int = 0,
    ) -> None:
        folder = Path(image_folder)
        if not folder.is_dir():
            raise InputError(
                f"{folder}: no such image folder; give the folder that holds the images"
            )
        # Between images/train and the data set's folder lies images, below which a name may be meant, too.
        above = [] if root is None else [up for up in folder.parents if up.is_relative_to(root)]
        self.annotations = read_annotations(
            Path(annotation_file), [folder, *above], classes, category_ids
        )
        self.transform = transform
        self.seed = seed

    @classmethod
    def from_folder(
        cls,
        data: Path,
        split: Split,
        transform: Callable[[Sample, Random], Sample] | None = None,
        *,
        classes: Sequence[str] | None = None,
        category_ids: Sequence[int] | None = None,
        seed: int = 0,
    ) -> CocoDataset:
        """Opens one split of a data set's folder, in any layout that `find_split` knows."""
        annotation_file, image_folder = find_split(Path(data), split)
        return cls(
            annotation_file,
            image_folder,
            transform,
            root=Path(data),
            classes=classes,
            category_ids=category_ids,
            seed=seed,
        )

    def __len__(self) -> int:
        return len(self.annotations.image_ids)

    def __getitem__(self, index: int | tuple[int, int]) -> Sample:
        epoch, place = index if isinstance(index, tuple) else (0, index)
        image_id = self.annotations.image_ids[place]
        sample = self.decoded(place)
        if self.transform is None:
            return sample
        return self.transform(sample, Random(f"{self.seed} {epoch} {image_id}"))

    def decoded(self, place: int) -> Sample:
        """The sample as it is on disk, untransformed.

        Raises:
            InputError: the image is unreadable or not of the size its entry says.
        """
        found = self.annotations
        place = range(len(self))[place]
        height, width = map(int, found.sizes[place])
        try:
            image = read_image(found.paths[place], (height, width))
        except InputError as error:
            raise InputError(f"{found.file}: image {found.image_ids[place]}: {error}") from error
        mine = slice(found.starts[place], found.starts[place + 1])
        boxes_xyxy = torch.from_numpy(found.boxes_xyxy[mine]) / torch.tensor(
            [width, height, width, height]
        )
        labels = torch.from_numpy(found.labels[mine])
        return Sample(
            image, xyxy_to_cxcywh(boxes_xyxy), labels, found.image_ids[place], (height, width)
        )

    @property
    def classes(self) -> tuple[str, ...]:
        """The class name of every label."""
        return self.annotations.classes

    @property
    def category_ids(self) -> tuple[int, ...]:
        """The file's category id of every label."""
        return self.annotations.category_ids

    @property
    def image_ids(self) -> tuple[int, ...]:
        """The file's image id of every place."""
        return self.annotations.image_ids

    @property
    def dropped(self) -> Dropped:
        """How many boxes were dropped and clipped when the file was read; prints as one line."""
        return self.annotations.dropped

    @property
    def most_targets(self) -> int:
        """Number of boxes of the fullest image; a detector needs at least as many queries."""
        return int(np.diff(self.annotations.starts).max())
