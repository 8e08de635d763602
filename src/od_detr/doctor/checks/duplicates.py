"""Images that are there more than once, exactly or nearly, inside of a split or in two splits.

Two images are nearly the same if their small grey pictures are: first by a difference hash of 64
bits (is each patch brighter than its neighbour?), then by the mean difference of the grey values.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8, UInt64

from od_detr.doctor.looks import THUMB, Look
from od_detr.doctor.problem import Problem, Split, of_images

BITS = 3  # of 64 in which the hashes of near-duplicates differ at most
BANDS = 4  # one more than BITS: then one band at least is equal
CLOSE = 4.0  # mean difference of the grey values, of 255
CROWDED = 64  # images in a bucket, beyond which its hash says too little


@dataclass(frozen=True)
class Place:
    """An image of a split, by their indices; ordered like the splits."""

    split: int
    image: int


def duplicate_problems(splits: Sequence[Split]) -> list[Problem]:
    """Images that equal, or nearly equal, an earlier one of their split or one of a later split."""
    places = [
        Place(number, image)
        for number, split in enumerate(splits)
        for image, look in enumerate(split.looks)
        if look.thumb
    ]
    looks = [splits[place.split].looks[place.image] for place in places]
    exact = list(equal_pairs(look.digest for look in looks))
    known = set(exact)
    near = [pair for pair in near_pairs(looks) if pair not in known]
    problems: list[Problem] = []
    for pairs, leaked, repeated in (
        (exact, "image-leaked", "image-repeated"),
        (near, "image-nearly-leaked", "image-nearly-repeated"),
    ):
        located = [(places[first], places[second]) for first, second in pairs]
        problems += _across(splits, leaked, located)
        problems += _inside(splits, repeated, located)
    return problems


def equal_pairs(keys: Iterable[bytes]) -> Iterator[tuple[int, int]]:
    """Pairs of indices with one key, the first of each group with every other."""
    first: dict[bytes, int] = {}
    groups: dict[int, list[int]] = defaultdict(list)
    for index, key in enumerate(keys):
        groups[first.setdefault(key, index)].append(index)
    for members in groups.values():
        # All pairs of small groups; a large one is tied to its first member.
        heads = members if len(members) <= CROWDED else members[:1]
        for place, head in enumerate(heads):
            yield from ((head, other) for other in members[place + 1 :])


def near_pairs(looks: Sequence[Look]) -> list[tuple[int, int]]:
    """Pairs of images whose small grey pictures are nearly the same."""
    if not looks:
        return []
    thumbs = np.stack([np.frombuffer(look.thumb, np.uint8).reshape(THUMB, THUMB) for look in looks])
    hashes = difference_hashes(thumbs)
    candidates: set[tuple[int, int]] = set()
    width = 64 // BANDS
    for band in range(BANDS):
        keys = (hashes >> np.uint64(band * width)) & np.uint64((1 << width) - 1)
        order = np.argsort(keys, kind="stable")
        edges = np.flatnonzero(np.diff(keys[order])) + 1
        for bucket in np.split(order, edges):
            if 1 < len(bucket) <= CROWDED * max(1, len(looks) // 1000):
                candidates.update(_close(bucket, hashes, thumbs))
    return sorted(candidates)


def difference_hashes(thumbs: UInt8[np.ndarray, "N T T"]) -> UInt64[np.ndarray, " N"]:
    """64 bits an image: whether each of 8 x 8 patches is brighter than its right neighbour."""
    patches = thumbs.reshape(len(thumbs), 8, 2, THUMB).sum(2, dtype=np.int64)
    columns = np.linspace(0, THUMB, 10).round().astype(int)
    cells = np.add.reduceat(patches, columns[:-1], 2) / np.diff(columns)
    bits = (cells[:, :, :-1] > cells[:, :, 1:]).reshape(len(thumbs), 64)
    return np.packbits(bits, axis=1).view(np.uint64).reshape(-1)


def _close(bucket: np.ndarray, hashes: np.ndarray, thumbs: np.ndarray) -> Iterator[tuple[int, int]]:
    for place, first in enumerate(bucket[:-1].tolist()):
        others = bucket[place + 1 :]
        differing = np.bitwise_count(hashes[first] ^ hashes[others])
        for second in others[differing <= BITS].tolist():
            apart = np.abs(thumbs[first].astype(np.int16) - thumbs[second]).mean()
            flat = int(thumbs[first].max()) - int(thumbs[first].min()) < 8 * CLOSE
            if apart <= CLOSE and not flat:
                yield min(first, second), max(first, second)


def _across(
    splits: Sequence[Split], code: str, pairs: Sequence[tuple[Place, Place]]
) -> list[Problem]:
    """Attributed to the earlier split, from which such an image is to be taken."""
    problems: list[Problem] = []
    for number, split in enumerate(splits):
        twins: dict[int, Place] = {}
        for first, second in pairs:
            if first.split == number != second.split:
                twins.setdefault(first.image, second)
        measured = {twin.split for twin in twins.values()}
        # What is spoilt is the measurement on the other split.
        total = sum(len(splits[each].looks) for each in measured)
        problems += of_images(
            code,
            split,
            sorted(twins),
            lambda image, twins=twins: _named(splits, twins[image]),
            total,
        )
    return problems


def _inside(
    splits: Sequence[Split], code: str, pairs: Sequence[tuple[Place, Place]]
) -> list[Problem]:
    """Attributed to the later image; the same file listed twice is the reader's to report."""
    problems: list[Problem] = []
    for number, split in enumerate(splits):
        paths = split.annotations.paths
        twins = {
            second.image: first
            for first, second in reversed(pairs)
            if first.split == second.split == number and paths[first.image] != paths[second.image]
        }
        other = [image for image in twins if not same_boxes(split, image, twins[image].image)]
        relabelled = set(other) if code == "image-repeated" else set()

        def detail(image: int, twins: dict[int, Place] = twins) -> str:
            return _named(splits, twins[image])

        problems += of_images("image-labelled-twice", split, sorted(relabelled), detail)
        problems += of_images(code, split, sorted(set(twins) - relabelled), detail)
    return problems


def same_boxes(split: Split, first: int, second: int) -> bool:
    """Whether two images have the same boxes and classes."""
    found = split.annotations

    def rows(image: int) -> list[tuple[float, ...]]:
        mine = slice(int(found.starts[image]), int(found.starts[image + 1]))
        table = np.column_stack([found.labels[mine], found.boxes_xywh[mine]])
        return sorted(map(tuple, table.round(3).tolist()))

    return rows(first) == rows(second)


def _named(splits: Sequence[Split], twin: Place) -> str:
    split = splits[twin.split]
    return f"like {split.image(twin.image)} of {split.name}"
