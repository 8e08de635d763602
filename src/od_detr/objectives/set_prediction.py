"""Set prediction (section 3.1): a group is supervised by one matching with the ground truth."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from od_detr.boxes import paired_iou
from od_detr.criteria.losses import box_distances, focal_loss, quality_focal_loss
from od_detr.detectors import DetectionTransformer, Encoded
from od_detr.objectives.objective import (
    Labels,
    LossWeights,
    Terms,
    gather_pairs,
    per_layer,
    sum_by_view,
)
from od_detr.structures import GroupOutput, Matching, Outputs, QueryGroup, Targets


@dataclass(frozen=True)
class ClassLoss:
    """Classification against soft or hard labels: "qfl" (Eq. 2) or "focal"."""

    loss: str = "qfl"
    alpha: float | None = None
    gamma: float = 2.0

    @property
    def hard(self) -> bool:
        """Whether a positive's label is 1 rather than the IoU of its box."""
        return self.loss == "focal"

    def __call__(
        self, logits: Float[Tensor, "*s"], wanted: Float[Tensor, "*s"]
    ) -> Float[Tensor, "*s"]:
        if self.loss == "focal":
            return focal_loss(
                logits, wanted, 0.25 if self.alpha is None else self.alpha, self.gamma
            )
        return quality_focal_loss(logits, wanted, self.alpha, self.gamma)


@dataclass(frozen=True)
class SetPrediction:
    """Every query of `group` is supervised by the group's own matching: the baseline of every DETR.

    Terms are called `name`/class, l1 and giou.
    """

    group: str = "main"
    name: str = "matching"
    weights: LossWeights = field(default_factory=LossWeights)
    class_loss: ClassLoss = field(default_factory=lambda: ClassLoss("focal"))

    def query_groups(
        self,
        student: DetectionTransformer,
        scene: Encoded,
        taught: Outputs | None,
        targets: Targets,
    ) -> list[QueryGroup]:
        return []

    def losses(self, outputs: Outputs, taught: Outputs | None, labels: Labels) -> Terms:
        return self.supervise(outputs[self.group], outputs[self.group].matching, labels)

    def supervise(
        self,
        output: GroupOutput,
        matching: Matching,
        labels: Labels,
        kept: Float[Tensor, " M"] | None = None,
        scale: Tensor | float = 1.0,
    ) -> Terms:
        """Terms of a group under a given matching; pairs with `kept` 0 do not count."""
        qualities = self.qualities(output, matching, labels.targets)
        positives = qualities if kept is None else qualities * kept
        wanted = scatter_labels(output, matching, labels.targets, positives)
        return self.class_terms(output, wanted, labels, scale) | self.box_terms(
            output, matching, labels, kept, scale
        )

    def qualities(
        self, output: GroupOutput, matching: Matching, targets: Targets
    ) -> Float[Tensor, " M"]:
        """The label of each matched pair: the IoU of its box with its target, or 1 under a hard loss."""
        boxes = gather_pairs(output.views.boxes.detach(), matching.image, matching.query)
        if self.class_loss.hard:
            return torch.ones_like(boxes[:, 0])
        return paired_iou(boxes, targets.boxes[matching.target], self.weights.eps)

    def class_terms(
        self,
        output: GroupOutput,
        wanted: Float[Tensor, "I Q C"],
        labels: Labels,
        scale: Tensor | float = 1.0,
        entry_weights: Float[Tensor, "I Q C"] | None = None,
    ) -> Terms:
        """The classification term of each layer; empty slots of a padded group do not count."""
        loss = self.class_loss(output.views.logits, wanted)
        if entry_weights is not None:
            loss = loss * entry_weights
        loss = loss.sum(-1)
        padding = output.group.padding
        if padding is not None:
            slots = padding.unflatten(1, (output.group.blocks, -1)).flatten(0, 1)
            loss = loss.masked_fill(slots.repeat(output.layers, 1), 0.0)
        return per_layer(
            f"{self.name}/class",
            loss.sum(-1),
            output,
            self.weights.class_weight * scale / labels.count,
        )

    def box_terms(
        self,
        output: GroupOutput,
        matching: Matching,
        labels: Labels,
        pair_weights: Float[Tensor, " M"] | None = None,
        scale: Tensor | float = 1.0,
    ) -> Terms:
        """L1 and GIoU terms of each layer over matched pairs, each weighted."""
        views = output.views.boxes
        boxes = gather_pairs(views, matching.image, matching.query)
        l1, giou = box_distances(boxes, labels.targets.boxes[matching.target], self.weights.eps)
        if pair_weights is not None:
            l1, giou = l1 * pair_weights, giou * pair_weights
        terms = {}
        for term, values, weight in (
            ("l1", l1, self.weights.l1_weight),
            ("giou", giou, self.weights.giou_weight),
        ):
            sums = sum_by_view(values, matching.image, len(views))
            terms |= per_layer(f"{self.name}/{term}", sums, output, weight * scale / labels.count)
        return terms


def scatter_labels(
    output: GroupOutput, matching: Matching, targets: Targets, values: Float[Tensor, " M"]
) -> Float[Tensor, "I Q C"]:
    """Class labels of every query: `values` at (query, class of its target), 0 elsewhere."""
    wanted = torch.zeros_like(output.views.logits)
    place = (matching.image, matching.query, targets.labels[matching.target])
    return wanted.index_put_(place, values.to(wanted.dtype), accumulate=True)
