"""The nouns every part of the package speaks.

Axes: `B` images, `Q` queries, `N` targets in the batch, `M` matches, `C` classes, `D` channels,
`S` memory tokens, `L` levels, `K` decoder layers. `I` counts *views*: an image as one decoder layer
(and one blind block of queries) sees it. All layers of a group are matched and supervised at once by
folding layers, images and blocks into that single axis, in this order.

Boxes are normalised ``(cx, cy, w, h)`` in [0, 1], relative to the image without its padding.
A box of zero size is a *point*: an anchor of which only the centre is known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from od_detr.transfers import to_device_of


@dataclass(frozen=True)
class Targets:
    """The labelled objects of a batch, concatenated image after image.

    `counts` stays on the host, so that nothing ever asks the device how many objects there are.
    """

    boxes: Float[Tensor, "N 4"]
    labels: Int[Tensor, " N"]
    counts: tuple[int, ...]

    def __len__(self) -> int:
        return sum(self.counts)

    @property
    def most(self) -> int:
        """Number of objects of the fullest image."""
        return max(self.counts, default=0)

    @property
    def starts(self) -> tuple[int, ...]:
        """Index of the first target of each image."""
        return tuple(sum(self.counts[:image]) for image in range(len(self.counts)))

    @cached_property
    def image(self) -> Int[Tensor, " N"]:
        """Batch index of the image each target belongs to (on the host)."""
        return torch.repeat_interleave(
            torch.arange(len(self.counts)), torch.tensor(self.counts, dtype=torch.long)
        )

    @cached_property
    def slot(self) -> Int[Tensor, " N"]:
        """Place of each target among the targets of its own image (on the host)."""
        return torch.tensor(
            [slot for count in self.counts for slot in range(count)], dtype=torch.long
        )

    @cached_property
    def padded(self) -> tuple[Float[Tensor, "B G 4"], Int[Tensor, "B G"]]:
        """Boxes and labels of every image in a row of equal length; the padding is a zero box of class 0."""
        shape = (len(self.counts), self.most)
        place = to_device_of(self.image * self.most + self.slot, self.boxes)
        boxes = self.boxes.new_zeros(shape[0] * shape[1], 4).index_copy(0, place, self.boxes)
        labels = self.labels.new_zeros(shape[0] * shape[1]).index_copy(0, place, self.labels)
        return boxes.view(*shape, 4), labels.view(shape)

    def to(self, device: torch.device | str) -> Targets:
        return replace(
            self,
            boxes=self.boxes.to(device, non_blocking=True),
            labels=self.labels.to(device, non_blocking=True),
        )


@dataclass(frozen=True)
class Batch:
    """Images padded at the bottom and the right to one size, and their targets.

    `images` are uint8 RGB as decoded (the detector normalises them on its device) or float already
    normalised; `padding` is True where a pixel is padding. `sizes` are the original (height, width) in
    pixels, to which detections are scaled back.
    """

    images: UInt8[Tensor, "B 3 H W"] | Float[Tensor, "B 3 H W"]
    padding: Bool[Tensor, "B H W"]
    targets: Targets
    image_ids: tuple[int, ...] = ()
    sizes: tuple[tuple[int, int], ...] = ()

    def to(self, device: torch.device | str) -> Batch:
        return replace(
            self,
            images=self.images.to(device, non_blocking=True),
            padding=self.padding.to(device, non_blocking=True),
            targets=self.targets.to(device),
        )

    def pin_memory(self) -> Batch:
        targets = replace(
            self.targets,
            boxes=self.targets.boxes.pin_memory(),
            labels=self.targets.labels.pin_memory(),
        )
        return replace(
            self,
            images=self.images.pin_memory(),
            padding=self.padding.pin_memory(),
            targets=targets,
        )


@dataclass(frozen=True)
class QuerySet:
    """Queries as a decoder layer receives them: what they carry and where they look.

    `position` is None where the host derives the positional embedding from the anchors at each layer.
    """

    content: Float[Tensor, "B Q D"]
    anchors: Float[Tensor, "B Q 4"]
    position: Float[Tensor, "B Q D"] | None = None

    def __len__(self) -> int:
        return self.content.shape[1]

    @staticmethod
    def cat(sets: Sequence[QuerySet]) -> QuerySet:
        """Joins query sets along the query axis."""
        positions = [queries.position for queries in sets if queries.position is not None]
        if positions and len(positions) != len(sets):
            raise ValueError("query sets with and without a position cannot be joined")
        return QuerySet(
            torch.cat([queries.content for queries in sets], 1),
            torch.cat([queries.anchors for queries in sets], 1),
            torch.cat(positions, 1) if positions else None,
        )

    def __getitem__(self, part: slice) -> QuerySet:
        return QuerySet(
            self.content[:, part],
            self.anchors[:, part],
            None if self.position is None else self.position[:, part],
        )

    def take(self, index: Int[Tensor, "B P"]) -> QuerySet:
        """Gathers the queries at `index`, image by image."""

        def gather(values: Tensor) -> Tensor:
            return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))

        return QuerySet(
            gather(self.content),
            gather(self.anchors),
            None if self.position is None else gather(self.position),
        )

    def detach(self) -> QuerySet:
        return QuerySet(
            self.content.detach(),
            self.anchors.detach(),
            None if self.position is None else self.position.detach(),
        )


class Views(NamedTuple):
    """Predictions as matching and losses see them: every image at every layer, and in every block, by itself."""

    logits: Float[Tensor, "I q C"]
    boxes: Float[Tensor, "I q 4"]


@dataclass(frozen=True)
class Predictions:
    """What a group's queries predict at every decoder layer, always in float32."""

    logits: Float[Tensor, "K B Q C"]
    boxes: Float[Tensor, "K B Q 4"]

    def views(self, blocks: int = 1) -> Views:
        """Folds layers, images and blocks into one axis: (K, B, blocks * q, ·) -> (K * B * blocks, q, ·)."""
        queries = self.logits.shape[2] // blocks
        return Views(
            *(part.reshape(-1, queries, part.shape[-1]) for part in (self.logits, self.boxes))
        )


