"""Set prediction (section 3.1): a group is supervised by one matching with the ground truth."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from od_detr.boxes import paired_iou
from od_detr.criteria.losses import box_distances, focal_loss, quality_focal_loss
from od_detr.objectives.objective import (
    LossWeights,
    Step,
    Taught,
    Terms,
    Truth,
    gather_pairs,
    per_layer,
    sum_by_view,
)
from od_detr.structures import GroupOutput, Matching, QueryGroup, QuerySet, Targets


@dataclass(frozen=True)
class ClassLoss:
    """Classification loss: "qfl" with soft targets (Eq. 2) or "focal" with hard ones.

    `alpha` weighs positives against negatives; None is 0.25 for the focal loss and no weight for
    the QFL.
    """

    loss: str = "qfl"
    alpha: float | None = None
    gamma: float = 2.0

    @property
    def hard(self) -> bool:
        """Whether a positive's class target is 1 rather than the IoU of its box."""
        return self.loss == "focal"

    def __call__(
        self, logits: Float[Tensor, "*s"], class_targets: Float[Tensor, "*s"]
    ) -> Float[Tensor, "*s"]:
        """The loss of every entry."""
        if self.loss == "focal":
            alpha = 0.25 if self.alpha is None else self.alpha
            return focal_loss(logits, class_targets, alpha, self.gamma)
        return quality_focal_loss(logits, class_targets, self.alpha, self.gamma)


@dataclass(frozen=True)
class SetPrediction:
    """Every query of `group` is supervised by the group's own matching, as in every DETR.

    The matching may be solved or known by construction (denoising). Losses are averaged over the
    group's blocks. Terms are named `name`/class, l1 and giou.
    """

    group: str = "main"
    name: str = "matching"
    weights: LossWeights = field(default_factory=LossWeights)
    class_loss: ClassLoss = field(default_factory=lambda: ClassLoss("focal"))

    @property
    def teacher_groups(self) -> tuple[str, ...]:
        """None: the ground truth is enough."""
        return ()

    def query_groups(
        self, queries: QuerySet, taught: Taught | None, targets: Targets
    ) -> list[QueryGroup]:
        """None: the group is the detector's own, or another objective's."""
        return []

    def losses(self, step: Step) -> Terms:
        """Terms of the group under its own matching."""
        output, own = step.student[self.group]
        return self.supervise(output, own.matching, step.truth, scale=1 / output.group.blocks)

    def supervise(
        self,
        output: GroupOutput,
        matching: Matching,
        truth: Truth,
        kept: Float[Tensor, " M"] | None = None,
        scale: float = 1.0,
    ) -> Terms:
        """Terms of a group under a given matching; pairs with `kept` 0 do not count."""
        qualities = self.qualities(output, matching, truth.targets)
        positives = qualities if kept is None else qualities * kept
        class_targets = scatter_class_targets(output, matching, truth.targets, positives)
        return self.class_terms(output, class_targets, truth, scale) | self.box_terms(
            output, matching, truth, kept, scale
        )

    def qualities(
        self, output: GroupOutput, matching: Matching, targets: Targets
    ) -> Float[Tensor, " M"]:
        """Class target of each matched pair: the IoU of box and target, or 1 under a hard loss."""
        boxes = gather_pairs(output.views.boxes.detach(), matching.view, matching.query)
        if self.class_loss.hard:
            return torch.ones_like(boxes[:, 0])
        return paired_iou(boxes, targets.boxes[matching.target], self.weights.eps)

    def class_terms(
        self,
        output: GroupOutput,
        class_targets: Float[Tensor, "I q C"],
        truth: Truth,
        scale: float = 1.0,
        entry_weights: Float[Tensor, "I q C"] | None = None,
    ) -> Terms:
        """The classification term of each layer over all queries but empty slots."""
        loss = self.class_loss(output.views.logits, class_targets)  # (I, q, C)
        if entry_weights is not None:
            loss = loss * entry_weights
        loss = loss.sum(-1)  # (I, q)
        padding = output.group.padding
        if padding is not None:
            # (B, R * q) -> (B * R, q) -> (K * B * R, q): the same slots are empty at every layer.
            slots = padding.reshape(-1, padding.shape[1] // output.group.blocks)
            loss = loss.masked_fill(slots.repeat(output.num_layers, 1), 0.0)
        weight = self.weights.class_weight * scale / truth.count
        return per_layer(f"{self.name}/class", loss.sum(-1), output, weight)

    def box_terms(
        self,
        output: GroupOutput,
        matching: Matching,
        truth: Truth,
        pair_weights: Float[Tensor, " M"] | None = None,
        scale: float = 1.0,
    ) -> Terms:
        """L1 and GIoU terms of each layer over the matched pairs, optionally weighted."""
        views = output.views.boxes
        boxes = gather_pairs(views, matching.view, matching.query)  # (M, 4)
        l1, giou = box_distances(boxes, truth.targets.boxes[matching.target], self.weights.eps)
        if pair_weights is not None:
            l1, giou = l1 * pair_weights, giou * pair_weights
        terms: Terms = {}
        for term, values, weight in (
            ("l1", l1, self.weights.l1_weight),
            ("giou", giou, self.weights.giou_weight),
        ):
            sums = sum_by_view(values, matching.view, len(views))
            terms |= per_layer(f"{self.name}/{term}", sums, output, weight * scale / truth.count)
        return terms


def scatter_class_targets(
    output: GroupOutput, matching: Matching, targets: Targets, values: Float[Tensor, " M"]
) -> Float[Tensor, "I q C"]:
    """Class targets of every query: `values` at (query, class of its target), 0 elsewhere."""
    class_targets = torch.zeros_like(output.views.logits)
    place = (matching.view, matching.query, targets.labels[matching.target])
    return class_targets.index_put_(place, values.to(class_targets.dtype), accumulate=True)
