"""Does every query keep its ground truth? Matching instability (Fig. 1) and consistency (Fig. 5).

Both compare two matchings of the same images as sets of pairs (query, target): two epochs of one
detector for the instability, the student and its teacher for the consistency.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from od_detr.structures import Matching, Targets

# A `Matching`, or integers (images, queries) from numpy, torch or nested lists, -1 where a query is
# unmatched.
Matched = Any


def instability(before: Matched, after: Matched, images: int | None = None) -> float:
    """Queries whose target changed, a mean over the images (section 3.2, Fig. 1; DN-DETR's IS).

    A query that loses its target and one that gains it count one each: an image with G targets
    contributes between 0 (nothing changed) and 2 G. `Matching` values do not know of images behind
    the last matched one: tell them by `images`. 0 for no image at all. Raises ValueError where the
    two do not fit together.
    """
    first, second, images = _paired(before, after, images)
    return _changes(first, second) / max(images, 1)


def consistency(student: Matched, teacher: Matched) -> float:
    """Fraction of the ground truths that both match to the same query, over all images (section
    4.3, Fig. 5).

    The ground truths are those that either matches. 1 if there are none.
    """
    first, second, _ = _paired(student, teacher, None)
    return _fraction(first, second, [0, 2])


def agreement(student: Matched, teacher: Matched) -> float:
    """Fraction of the queries matched by either that both match to the same ground truth (Fig. 5,
    read literally).

    Equals c / (2 - c) for a consistency c, as long as no query is matched to different ground
    truths.
    """
    first, second, _ = _paired(student, teacher, None)
    return _fraction(first, second, [0, 1])


class MatchingRecord:
    """The matchings of one validation pass, image by image and layer by layer, to compare passes
    with.

    Images are known by their id, so their order and their batches do not matter; an image added
    again (a sampler's padding) replaces its earlier self. Two records are compared over the images
    they share.
    """

    def __init__(self) -> None:
        self._shape: tuple[int, int] | None = None  # decoder layers, queries
        self._matches: dict[
            int, Int[Tensor, "M 3"]
        ] = {}  # by image id; layer, query or token, target

    def __len__(self) -> int:
        """Number of images."""
        return len(self._matches)

    def add(
        self, image_id: int, assignment: Int[Tensor, "K Q"], tokens: Int[Tensor, " Q"] | None = None
    ) -> None:
        """Records which target of the image (in the data set's order) each query has at each layer,
        -1 for none.

        `tokens` are the memory tokens that a two-stage detector made its queries from: a query's
        index is only its rank there, so queries of different passes are the same if their tokens
        are.
        """
        layers, queries = assignment.shape
        self._expect((layers, queries))
        assignment = assignment.cpu()
        layer, query = (assignment >= 0).nonzero(as_tuple=True)
        name = query if tokens is None else tokens.cpu()[query]
        self._matches[int(image_id)] = torch.stack([layer, name, assignment[layer, query]], 1).int()

    def add_batch(
        self,
        image_ids: Sequence[int],
        matching: Matching,
        targets: Targets,
        shape: tuple[int, int],
        tokens: Int[Tensor, "B Q"] | None = None,
    ) -> None:
        """Records a group's matching over its views (layers and images folded).

        `shape` is (layers, queries).
        """
        layers, queries = shape
        views = matching.to("cpu").targets_of_queries(layers * len(image_ids), queries)
        assignments = views.view(layers, len(image_ids), queries)
        for image, (image_id, start) in enumerate(zip(image_ids, targets.starts, strict=True)):
            assignment = assignments[:, image]
            own = torch.where(assignment >= 0, assignment - start, -1)
            self.add(image_id, own, None if tokens is None else tokens[image])

    def merge(self, other: MatchingRecord) -> None:
        """Takes over the images of another process."""
        if other._shape is not None:
            self._expect(other._shape)
        self._matches.update(other._matches)

    def instability(self, previous: MatchingRecord) -> list[float]:
        """`instability` of every decoder layer since the previous pass.

        The last one is the paper's metric.
        """
        images = len(self._shared(previous))
        return [_changes(first, second) / images for first, second in self._layers(previous)]

    def consistency(self, other: MatchingRecord) -> list[float]:
        """`consistency` of every decoder layer with another detector's pass.

        The last one is the paper's metric.
        """
        return [_fraction(first, second, [0, 2]) for first, second in self._layers(other)]

    def agreement(self, other: MatchingRecord) -> list[float]:
        """`agreement` of every decoder layer with another detector's pass."""
        return [_fraction(first, second, [0, 1]) for first, second in self._layers(other)]

    def state_dict(self) -> dict[str, Tensor]:
        """The record as plain tensors; a few bytes a match, whatever the number of queries."""
        matches = list(self._matches.values())
        return {
            "shape": torch.tensor(self._shape or (), dtype=torch.long),
            "images": torch.tensor(list(self._matches), dtype=torch.long),
            "counts": torch.tensor([len(match) for match in matches], dtype=torch.long),
            "matches": torch.cat([torch.zeros(0, 3, dtype=torch.int32), *matches]),
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Becomes the record whose `state_dict` this is."""
        shape = state["shape"].tolist()
        self._shape = (shape[0], shape[1]) if shape else None
        matches = state["matches"].split(state["counts"].tolist())
        self._matches = dict(zip(state["images"].tolist(), matches, strict=True))

    def _expect(self, shape: tuple[int, int]) -> None:
        if self._shape not in (None, shape):
            raise ValueError(
                f"matchings of (layers, queries) = {shape} do not fit a record of {self._shape}"
            )
        self._shape = shape

    def _shared(self, other: MatchingRecord) -> list[int]:
        if self._shape != other._shape:
            raise ValueError(
                f"records of (layers, queries) = {self._shape} and {other._shape} cannot be "
                "compared"
            )
        shared = [image for image in self._matches if image in other._matches]
        if not shared:
            raise ValueError("the records have no image in common")
        return shared

    def _layers(self, other: MatchingRecord) -> list[tuple[np.ndarray, np.ndarray]]:
        """The pairs of both records, layer by layer, over the images they share."""
        shared = self._shared(other)
        mine, theirs = self._table(shared), other._table(shared)
        layers, _ = self._shape or (0, 0)
        return [
            (mine[mine[:, 3] == layer, :3], theirs[theirs[:, 3] == layer, :3])
            for layer in range(layers)
        ]

    def _table(self, images: list[int]) -> np.ndarray:
        """Rows of image number, query, target, layer."""
        matches = [self._matches[image] for image in images]
        numbers = torch.repeat_interleave(torch.tensor([len(match) for match in matches]))
        layer, query, target = torch.cat(matches).long().unbind(1)
        return torch.stack([numbers, query, target, layer], 1).numpy()


def _changes(first: np.ndarray, second: np.ndarray) -> int:
    """Number of queries that do not have the same target in both; rows of image, query, target."""
    rows, times = np.unique(np.concatenate([first, second]), axis=0, return_counts=True)
    return len(np.unique(rows[times == 1, :2], axis=0))


def _fraction(first: np.ndarray, second: np.ndarray, columns: list[int]) -> float:
    """What of all (image, target) or (image, query) is paired the same way in both."""
    rows, times = np.unique(np.concatenate([first, second]), axis=0, return_counts=True)
    everything = len(np.unique(rows[:, columns], axis=0))
    return len(np.unique(rows[times == 2][:, columns], axis=0)) / everything if everything else 1.0


def _paired(
    first: Matched, second: Matched, images: int | None
) -> tuple[np.ndarray, np.ndarray, int]:
    """Both matchings as unique rows of image, query, target, and the number of images."""
    if isinstance(first, Matching) != isinstance(second, Matching):
        raise ValueError(
            "a Matching can only be compared with a Matching, and an array with an array"
        )
    if isinstance(first, Matching):
        rows = [
            np.unique(torch.stack(list(matching), 1).cpu().numpy(), axis=0)
            for matching in (first, second)
        ]
        seen = max((int(table[:, 0].max()) + 1 for table in rows if len(table)), default=0)
        if images is not None and images < seen:
            raise ValueError(f"the matchings speak of {seen} images, more than images={images}")
        return rows[0], rows[1], seen if images is None else images
    arrays = [_integers(values) for values in (first, second)]
    if arrays[0].shape != arrays[1].shape:
        raise ValueError(
            f"matchings of (images, queries) = {arrays[0].shape} and {arrays[1].shape} cannot be "
            "compared"
        )
    if images not in (None, len(arrays[0])):
        raise ValueError(f"the matchings hold {len(arrays[0])} images, not images={images}")
    rows = [np.column_stack([*np.nonzero(array >= 0), array[array >= 0]]) for array in arrays]
    return rows[0], rows[1], len(arrays[0])


def _integers(values: Matched) -> np.ndarray:
    array = values.cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
    if array.ndim != 2 or (array.size and not np.issubdtype(array.dtype, np.integer)):
        raise ValueError(
            f"a matching is integers (images, queries), not {array.dtype} of shape {array.shape}"
        )
    return array