class Matching(NamedTuple):
    """Which query answers for which target: flat triples, as many as there are matches.

    `image` indexes views (layers, images and blocks folded; plainly the image for a single layer without
    blocks), `query` the query within its view, `target` the target within the batch. A matching that
    repeats a query is a multi-target one.
    """

    image: Int[Tensor, " M"]
    query: Int[Tensor, " M"]
    target: Int[Tensor, " M"]

    def targets_of_queries(self, views: int, queries: int) -> Int[Tensor, "I Q"]:
        """The target of every query, -1 where it has none (the last one where it has several)."""
        dense = self.query.new_full((views, queries), -1)
        dense[self.image, self.query] = self.target
        return dense

    def queries_of_targets(self, views: int, targets: int) -> Int[Tensor, "I N"]:
        """The query of every target, -1 where it has none (the last one where it has several)."""
        dense = self.query.new_full((views, targets), -1)
        dense[self.image, self.target] = self.query
        return dense

    def union(self, other: Matching) -> Matching:
        """Every pair of either matching, once."""
        triples = torch.stack([torch.cat(pair) for pair in zip(self, other, strict=True)], 1)
        return Matching(*torch.unique(triples, dim=0).unbind(1))

    def to(self, device: torch.device | str) -> Matching:
        return Matching(*torch.stack(self).to(device, non_blocking=True).unbind())


@dataclass(frozen=True)
class QueryGroup:
    """Queries that no other group sees.

    `blocks` equal parts of a group cannot see one another either; `sees` names the groups whose queries
    this one may look at besides its own block; `padding` marks empty slots; `origin` is the index each query
    had in the set it was taken from. `matching` is the matching
    known by construction; without it the group is matched by the Hungarian algorithm, unless `matched` is
    False: then its supervision is no matching at all (prediction distillation).
    """

    name: str
    queries: QuerySet
    blocks: int = 1
    sees: tuple[str, ...] = ()
    padding: Bool[Tensor, "B Q"] | None = None
    origin: Int[Tensor, "B Q"] | None = None
    matching: Matching | None = None
    matched: bool = True


@dataclass
class GroupOutput:
    """What became of a group in the decoder.

    `queries[0]` entered the first layer and `queries[k]` left layer k (content before any final norm,
    anchors refined and detached). `matching` and `costs` run over views; both are set by the matcher, and
    asking for them before is a defect. Where the matching is still being solved, `pending` waits for it.
    """

    group: QueryGroup
    queries: list[QuerySet]
    predictions: Predictions
    pending: Callable[[], None] | None = None
    _matching: Matching | None = None
    _costs: Float[Tensor, "I G q"] | None = None

    @property
    def matching(self) -> Matching:
        """Which query answers for which target, in every view."""
        if self._matching is None and self.pending is not None:
            self.pending()
        if self._matching is None:
            raise RuntimeError(f"the group {self.group.name!r} has not been matched")
        return self._matching

    @matching.setter
    def matching(self, matching: Matching) -> None:
        self._matching = matching

    @property
    def costs(self) -> Float[Tensor, "I G q"]:
        """Matching cost of every (target slot, query) pair of every view."""
        if self._costs is None:
            raise RuntimeError(f"the group {self.group.name!r} has not been matched by cost")
        return self._costs

    @costs.setter
    def costs(self, costs: Float[Tensor, "I G q"]) -> None:
        self._costs = costs

    @property
    def layers(self) -> int:
        return len(self.predictions.logits)

    @property
    def views(self) -> Views:
        """The predictions with layers, images and blocks folded into one axis."""
        return self.predictions.views(self.group.blocks)


@dataclass
class Outputs:
    """What a detector makes of a batch: one output per query group, and a two-stage host's proposals."""

    groups: dict[str, GroupOutput] = field(default_factory=dict)

    def __getitem__(self, name: str) -> GroupOutput:
        return self.groups[name]

    def __contains__(self, name: str) -> bool:
        return name in self.groups
