"""The images of an epoch: each once, or rare classes more often and fewer images without objects.

Every epoch has the same number of images, because the learning-rate schedule counts its steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64, Int64

TOLERANCE = 1e-6  # of a sum of expected copies that is a whole number


class Draw(NamedTuple):
    """One image of an epoch.

    Attributes:
        epoch: the epoch, counted from 0.
        place: index of the image in the data set.
        copy: how often the epoch has it before, in its own order; augmented in another way.
    """

    epoch: int
    place: int
    copy: int = 0


@dataclass(frozen=True)
class Composition:
    """Which images an epoch has, and how often, a pure function of seed and epoch.

    The number of copies of an image is its expectation rounded up or down at random. The numbers of
    images with and without objects are the same in each epoch.

    Attributes:
        repeats: expected number of copies of each image in an epoch.
        background: which images have no objects.
    """

    repeats: Float64[np.ndarray, " I"]
    background: Bool[np.ndarray, " I"]

    @classmethod
    def each_once(cls, images: int) -> Composition:
        """Every image once an epoch."""
        return cls(np.ones(images), np.zeros(images, dtype=bool))

    def __len__(self) -> int:
        """Images of an epoch."""
        return sum(_whole(self.repeats[part]) for part in self._parts)

    @property
    def _parts(self) -> tuple[Bool[np.ndarray, " I"], Bool[np.ndarray, " I"]]:
        return ~self.background, self.background

    def any_image(self, rng: Random) -> int:
        """The place of an image, each as likely as it is frequent in the epochs."""
        point = rng.random() * self._ends[-1]
        return int(np.searchsorted(self._ends[:-1], point, side="right"))

    @cached_property
    def _ends(self) -> Float64[np.ndarray, " I"]:
        """The images' shares of an epoch end to end."""
        return np.cumsum(self.repeats)

    def copies(self, seed: int, epoch: int) -> Int64[np.ndarray, " I"]:
        """The number of copies of each image in an epoch."""
        rng = Random(f"{seed} {epoch} copies")
        copies = np.zeros(len(self.repeats), dtype=np.int64)
        for part in self._parts:
            copies[part] = rounded(self.repeats[part], rng)
        return copies

    def draws(self, seed: int, epoch: int) -> list[Draw]:
        """The images of an epoch in the order of the data set."""
        copies = self.copies(seed, epoch).tolist()
        return [
            Draw(epoch, place, copy) for place, count in enumerate(copies) for copy in range(count)
        ]


def rounded(expected: Float64[np.ndarray, " I"], rng: Random) -> Int64[np.ndarray, " I"]:
    """Whole numbers whose mean over many calls is `expected`, and whose sum never varies.

    Each is rounded up or down. The sum is that of `expected` rounded down, so all of them together
    fall short of their expectation by less than 1.
    """
    whole = np.floor(expected).astype(np.int64)
    total = _whole(expected) - int(whole.sum())
    if total == 0:
        return whole
    # Systematic sampling: the fractions lie end to end in a random order, and every point at a
    # distance of 1 from the one before, from a random start, rounds up the fraction it falls on.
    order = rng.sample(range(len(expected)), len(expected))
    ends = np.cumsum((expected - whole)[order])
    passed = np.minimum(np.floor(ends * (total / ends[-1]) + rng.random()), total)
    passed[-1] = total
    whole[order] += np.diff(passed, prepend=0).astype(np.int64)
    return whole


def _whole(expected: Float64[np.ndarray, " I"]) -> int:
    """The sum rounded down."""
    return int(np.floor(expected.sum() + TOLERANCE))
