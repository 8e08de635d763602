"""Matching distillation (section 3.2): each query also answers for the target its teacher twin matched."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from od_detr.boxes import paired_iou
from od_detr.detectors import DetectionTransformer, Encoded
from od_detr.objectives.objective import Labels, Terms, gather_pairs
from od_detr.objectives.set_prediction import ClassLoss, SetPrediction, scatter_labels
from od_detr.options import MatchingSwitches
from od_detr.structures import GroupOutput, Matching, Outputs, QueryGroup, Targets
from od_detr.transfers import to_device_of


@dataclass(frozen=True)
class Taught:
    """The teacher's matching of a group, view by view as the student's, with the teacher's costs.

    `kept` is 0 for pairs that the group does not hold.
    """

    matching: Matching
    costs: Float[Tensor, "I G Q"]
    kept: Bool[Tensor, " M"]


@dataclass(frozen=True)
class MatchingDistillation(MatchingSwitches):
    """The student's matching and the teacher's, together (Eqs. 3 and 4).

    `prediction` names the group and brings weights and classification loss, the quality focal loss in the paper;
    the switches are those of `od_detr.options.MatchingSwitches`.
    """

    prediction: SetPrediction = field(
        default_factory=lambda: SetPrediction(class_loss=ClassLoss("qfl"))
    )

    def query_groups(
        self,
        student: DetectionTransformer,
        scene: Encoded,
        taught: Outputs | None,
        targets: Targets,
    ) -> list[QueryGroup]:
        return []

    def losses(self, outputs: Outputs, taught: Outputs | None, labels: Labels) -> Terms:
        output = outputs[self.prediction.group]
        if taught is None:
            return self.prediction.supervise(output, output.matching, labels)
        return self.supervise(
            output,
            self.refer(output, taught[self.prediction.group], len(labels.targets.counts)),
            labels,
        )

    def refer(self, output: GroupOutput, taught: GroupOutput, images: int) -> Taught:
        """The teacher's matching, laid against the student's layers."""
        matching, costs = taught.matching, taught.costs
        kept = torch.ones_like(matching.image, dtype=torch.bool)
        if self.layer != "same":
            last = images * (taught.layers - 1)
            kept = matching.image >= last
            if self.layer == "last":
                layers = torch.arange(output.layers, device=kept.device)[:, None] * images
                view = (matching.image - last + layers).clamp(min=0).flatten()
                repeated = (
                    part.repeat(output.layers) for part in (matching.query, matching.target)
                )
                matching, kept = Matching(view, *repeated), kept.repeat(output.layers)
                costs = costs[last:].repeat(output.layers, 1, 1)
        return Taught(matching, costs, kept)

    def supervise(
        self, output: GroupOutput, taught: Taught, labels: Labels, scale: Tensor | float = 1.0
    ) -> Terms:
        """Terms of a group under both matchings."""
        own = output.matching
        mine = own.targets_of_queries(*output.views.logits.shape[:2])[
            taught.matching.image, taught.matching.query
        ]
        own_weights, taught_weights = self.regression_weights(output, taught, mine, labels.targets)
        class_terms = self._class_terms(
            output, taught, mine, (own_weights, taught_weights), labels, scale
        )
        if not self.reg:
            return class_terms | self.prediction.box_terms(output, own, labels, None, scale)
        pairs = Matching(*(torch.cat(parts) for parts in zip(own, taught.matching, strict=True)))
        weights = torch.cat([own_weights, taught_weights])
        return class_terms | self.prediction.box_terms(output, pairs, labels, weights, scale)

    def multi_target_labels(
        self, output: GroupOutput, taught: Taught, mine: Tensor, targets: Targets
    ) -> Float[Tensor, "I Q C"]:
        """Labels of the multi-target QFL, Eq. 3: the IoU of the student's own box with either target.

        `mine` is the student's own target of each query that the teacher matched, -1 where it has none.
        """
        own, pairs = output.matching, taught.matching
        qualities = self.prediction.qualities(output, own, targets)
        if self.cond_own and self.cond_iou is not None:
            qualities = qualities * (self._ious(output, own, targets) >= self.cond_iou)
        wanted = scatter_labels(output, own, targets, qualities)
        offered = self.prediction.qualities(output, pairs, targets)
        label, present = targets.labels[pairs.target], mine >= 0
        same_class = present & (targets.labels[mine.clamp(min=0)] == label)
        kept = taught.kept
        if self.cond_iou is not None:
            kept = kept & (self._ious(output, pairs, targets) > self.cond_iou)
        added = kept & torch.where(
            present, ~same_class, torch.full_like(present, self.teacher_only)
        )
        current = wanted[pairs.image, pairs.query, label]
        change = torch.where(added, offered - current, 0.0)
        if self.same_class != "online":
            other = torch.maximum(offered, current) if self.same_class == "max" else offered
            change = torch.where(same_class & kept, other - current, change)
        # Changes are added, not written: pairs that are not kept may share a place with pairs that are.
        return wanted.index_put((pairs.image, pairs.query, label), change, accumulate=True)

    def regression_weights(
        self, output: GroupOutput, taught: Taught, mine: Tensor, targets: Targets
    ) -> tuple[Float[Tensor, " M"], Float[Tensor, " T"]]:
        """Weights of the student's and the teacher's pairs in the box losses, Eq. 4.

        A query keeps the target it matched itself; one that only the teacher matched joins its target as a
        second query. Of the two the costlier weighs `wd`; a tie goes to the student's.
        """
        own, pairs = output.matching, taught.matching
        slot = to_device_of(targets.slot, pairs.target)[pairs.target]
        rivals = own.queries_of_targets(len(output.views.boxes), len(targets))[
            pairs.image, pairs.target
        ]
        joins = taught.kept & (mine < 0)
        contested = joins & (rivals >= 0)
        own_costs = taught.costs if self.cost == "teacher" else output.costs
        pair_costs = output.costs if self.cost == "student" else taught.costs
        cheaper = (
            pair_costs[pairs.image, slot, pairs.query]
            < own_costs[pairs.image, slot, rivals.clamp(min=0)]
        )
        if self.cost == "teacher_pair":
            cheaper = torch.zeros_like(cheaper)
        beaten = torch.zeros(len(output.views.boxes), len(targets), device=slot.device)
        beaten.index_put_(
            (pairs.image, pairs.target), (contested & cheaper).float(), accumulate=True
        )
        own_weights = torch.where(beaten[own.image, own.target] > 0, self.wd, 1.0)
        return own_weights, joins * torch.where(contested & ~cheaper, self.wd, 1.0)

    def _class_terms(
        self,
        output: GroupOutput,
        taught: Taught,
        mine: Tensor,
        weights: tuple[Tensor, Tensor],
        labels: Labels,
        scale: Tensor | float,
    ) -> Terms:
        wanted = self.multi_target_labels(output, taught, mine, labels.targets)
        entry_weights = None
        if self.wd_cls:
            entry_weights = self._entry_weights(
                wanted, output.matching, taught, mine, weights, labels.targets
            )
            if self.wd_cls_mode == "target":
                wanted, entry_weights = wanted * entry_weights, None
        if self.cls_norm == "num_pos":
            positives = (wanted > 0).view(output.layers, -1).sum(1) / output.group.blocks
            labels = replace(labels, count=positives.clamp(min=1))
        return self.prediction.class_terms(output, wanted, labels, scale, entry_weights)

    @staticmethod
    def _entry_weights(
        wanted: Tensor,
        own: Matching,
        taught: Taught,
        mine: Tensor,
        weights: tuple[Tensor, Tensor],
        targets: Targets,
    ) -> Float[Tensor, "I Q C"]:
        """1 everywhere but at the positive entries whose box is down-weighted."""
        entries, joined = torch.ones_like(wanted), taught.kept & (mine < 0)
        for pairs, change in ((own, weights[0] - 1), (taught.matching, (weights[1] - 1) * joined)):
            place = (pairs.image, pairs.query, targets.labels[pairs.target])
            entries.index_put_(place, change, accumulate=True)
        return entries.where(wanted > 0, torch.ones_like(entries))

    def _ious(self, output: GroupOutput, pairs: Matching, targets: Targets) -> Float[Tensor, " M"]:
        boxes = gather_pairs(output.views.boxes.detach(), pairs.image, pairs.query)
        return paired_iou(boxes, targets.boxes[pairs.target], self.prediction.weights.eps)
