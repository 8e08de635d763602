"""Images of an evaluation that cannot be read: they stop it before it begins, or are left out."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import numpy as np
from torch.utils.data import Dataset

from od_detr.data.annotations import Annotations
from od_detr.data.dataset import CocoDataset
from od_detr.data.headers.checks import raise_unless_usable, usable, with_header_findings
from od_detr.data.loading.batching import AlikeBatches, collate
from od_detr.data.loading.workers import Loader
from od_detr.data.transforms import Sample
from od_detr.errors import InputError
from od_detr.evaluation.coco import CocoEvaluator
from od_detr.structures import Batch

OnUnreadable = Literal["stop", "skip"]
Attempt = tuple[int, Sample | str]  # a place, and its sample or why there is none


class Reading:
    """Reads the images of a split for an evaluation.

    All headers are read at once. Damaged pixels behind a sound header are found when the image is
    decoded.

    Args:
        annotations: the split.
        on_unreadable: "stop" makes unreadable images errors, "skip" leaves them out.

    Raises:
        InputError: the data, or an image that is not to be skipped, is wrong.

    Attributes:
        annotations: what is left of the split.
        skipped: a line for each image that was left out.
    """

    def __init__(self, annotations: Annotations, on_unreadable: OnUnreadable = "stop") -> None:
        self.skips = on_unreadable == "skip"
        self.skipped: list[str] = []
        if self.skips:
            self.annotations, lines = usable(annotations)
            self._skip(lines)
        else:
            self.annotations = with_header_findings(annotations)
            raise_unless_usable(self.annotations.findings)

    @contextmanager
    def batches(
        self, dataset: CocoDataset, batch_size: int, workers: int
    ) -> Iterator[Iterable[Batch]]:
        """Batches of images of one size; see `AlikeBatches`. The workers end with the block.

        Raises:
            InputError: an image cannot be decoded, and is not to be skipped.
        """
        sampler = AlikeBatches(dataset.input_sizes(), batch_size)
        if not self.skips:
            with Loader(dataset, sampler, workers).watched() as batches:
                yield batches
            return
        damaged: set[int] = set()
        with Loader(_Attempts(dataset), sampler, workers, _collate_read).watched() as attempts:
            yield self._read(attempts, damaged)
        left = np.array([each for each in range(len(dataset)) if each not in damaged], np.int64)
        self.annotations = self.annotations.selected(left)

    def _read(self, attempts: Loader, damaged: set[int]) -> Iterator[Batch]:
        for batch, lines in attempts:
            self._skip(list(lines.values()))
            damaged |= lines.keys()
            if batch is not None:
                yield batch

    def scored(self, evaluator: CocoEvaluator, category_ids: Sequence[int]) -> CocoEvaluator:
        """The detections of `evaluator` against the objects of those images that were read.

        Raises:
            InputError: no image could be read.
        """
        if not self.skipped:
            return evaluator
        if not len(self.annotations.image_ids):
            raise InputError(f"{self.annotations.file}: no image can be read; see above")
        read = CocoEvaluator(self.annotations, category_ids)
        read.add_results(evaluator.results())
        return read

    def _skip(self, lines: Sequence[str]) -> None:
        for line in lines:
            print(f"skipped: {line}", file=sys.stderr)
        self.skipped += lines


class _Attempts(Dataset[Attempt]):
    """Samples of a data set, or the reason why one cannot be read."""

    def __init__(self, dataset: CocoDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, place: int) -> Attempt:
        try:
            return place, self.dataset[place]
        except InputError as error:
            return place, str(error)


def _collate_read(attempts: Sequence[Attempt]) -> tuple[Batch | None, dict[int, str]]:
    """A batch of the samples that could be read, if any, and the reasons by place of the others."""
    read = [sample for _, sample in attempts if isinstance(sample, Sample)]
    lines = {place: reason for place, reason in attempts if isinstance(reason, str)}
    return collate(read) if read else None, lines
