"""The values that every part of the package works on.

Shape letters, here and everywhere else:

====  =======================================================================================
B     images of a batch
H, W  height and width in pixels
K     decoder layers
R     blocks of a query group: equal parts that cannot see one another
Q     queries of a group, all its blocks together
q     queries of one block (Q = R * q)
I     views: an image as one decoder layer and one block sees it (I = K * B * R)
N     targets of the batch
G     target slots of an image: as many as the fullest image has targets
M     matched pairs of a query and a target
P     matched pairs of the teacher
T     teacher layers that auxiliary queries are taken from
X     queries taken from a larger set
C     classes
D     channels
S     memory tokens
L     levels of the feature pyramid
A     coordinates of an anchor: 2 (a point) or 4 (a box)
====  =======================================================================================

All layers of a group are matched and supervised at once: layers, images and blocks are folded into
the single axis of views, in this order.

Boxes are normalised ``(cx, cy, w, h)`` in [0, 1], relative to the image without its padding. A box
of size zero is a *point*: an anchor of which only the centre is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from types import MappingProxyType
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from od_detr.transfers import moved, to_device_of


@dataclass(frozen=True)
class Share:
    """What a batch has to know of the optimizer step whose gradients it is a part of.

    Args:
        batches: number of batches whose gradients the step averages.
        targets: number of targets in all of them.
        most: number of targets of the fullest image of all of them.
    """

    batches: int
    targets: int
    most: int

    @staticmethod
    def of(batches: Sequence[Targets]) -> Share:
        """The share of each of these batches in the step that they make together."""
        most = max((targets.most for targets in batches), default=0)
        return Share(len(batches), sum(map(len, batches)), most)


@dataclass(frozen=True)
class Targets:
    """The labelled objects of a batch, concatenated image after image.

    Args:
        boxes: of all images.
        labels: their classes.
        counts: number of targets of each image. It stays on the host, so that the device never has
            to be asked for it.
        keys: a number for each image that random choices about it are drawn from, so that they
            depend on nothing else in the batch; none: they are drawn from the device's generator.
        share: the step that the batch is a part of; None: it is a step by itself.
    """

    boxes: Float[Tensor, "N 4"]
    labels: Int[Tensor, " N"]
    counts: tuple[int, ...]
    keys: tuple[int, ...] = ()
    share: Share | None = None

    def __len__(self) -> int:
        return sum(self.counts)

    @property
    def most(self) -> int:
        """Number of targets of the fullest image, G."""
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
        """Index of each target among the targets of its own image (on the host)."""
        return torch.tensor(
            [slot for count in self.counts for slot in range(count)], dtype=torch.long
        )

    @cached_property
    def padded(self) -> tuple[Float[Tensor, "B G 4"], Int[Tensor, "B G"]]:
        """Boxes and labels image by image, each row padded to G with zero boxes of class 0."""
        shape = (len(self.counts), self.most)
        place = to_device_of(self.image * self.most + self.slot, self.boxes)
        boxes = self.boxes.new_zeros(shape[0] * shape[1], 4).index_copy(0, place, self.boxes)
        labels = self.labels.new_zeros(shape[0] * shape[1]).index_copy(0, place, self.labels)
        return boxes.view(*shape, 4), labels.view(shape)

    def to(self, device: torch.device | str) -> Targets:
        """The same targets on `device`."""
        return replace(self, boxes=moved(self.boxes, device), labels=moved(self.labels, device))


@dataclass(frozen=True)
class Batch:
    """Images padded at the bottom and the right to one size, and their targets.

    `images` are uint8 RGB as decoded (the detector normalises them on its device) or float already
    normalised; `padding` is True where a pixel is padding. `sizes` are the original (height, width)
    in pixels, to which detections are scaled back.
    """

    images: UInt8[Tensor, "B 3 H W"] | Float[Tensor, "B 3 H W"]
    padding: Bool[Tensor, "B H W"]
    targets: Targets
    image_ids: tuple[int, ...] = ()
    sizes: tuple[tuple[int, int], ...] = ()

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on `device`."""
        return replace(
            self,
            images=moved(self.images, device),
            padding=moved(self.padding, device),
            targets=self.targets.to(device),
        )

    def pin_memory(self) -> Batch:
        """The same batch in pinned memory, from which copies to a GPU run in the background."""
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
    """Queries as a decoder layer receives them.

    `position` is None for architectures that derive it from the anchors at each layer.
    """

    content: Float[Tensor, "B Q D"]
    anchors: Float[Tensor, "B Q 4"]
    position: Float[Tensor, "B Q D"] | None = None

    def __len__(self) -> int:
        return self.content.shape[1]

    @staticmethod
    def cat(sets: Sequence[QuerySet]) -> QuerySet:
        """Joins query sets along the query axis.

        Raises:
            ValueError: some sets bring their position and some do not.
        """
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

    def take(self, index: Int[Tensor, "B X"]) -> QuerySet:
        """Gathers the queries at `index`, image by image."""

        def gather(values: Tensor) -> Tensor:
            return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))

        return QuerySet(
            gather(self.content),
            gather(self.anchors),
            None if self.position is None else gather(self.position),
        )

    def detach(self) -> QuerySet:
        """The same queries without a gradient."""
        return QuerySet(
            self.content.detach(),
            self.anchors.detach(),
            None if self.position is None else self.position.detach(),
        )


