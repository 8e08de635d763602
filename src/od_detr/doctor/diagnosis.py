"""Runs every check on a data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from od_detr.data.annotations import Annotations
from od_detr.data.folders import TRAINED, find_readers
from od_detr.data.formats.choices import Choices
from od_detr.data.headers.checks import are_few
from od_detr.data.headers.header import OF_FILES, OF_SIZES
from od_detr.data.preparation.classes import given_classes, own_classes
from od_detr.doctor.catalogue import KINDS
from od_detr.doctor.checks.boxes import box_problems
from od_detr.doctor.checks.classes import class_problems, split_problems
from od_detr.doctor.checks.duplicates import duplicate_problems
from od_detr.doctor.checks.fit import Model, fit_problems
from od_detr.doctor.checks.images import image_problems, unlisted_images
from od_detr.doctor.looks import looks
from od_detr.doctor.problem import Problem, Split, of_readers
from od_detr.errors import InputError

Advance = Callable[[int], None]
# Takes the number of images and gives a function to call with the number of those that are done.
Progress = Callable[[int], AbstractContextManager[Advance]]
ORDER = {"error": 0, "warning": 1, "note": 2}
# What training finds before it begins, and leaves out if it is little.
LEFT_OUT = OF_FILES | OF_SIZES


@dataclass(frozen=True)
class Examination:
    """What to examine.

    Attributes:
        image_size: short side of the images in training, in pixels.
        model: the model to be trained, if it is known.
        decode: whether to decode every image, or to read the headers alone.
        workers: processes that look at images.
        choices: how the data is read.
    """

    image_size: int = 800
    model: Model | None = None
    decode: bool = True
    workers: int = 1
    choices: Choices = field(default_factory=Choices)


@dataclass(frozen=True, eq=False)
class Diagnosis:
    """A data set and its problems, the most costly first."""

    data: Path
    splits: tuple[Split, ...]
    problems: tuple[Problem, ...]
    examination: Examination

    @property
    def errors(self) -> tuple[Problem, ...]:
        """The problems that stop a training."""
        return tuple(problem for problem in self.problems if problem.severity == "error")

    def as_json(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "data": str(self.data),
            "decoded": self.examination.decode,
            "splits": {
                split.name: {
                    "format": split.annotations.format,
                    "images": len(split.annotations.image_ids),
                    "boxes": len(split.annotations.labels),
                    "classes": len(split.annotations.classes),
                }
                for split in self.splits
            },
            "problems": [problem.as_json() for problem in self.problems],
        }


def no_progress(_: int) -> AbstractContextManager[Advance]:
    """Shows nothing."""
    return nullcontext(lambda _: None)


def diagnosed(data: Path, examination: Examination, progress: Progress = no_progress) -> Diagnosis:
    """Opens a data set and runs every check.

    Args:
        data: the data set's folder, in any layout that training reads.
        examination: what to examine.
        progress: shows how far the images are read.

    Raises:
        InputError: `data` is not a folder or holds no annotations in a known layout.
    """
    read, problems = opened(data, examination.choices)
    splits = with_looks(read, examination, progress)
    if read and all(problem.severity != "error" for problem in problems):
        problems += unlisted_images(splits)
    for split in splits:
        problems += of_readers(split)
        problems += image_problems(split)
        problems += box_problems(split)
        problems += fit_problems(split, examination.image_size, examination.model)
    problems += class_problems(splits) + split_problems(splits) + duplicate_problems(splits)
    return Diagnosis(data, tuple(splits), tuple(ordered(as_trained(problems))), examination)


def opened(data: Path, choices: Choices) -> tuple[dict[str, Annotations], list[Problem]]:
    """The annotations of every split, and the splits that are not there or cannot be read."""
    read: dict[str, Annotations] = {}
    problems: list[Problem] = []
    readers = find_readers(data, choices)
    if not readers.keys() & TRAINED:
        words = (f"only {' and '.join(readers)}",)
        kind = KINDS["split-untrained"]
        problems.append(Problem("split-untrained", "", str(data), 1, 1, words, kind))
    for name, reader in readers.items():
        try:
            found = own_classes(reader())
        except InputError as error:
            kind = KINDS["annotations-unreadable"]
            words = (str(error),)
            problems.append(Problem("annotations-unreadable", name, str(data), 1, 1, words, kind))
            continue
        if "train" in read:  # a class that training does not know is an error elsewhere
            known = len(found.findings)
            strangers = given_classes(found, read["train"].classes).findings[known:]
            found = found.with_findings(
                each for each in strangers if each.code == "category-unknown"
            )
        read[name] = found
    return read, problems


def with_looks(
    read: dict[str, Annotations], examination: Examination, progress: Progress
) -> list[Split]:
    """The splits with what their image files are."""
    paths = [path for found in read.values() for path in found.paths]
    with progress(len(paths)) as advance:
        seen = looks(paths, examination.decode, examination.workers, advance)
    splits, first = [], 0
    for name, found in read.items():
        last = first + len(found.image_ids)
        splits.append(Split(name, found, seen[first:last]))
        first = last
    return splits


def as_trained(problems: Sequence[Problem]) -> list[Problem]:
    """The same problems, of which those that stop no training are no errors.

    A training leaves out a few images of a split that cannot be used. More of them stop it, and so
    do pixels that cannot be decoded. It does not read the test split.
    """
    trains = all(problem.code != "split-untrained" for problem in problems)
    unusable: Counter[str] = Counter()
    for problem in problems:
        if problem.code in LEFT_OUT:
            unusable[problem.split] += problem.count

    def stops(problem: Problem) -> bool:
        if trains and problem.split == "test":
            return False
        return problem.code not in LEFT_OUT or not are_few(unusable[problem.split], problem.total)

    return [
        problem
        if problem.severity != "error" or stops(problem)
        else replace(problem, kind=replace(problem.kind, severity="warning", harm=1.0))
        for problem in problems
    ]


def ordered(problems: Sequence[Problem]) -> list[Problem]:
    """The most costly problem first; errors before warnings before notes."""
    return sorted(
        problems,
        key=lambda problem: (ORDER[problem.severity], -problem.cost, -problem.count, problem.code),
    )
