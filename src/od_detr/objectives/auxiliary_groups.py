"""Auxiliary groups (section 3.4): the teacher's best updated queries become query groups of the student."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from od_detr.criteria.matching import solve
from od_detr.detectors import DetectionTransformer, Encoded
from od_detr.nn.position import encode_anchors
from od_detr.objectives.matching_distillation import MatchingDistillation, Taught
from od_detr.objectives.objective import Labels, Terms
from od_detr.options import AuxiliarySwitches
from od_detr.structures import GroupOutput, Matching, Outputs, QueryGroup, QuerySet, Targets
from od_detr.transfers import to_device_of

GROUP = "auxiliary"


@dataclass(frozen=True)
class AuxiliaryGroups(AuxiliarySwitches):
    """One group per teacher stage: the two cheapest queries of every target, decoded from the first layer on.

    `distillation` is the matching distillation inside each group; the switches are those of
    `od_detr.options.AuxiliarySwitches`.
    """

    distillation: MatchingDistillation = field(default_factory=MatchingDistillation)

    def query_groups(
        self,
        student: DetectionTransformer,
        scene: Encoded,
        taught: Outputs | None,
        targets: Targets,
    ) -> list[QueryGroup]:
        if taught is None or targets.most == 0:
            return []
        teacher = taught["main"]
        stages = self._stages(teacher)
        index, empty = self.select(teacher, targets)
        taken = [
            self._queries(teacher, stage, index[:, block]) for block, stage in enumerate(stages)
        ]
        queries, origin = QuerySet.cat(taken).detach(), index.flatten(1)
        return [
            QueryGroup(GROUP, queries, blocks=len(stages), padding=empty.flatten(1), origin=origin)
        ]

    def losses(self, outputs: Outputs, taught: Outputs | None, labels: Labels) -> Terms:
        if GROUP not in outputs:
            return {}
        assert taught is not None  # without it the group would not be there
        output, teacher = outputs[GROUP], taught["main"]
        scale = self.weight / (output.group.blocks if self.reduce == "mean" else 1)
        prediction = replace(self.distillation.prediction, group=GROUP, name=GROUP)
        if self.match == "rematch":
            return prediction.supervise(output, output.matching, labels, scale=scale)
        original = self.original_matching(output, teacher, labels.targets)
        if self.match == "original":
            return prediction.supervise(
                output, original.matching, labels, original.kept.float(), scale
            )
        return replace(self.distillation, prediction=prediction).supervise(
            output, original, labels, scale
        )

    def _stages(self, teacher: GroupOutput) -> tuple[int, ...]:
        return tuple(range(1, teacher.layers + 1)) if self.stages is None else self.stages

    def _by_stage(
        self, values: Shaped[Tensor, "I *s"], teacher: GroupOutput
    ) -> Shaped[Tensor, "B T *s"]:
        """What the teacher has of every view, image by image, at the stages that queries are taken from."""
        by_layer = values.unflatten(0, (teacher.layers, -1))
        stages = to_device_of(
            [stage - 1 for stage in self._stages(teacher)], teacher.costs, torch.long
        )
        return by_layer.index_select(0, stages).transpose(0, 1)

    def select(
        self, teacher: GroupOutput, targets: Targets
    ) -> tuple[Int[Tensor, "B T X"], Bool[Tensor, "B T X"]]:
        """Each stage's queries, chosen on the device: as many slots as the fullest image needs, True where empty."""
        most = targets.most
        costs = self._by_stage(teacher.costs, teacher)
        if self.duplicates == "disjoint":
            index = _distinct(costs, targets)
        else:
            index = costs.topk(min(2, costs.shape[-1]), largest=False, sorted=True).indices
        if self.include_matched:
            matched = self._matched_queries(teacher, targets)[..., None]
            index = torch.cat(
                [index, matched.masked_fill((index == matched).any(-1, keepdim=True), -1)], -1
            )
        real = (
            torch.arange(most, device=costs.device)
            < to_device_of(targets.counts, costs, torch.long)[:, None]
        )
        empty = ~real[:, None, :, None].expand(index.shape) | (index < 0)
        index, price = (
            index.clamp(min=0).flatten(2),
            costs.gather(-1, index.clamp(min=0)).flatten(2),
        )
        empty = empty.flatten(2)
        if (
            self.max_queries is not None
        ):  # the cheapest first, so that of a query's repeats the cheapest stays
            order = price.argsort(-1)
            index, empty = index.gather(-1, order), empty.gather(-1, order)
        if self.duplicates != "keep":
            empty = empty | _repeats(index, empty)
        if self.max_queries is not None:
            order = empty.int().argsort(dim=-1, stable=True)[..., : self.max_queries]
            index, empty = index.gather(-1, order), empty.gather(-1, order)
        return index, empty

    def _matched_queries(self, teacher: GroupOutput, targets: Targets) -> Int[Tensor, "B T G"]:
        matching = teacher.matching
        slot = to_device_of(targets.slot, matching.target)[matching.target]
        dense = matching.query.new_full((len(teacher.views.boxes), targets.most), -1)
        dense[matching.image, slot] = matching.query
        return self._by_stage(dense, teacher)

    def _queries(self, teacher: GroupOutput, stage: int, index: Int[Tensor, "B X"]) -> QuerySet:
        """Content that would enter the next layer, and the box predicted with it, as a new starting point."""
        queries = replace(
            teacher.queries[stage], anchors=teacher.predictions.boxes[stage - 1]
        ).take(index)
        position = queries.position
        if position is not None and self.position == "sine":
            position = encode_anchors(queries.anchors[..., :2], position.shape[-1] // 2).to(
                position.dtype
            )
        starts_from_points = position is not None
        if self.anchors == "center" or (self.anchors == "auto" and starts_from_points):
            centre = queries.anchors[..., :2]
            return QuerySet(
                queries.content, torch.cat([centre, torch.zeros_like(centre)], -1), position
            )
        return QuerySet(queries.content, queries.anchors, position)

    def original_matching(
        self, output: GroupOutput, teacher: GroupOutput, targets: Targets
    ) -> Taught:
        """The teacher's matching of each stage among the queries that were taken, the same for all student layers."""
        images, blocks, device = len(targets.counts), output.group.blocks, teacher.costs.device
        stages = self._stages(teacher)
        assert (
            output.group.origin is not None and output.group.padding is not None
        )  # set by query_groups
        index, empty = (
            slots.unflatten(1, (blocks, -1))
            for slots in (output.group.origin, output.group.padding)
        )
        block_of_stage = [
            stages.index(stage) if stage in stages else -1 for stage in range(1, teacher.layers + 1)
        ]
        block = to_device_of(block_of_stage, teacher.matching.image)[
            teacher.matching.image // images
        ]
        image = teacher.matching.image % images
        place = (image, block.clamp(min=0))
        hits = (index[place] == teacher.matching.query[:, None]) & ~empty[place]
        kept, slot = hits.any(-1) & (block >= 0), hits.int().argmax(-1)
        layers = torch.arange(output.layers, device=device)[:, None]
        view = ((layers * images + image) * blocks + block.clamp(min=0)).flatten()
        matching = Matching(
            view, slot.repeat(output.layers), teacher.matching.target.repeat(output.layers)
        )
        costs = self._by_stage(teacher.costs, teacher)
        taken = index[:, :, None].expand(-1, -1, costs.shape[2], -1)
        return Taught(
            matching,
            costs.gather(-1, taken).flatten(0, 1).repeat(output.layers, 1, 1),
            kept.repeat(output.layers),
        )


def _repeats(index: Int[Tensor, "B T X"], empty: Bool[Tensor, "B T X"]) -> Bool[Tensor, "B T X"]:
    """Slots whose query an earlier slot already holds."""
    same = (index[..., :, None] == index[..., None, :]) & ~empty[..., None, :]
    return same.tril(-1).any(-1)


def _distinct(costs: Float[Tensor, "B T G Q"], targets: Targets) -> Int[Tensor, "B T G 2"]:
    """Two queries for every target such that no query serves twice, at least total cost; solved on the host."""
    images, stages, most, _ = costs.shape
    doubled = costs.repeat(1, 1, 2, 1).flatten(0, 1).cpu()
    for view, count in enumerate(count for count in targets.counts for _ in range(stages)):
        doubled[view, count : 2 * count] = doubled[view, :count].clone()
    chosen = solve(
        doubled.numpy(), 2 * torch.tensor(targets.counts).repeat_interleave(stages).numpy()
    )
    index = torch.full((images * stages, most, 2), -1)
    for view, count in enumerate(count for count in targets.counts for _ in range(stages)):
        index[view, :count] = torch.from_numpy(chosen[view, : 2 * count]).view(2, count).T
    return index.unflatten(0, (images, stages)).to(costs.device)
