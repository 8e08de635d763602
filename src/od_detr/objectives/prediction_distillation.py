"""Prediction distillation (section 3.3): the student decodes the teacher's queries to what the teacher predicts."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from od_detr.boxes import paired_iou
from od_detr.criteria.losses import box_distances, quality_focal_loss
from od_detr.detectors import DetectionTransformer, Encoded
from od_detr.objectives.objective import (
    Labels,
    LossWeights,
    Terms,
    gather_pairs,
    per_layer,
    sum_by_view,
)
from od_detr.objectives.set_prediction import ClassLoss, SetPrediction
from od_detr.options import PredictionSwitches
from od_detr.structures import GroupOutput, Outputs, QueryGroup, QuerySet, Targets

GROUP = "prediction"


@dataclass(frozen=True)
class PredictionDistillation(PredictionSwitches):
    """No matching: the teacher's predictions are the labels of its own queries (Eqs. 5 and 6).

    The switches are those of `od_detr.options.PredictionSwitches`; `gamma` is the exponent of the quality focal loss.
    """

    weights: LossWeights = field(default_factory=LossWeights)
    gamma: float = 2.0

    def query_groups(
        self,
        student: DetectionTransformer,
        scene: Encoded,
        taught: Outputs | None,
        targets: Targets,
    ) -> list[QueryGroup]:
        return (
            []
            if taught is None
            else [teacher_group(scene.queries, taught, self.position, self.anchors, matched=False)]
        )

    def losses(self, outputs: Outputs, taught: Outputs | None, labels: Labels) -> Terms:
        if taught is None:
            return {}
        teacher, output = taught["main"], outputs[GROUP]
        weights = self.pair_weights(teacher, labels.targets)
        main = outputs["main"] if self.iou_from == "main" else output
        return self._class_terms(output, teacher, weights, labels) | self._box_terms(
            output, main, teacher, weights, labels
        )

    def pair_weights(self, teacher: GroupOutput, targets: Targets) -> Float[Tensor, " M"]:
        """The TOOD-weight of each pair the teacher matched, Eq. 5; its plain score without `tood`."""
        view, query, target = teacher.matching
        predictions = teacher.views
        scores = predictions.logits[view, query, targets.labels[target]].sigmoid()
        if not self.tood:
            return scores
        ious = paired_iou(
            gather_pairs(predictions.boxes, view, query), targets.boxes[target], self.weights.eps
        )
        return ious if self.tood_norm else scores**0.25 * ious**0.75

    def _class_terms(
        self,
        output: GroupOutput,
        teacher: GroupOutput,
        weights: Float[Tensor, " M"],
        labels: Labels,
    ) -> Terms:
        scores = teacher.views.logits.sigmoid()
        place = (*teacher.matching[:2], labels.targets.labels[teacher.matching.target])
        wanted = (
            scores if self.other_entries == "teacher" else torch.zeros_like(scores)
        ).index_put(place, weights)
        loss = quality_focal_loss(output.views.logits, wanted, gamma=self.gamma).sum(-1)
        if self.cls_scope == "matched":
            matched = torch.zeros_like(loss).index_put(
                teacher.matching[:2], torch.ones_like(weights)
            )
            loss = loss * matched
        norms = {
            "nb": lambda: labels.count,
            "sum_w": lambda: (
                sum_by_view(weights, teacher.matching.image, len(wanted))
                .view(output.layers, -1)
                .sum(1)
            ),
            "sum_y": lambda: wanted.view(output.layers, -1).sum(1),
            "queries": lambda: loss.shape[1] * len(labels.targets.counts),
        }
        norm = torch.as_tensor(norms[self.norm](), device=loss.device).clamp(min=1)
        return per_layer(f"{GROUP}/class", loss.sum(-1), output, self.weights.class_weight / norm)

    def _box_terms(
        self,
        output: GroupOutput,
        main: GroupOutput,
        teacher: GroupOutput,
        weights: Tensor,
        labels: Labels,
    ) -> Terms:
        view, query, target = teacher.matching
        wanted, boxes = teacher.views.boxes, output.views.boxes
        pair_weights = weights if self.tood else torch.ones_like(weights)
        if self.listen2stu:
            truth = labels.targets.boxes[target]
            students = gather_pairs(main.views.boxes.detach(), view, query)
            teachers = gather_pairs(wanted, view, query)
            eps = self.weights.eps
            pair_weights = pair_weights * (
                paired_iou(teachers, truth, eps) > paired_iou(students, truth, eps)
            )
        if self.reg_unmatched == "off":
            l1, giou = box_distances(
                gather_pairs(boxes, view, query),
                gather_pairs(wanted, view, query),
                self.weights.eps,
            )
            sums = [sum_by_view(values * pair_weights, view, len(boxes)) for values in (l1, giou)]
        else:
            unmatched = teacher.views.logits.sigmoid().amax(-1)
            every = torch.ones_like(unmatched) if self.reg_unmatched == "one" else unmatched
            every = every.index_put((view, query), pair_weights)
            l1, giou = box_distances(boxes.flatten(0, 1), wanted.flatten(0, 1), self.weights.eps)
            sums = [(values.view_as(every) * every).sum(-1) for values in (l1, giou)]
        scales = (self.weights.l1_weight / labels.count, self.weights.giou_weight / labels.count)
        terms = {}
        for term, values, scale in zip(("l1", "giou"), sums, scales, strict=True):
            terms |= per_layer(f"{GROUP}/{term}", values, output, scale)
        return terms


@dataclass(frozen=True)
class QueryPriorAssignment:
    """DETRDistill's use of the same group (Table 5, last row): ground truth, assigned as the teacher assigned it.

    `match` "teacher" takes the teacher's matching of the same layer, "rematch" the student's own.
    """

    weights: LossWeights = field(default_factory=LossWeights)
    class_loss: ClassLoss = field(default_factory=ClassLoss)
    match: str = "teacher"

    def query_groups(
        self,
        student: DetectionTransformer,
        scene: Encoded,
        taught: Outputs | None,
        targets: Targets,
    ) -> list[QueryGroup]:
        return (
            []
            if taught is None
            else [teacher_group(scene.queries, taught, matched=self.match == "rematch")]
        )

    def losses(self, outputs: Outputs, taught: Outputs | None, labels: Labels) -> Terms:
        if taught is None:
            return {}
        output = outputs[GROUP]
        matching = taught["main"].matching if self.match == "teacher" else output.matching
        return SetPrediction(GROUP, GROUP, self.weights, self.class_loss).supervise(
            output, matching, labels
        )


def teacher_group(
    own: QuerySet,
    taught: Outputs,
    position_of: str = "teacher",
    anchors_of: str = "teacher",
    matched: bool = False,
) -> QueryGroup:
    """The teacher's initial queries as a group of the student; position and anchors may be the student's `own`."""
    queries, own = taught["main"].queries[0].detach(), own.detach()
    position = queries.position if position_of == "teacher" else own.position
    anchors = queries.anchors if anchors_of == "teacher" else own.anchors
    return QueryGroup(GROUP, QuerySet(queries.content, anchors, position), matched=matched)
