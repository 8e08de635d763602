"""Auxiliary groups (section 3.4): the teacher's best updated queries become query groups of the
student.

Every teacher layer gives a block of queries: the two cheapest of each target, as they left that
layer. The student decodes each block from its first layer on, and matching distillation supervises
it. The other readings are small functions in `od_detr.objectives.readings`; they take the place of
a field's default.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from od_detr.objectives.matching_distillation import MatchingDistillation, TeacherPairs
from od_detr.objectives.objective import Answer, Step, Taught, Terms, Truth
from od_detr.structures import (
    GroupOutput,
    Matched,
    Matching,
    QueryGroup,
    QuerySet,
    Targets,
)
from od_detr.transfers import to_device_of

GROUP = "auxiliary"


@dataclass(frozen=True)
class Candidates:
    """Queries that a teacher layer offers for its block, with their costs; slots may be empty."""

    index: Int[Tensor, "B T X"]
    cost: Float[Tensor, "B T X"]
    empty: Bool[Tensor, "B T X"]

    def reordered(self, order: Int[Tensor, "B T _slots"]) -> Candidates:
        """The slots at `order`."""
        return Candidates(*(part.gather(-1, order) for part in vars(self).values()))


@dataclass(frozen=True)
class Stages:
    """The teacher's main group at the layers that queries are taken from.

    `numbers` counts these layers from 1.
    """

    numbers: tuple[int, ...]
    output: GroupOutput
    costs: Float[Tensor, "B T G q"]

    @staticmethod
    def of(numbers: tuple[int, ...] | None, output: GroupOutput, costs: Tensor) -> Stages:
        """Selects the layers, also counted from the end, where the last is -1; None takes all."""
        last = output.num_layers
        chosen = tuple(number % (last + 1) for number in numbers or range(1, last + 1))
        return Stages(chosen, output, at_stages(costs, chosen, output.num_layers))


def at_stages(
    values: Shaped[Tensor, "I *s"], numbers: tuple[int, ...], num_layers: int
) -> Shaped[Tensor, "B T *s"]:
    """Selects layers from values stored by view (I = K * B), and puts the image axis first."""
    by_layer = values.unflatten(0, (num_layers, -1))
    layers = to_device_of([number - 1 for number in numbers], values, torch.long)
    return by_layer.index_select(0, layers).transpose(0, 1)


def two_cheapest(stages: Stages, targets: Targets, taught: Taught) -> Int[Tensor, "B T G _two"]:
    """The two cheapest queries of every target, chosen on the device (-1 where there is none)."""
    count = min(2, stages.costs.shape[-1])
    return stages.costs.topk(count, largest=False, sorted=True).indices


def without_repeats(candidates: Candidates) -> Candidates:
    """Keeps a query that several targets chose in the first of its slots only."""
    index, empty = candidates.index, candidates.empty
    # (B, T, X, X): entry (i, j) is True where slot j holds the query of slot i and is not empty.
    same = (index[..., :, None] == index[..., None, :]) & ~empty[..., None, :]
    return replace(candidates, empty=empty | same.tril(-1).any(-1))


def box_or_point(queries: QuerySet) -> QuerySet:
    """Keeps boxes, or makes points for architectures that start from points.

    Queries of the latter have a position of their own.
    """
    return queries if queries.position is None else as_points(queries)


def as_points(queries: QuerySet) -> QuerySet:
    """The same queries, starting from the centres of their boxes."""
    centres = queries.anchors[..., :2]
    return replace(queries, anchors=torch.cat([centres, torch.zeros_like(centres)], -1))


def by_both_matchings(
    distillation: MatchingDistillation,
    output: GroupOutput,
    own: Matched,
    original: TeacherPairs,
    truth: Truth,
    scale: float,
) -> Terms:
    """Matching distillation inside each block."""
    return distillation.supervise(output, own, original, truth, scale)


@dataclass(frozen=True)
class AuxiliaryGroups:
    """One block per teacher layer: the two cheapest queries of every target, decoded from the first
    layer on.

    Args:
        distillation: the matching distillation inside each block.
        stages: the teacher layers to take queries from, counted from 1, or from the end, where the
            last is -1; None takes all.
        choose: the queries of every target, -1 where there is none.
        arrange: what happens to the chosen queries of a block, in this order.
        start: what the chosen queries start from.
        supervise: how a block is supervised, given both matchings.
        average: average the blocks' losses rather than sum them.
        weight: factor on all of these losses.
    """

    distillation: MatchingDistillation = field(default_factory=MatchingDistillation)
    stages: tuple[int, ...] | None = None
    choose: Callable[[Stages, Targets, Taught], Tensor] = two_cheapest
    arrange: tuple[Callable[[Candidates], Candidates], ...] = (without_repeats,)
    start: Callable[[QuerySet], QuerySet] = box_or_point
    supervise: Callable[..., Terms] = by_both_matchings
    average: bool = True
    weight: float = 1.0

    @property
    def teacher_groups(self) -> tuple[str, ...]:
        """The teacher's main group, whose queries are taken."""
        return ("main",)

    def query_groups(
        self, queries: QuerySet, taught: Taught | None, targets: Targets
    ) -> list[QueryGroup]:
        """The chosen queries of all stages as one group with a block per stage."""
        if taught is None or targets.most == 0:
            return []
        stages = Stages.of(self.stages, taught.outputs["main"], taught.matches.costs["main"])
        chosen = self.select(stages, targets, taught)
        blocks = [
            self.start(updated_queries(stages.output, number).take(chosen.index[:, block]))
            for block, number in enumerate(stages.numbers)
        ]
        return [
            QueryGroup(
                GROUP,
                QuerySet.cat(blocks).detach(),
                blocks=len(blocks),
                padding=chosen.empty.flatten(1),
                origin=chosen.index.flatten(1),
            )
        ]

    def select(self, stages: Stages, targets: Targets, taught: Taught) -> Candidates:
        """The queries of every stage, with as many slots as the fullest image needs."""
        index = self.choose(stages, targets, taught)  # (B, T, G, queries of a target)
        counts = to_device_of(targets.counts, stages.costs, torch.long)
        real = torch.arange(targets.most, device=index.device) < counts[:, None]  # (B, G)
        empty = ~real[:, None, :, None].expand(index.shape) | (index < 0)
        index = index.clamp(min=0)  # an empty slot holds query 0, which nothing sees
        candidates = Candidates(
            index.flatten(2), stages.costs.gather(-1, index).flatten(2), empty.flatten(2)
        )
        for step in self.arrange:
            candidates = step(candidates)
        return candidates

    def losses(self, step: Step) -> Terms:
        """Terms of the group; none if nothing is distilled or the batch has no targets."""
        if step.teacher is None or GROUP not in step.student.outputs:
            return {}
        output, own = step.student[GROUP]
        original = self.original_matching(output, step.teacher, step.truth.targets)
        scale = self.weight / (output.group.blocks if self.average else 1)
        prediction = replace(self.distillation.prediction, group=GROUP, name=GROUP)
        distillation = replace(self.distillation, prediction=prediction)
        return self.supervise(distillation, output, own, original, step.truth, scale)

    def original_matching(
        self, output: GroupOutput, teacher: Answer, targets: Targets
    ) -> TeacherPairs:
        """The teacher's matching of each stage among the queries that were taken, for every student
        layer.

        Pairs whose query was not taken are not `kept`.
        """
        twin, (matching, costs) = teacher["main"]
        origin, padding = output.group.origin, output.group.padding
        assert costs is not None
        assert origin is not None  # see query_groups
        assert padding is not None
        stages = Stages.of(self.stages, twin, costs)
        images, blocks = len(targets.counts), output.group.blocks
        index = origin.unflatten(1, (blocks, -1))  # (B, R, q), the query in each slot of a block
        empty = padding.unflatten(1, (blocks, -1))

        # The teacher's views are (layer, image). Its layer is the block that was taken there, or
        # none.
        of_layer = [
            stages.numbers.index(layer) if layer in stages.numbers else -1
            for layer in range(1, twin.num_layers + 1)
        ]
        block = to_device_of(of_layer, matching.view)[matching.view // images]  # (P,)
        image = matching.view % images
        taken, block = block >= 0, block.clamp(min=0)

        # Find the slot that holds the matched query; of equal ones argmax finds the first.
        hits = (index[image, block] == matching.query[:, None]) & ~empty[image, block]  # (P, q)
        kept, slot = hits.any(-1) & taken, hits.int().argmax(-1)

        # The student's views are (layer, image, block), and all its layers follow the same
        # matching.
        layers = torch.arange(output.num_layers, device=slot.device)[:, None]
        view = ((layers * images + image) * blocks + block).flatten()
        repeats = output.num_layers
        held = index[:, :, None].expand(-1, -1, stages.costs.shape[2], -1)  # (B, R, G, q)
        return TeacherPairs(
            Matching(view, slot.repeat(repeats), matching.target.repeat(repeats)),
            stages.costs.gather(-1, held).flatten(0, 1).repeat(repeats, 1, 1),
            kept.repeat(repeats),
        )


def updated_queries(teacher: GroupOutput, stage: int) -> QuerySet:
    """Output of a teacher layer: the content for the next one, and the box predicted with it."""
    return replace(teacher.queries[stage], anchors=teacher.predictions.boxes[stage - 1])