class Views(NamedTuple):
    """Predictions as matching and losses see them: one entry per layer, image and block."""

    logits: Float[Tensor, "I q C"]
    boxes: Float[Tensor, "I q 4"]


@dataclass(frozen=True)
class Predictions:
    """Predictions of a group's queries at every decoder layer, always in float32."""

    logits: Float[Tensor, "K B Q C"]
    boxes: Float[Tensor, "K B Q 4"]

    def views(self, blocks: int = 1) -> Views:
        """Folds layers, images and blocks into one axis: (K, B, R * q, ·) -> (K * B * R, q, ·)."""
        queries = self.logits.shape[2] // blocks
        return Views(
            *(part.reshape(-1, queries, part.shape[-1]) for part in (self.logits, self.boxes))
        )


class Matching(NamedTuple):
    """Which query predicts which target: one triple (view, query, target) per matched pair.

    A view is an image at one layer, in one block; see `Predictions.views`. `query` counts within
    the view, `target` within the batch. In a multi-target matching a query occurs more than
    once.
    """

    view: Int[Tensor, " M"]
    query: Int[Tensor, " M"]
    target: Int[Tensor, " M"]

    def targets_of_queries(self, views: int, queries: int) -> Int[Tensor, "I q"]:
        """The target of every query, -1 where it has none (the last one where it has several)."""
        dense = self.query.new_full((views, queries), -1)
        dense[self.view, self.query] = self.target
        return dense

    def queries_of_targets(self, views: int, targets: int) -> Int[Tensor, "I N"]:
        """The query of every target, -1 where it has none (the last one where it has several)."""
        dense = self.query.new_full((views, targets), -1)
        dense[self.view, self.target] = self.query
        return dense

    def to(self, device: torch.device | str) -> Matching:
        """The same matching on `device`; on the CPU it can be read at once."""
        return Matching(*moved(torch.stack(self), device).unbind())


class Matched(NamedTuple):
    """The matching of a group over its views, and the cost of every (target slot, query) pair it
    was solved from.

    `costs` is None for a matching known by construction. Slots beyond an image's targets hold
    arbitrary costs.
    """

    matching: Matching
    costs: Float[Tensor, "I G q"] | None = None


@dataclass(frozen=True)
class QueryGroup:
    """Queries that no other group sees.

    Args:
        name: unique within a step.
        queries: the queries as they enter the first decoder layer.
        blocks: number of equal parts that cannot see one another either, R.
        sees: names of the groups whose queries this one may see besides its own block.
        padding: True for empty slots.
        origin: index of each query in the set it was taken from.
        matching: the matching known by construction; without it the group is matched by the
            Hungarian algorithm.
        matched: False for a group that is supervised without a matching (prediction distillation).
        own: whether the group is the architecture's own, rather than added by an objective.
    """

    name: str
    queries: QuerySet
    blocks: int = 1
    sees: tuple[str, ...] = ()
    padding: Bool[Tensor, "B Q"] | None = None
    origin: Int[Tensor, "B Q"] | None = None
    matching: Matching | None = None
    matched: bool = True
    own: bool = False


@dataclass(frozen=True)
class GroupOutput:
    """A decoded group.

    `queries[0]` entered the first layer and `queries[k]` left layer k (content before any final
    norm, anchors refined and detached).
    """

    group: QueryGroup
    queries: tuple[QuerySet, ...]
    predictions: Predictions

    @property
    def num_layers(self) -> int:
        """Number of layers that predict, K."""
        return len(self.predictions.logits)

    @property
    def views(self) -> Views:
        """The predictions with layers, images and blocks folded into one axis."""
        return self.predictions.views(self.group.blocks)


@dataclass(frozen=True)
class Outputs:
    """The decoded groups of a batch by name.

    A two-stage architecture's proposals are the group "encoder".
    """

    groups: Mapping[str, GroupOutput] = field(default_factory=lambda: MappingProxyType({}))

    @staticmethod
    def of(outputs: Iterable[GroupOutput]) -> Outputs:
        """Groups under their own names.

        Raises:
            ValueError: two groups have the same name.
        """
        decoded = list(outputs)
        check_unique((output.group.name for output in decoded), "query group")
        return Outputs(MappingProxyType({output.group.name: output for output in decoded}))

    def __getitem__(self, name: str) -> GroupOutput:
        return self.groups[name]

    def __contains__(self, name: str) -> bool:
        return name in self.groups


def check_unique(names: Iterable[str], kind: str) -> None:
    """Raises ValueError if a name occurs twice; `kind` says what is named."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"there are two {kind}s named {name!r}; give each a name of its own")
        seen.add(name)
