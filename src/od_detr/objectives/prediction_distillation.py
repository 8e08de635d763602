"""Prediction distillation (section 3.3): the student decodes the teacher's queries and learns its
predictions.

`pair_weights` is Eq. 5 and `_better_boxes` the indicator of Eq. 6. The other readings of these
sections are small functions in `od_detr.objectives.readings`; they take the place of a field's
default.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from od_detr.boxes import paired_iou
from od_detr.criteria.losses import box_distances, quality_focal_loss
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
from od_detr.objectives.set_prediction import ClassLoss, SetPrediction
from od_detr.structures import GroupOutput, Matching, QueryGroup, QuerySet, Targets
from od_detr.transfers import to_device_of

GROUP = "prediction"


class PairWeights(NamedTuple):
    """Class target and box weight of every pair that the teacher matched."""

    classes: Float[Tensor, " P"]
    boxes: Float[Tensor, " P"]


def tood_weight(scores: Float[Tensor, " P"], ious: Float[Tensor, " P"]) -> PairWeights:
    """Eq. 5: w = s^0.25 * u^0.75 is both the class target and the weight of the box."""
    weights = scores**0.25 * ious**0.75
    return PairWeights(weights, weights)


def teacher_queries(student: QuerySet, teacher: QuerySet) -> QuerySet:
    """The teacher's initial queries as they are, with its positions and anchors."""
    return teacher


@dataclass(frozen=True)
class ClassCase:
    """What the normaliser and the scope of classification may depend on."""

    teacher: GroupOutput
    matching: Matching
    weights: PairWeights
    class_targets: Float[Tensor, "I q C"]
    truth: Truth


@dataclass(frozen=True)
class PredictionDistillation:
    """Supervises the teacher's queries by the teacher's predictions instead of a matching (Eqs. 5
    and 6).

    Args:
        weights: weights of the three losses.
        gamma: exponent of the quality focal loss.
        start: the group's queries, from the student's and the teacher's initial ones.
        pair_weight: class target and box weight of a matched pair, from the teacher's score and
            IoU.
        other_entries: class targets of all other entries, from the teacher's scores; the scores
            themselves if None.
        scope: factor on the classification loss of every query; None classifies all.
        class_count: the normaliser of classification; None takes the number of targets.
        compare_with: the student's group whose boxes the teacher's must beat to be distilled
            (Listen2stu); None distils every box.
        unmatched: box weight of queries that the teacher did not match, from their best score; None
            leaves them out.
    """

    weights: LossWeights = field(default_factory=LossWeights)
    gamma: float = 2.0
    start: Callable[[QuerySet, QuerySet], QuerySet] = teacher_queries
    pair_weight: Callable[[Tensor, Tensor], PairWeights] = tood_weight
    other_entries: Callable[[Tensor], Tensor] | None = None
    scope: Callable[[ClassCase], Tensor] | None = None
    class_count: Callable[[ClassCase], Tensor | float] | None = None
    compare_with: str | None = GROUP
    unmatched: Callable[[Tensor], Tensor] | None = None

    @property
    def teacher_groups(self) -> tuple[str, ...]:
        """The teacher's main group, whose queries and predictions are distilled."""
        return ("main",)

    def query_groups(
        self, queries: QuerySet, taught: Taught | None, targets: Targets
    ) -> list[QueryGroup]:
        """The teacher's initial queries as a group of the student, which needs no matching."""
        if taught is None:
            return []
        return [teacher_group(queries, taught, self.start, matched=False)]

    def losses(self, step: Step) -> Terms:
        """Terms of the group; none as long as nothing is distilled."""
        if step.teacher is None:
            return {}
        teacher, (matching, _) = step.teacher["main"]
        output = step.student.outputs[GROUP]
        weights = self.pair_weights(teacher, matching, step.truth.targets)
        box_weights = weights.boxes
        if self.compare_with is not None:
            compared = step.student.outputs[self.compare_with]
            better = self._better_boxes(compared, teacher, matching, step.truth.targets)
            box_weights = box_weights * better
        return self._class_terms(output, teacher, matching, weights, step.truth) | self._box_terms(
            output, teacher, matching, box_weights, step.truth
        )

    def pair_weights(
        self, teacher: GroupOutput, matching: Matching, targets: Targets
    ) -> PairWeights:
        """Eq. 5: the weight of each matched pair, from the teacher's score s and IoU u."""
        view, query, target = matching
        scores = teacher.views.logits[view, query, targets.labels[target]].sigmoid()
        boxes = gather_pairs(teacher.views.boxes, view, query)
        return self.pair_weight(scores, paired_iou(boxes, targets.boxes[target], self.weights.eps))

    def _better_boxes(
        self, student: GroupOutput, teacher: GroupOutput, matching: Matching, targets: Targets
    ) -> Bool[Tensor, " P"]:
        """The indicator of Eq. 6 (Listen2stu): the teacher's box beats the student's strictly."""
        view, query, target = matching
        truth, eps = targets.boxes[target], self.weights.eps
        students = gather_pairs(student.views.boxes.detach(), view, query)
        teachers = gather_pairs(teacher.views.boxes, view, query)
        return paired_iou(teachers, truth, eps) > paired_iou(students, truth, eps)

    def _class_terms(
        self,
        output: GroupOutput,
        teacher: GroupOutput,
        matching: Matching,
        weights: PairWeights,
        truth: Truth,
    ) -> Terms:
        """Quality focal loss towards the teacher's scores, or the pair's weight where matched."""
        scores = teacher.views.logits.sigmoid()  # (I, q, C)
        entries = scores if self.other_entries is None else self.other_entries(scores)
        place = (matching.view, matching.query, truth.targets.labels[matching.target])
        class_targets = entries.index_put(place, weights.classes)
        loss = quality_focal_loss(output.views.logits, class_targets, gamma=self.gamma).sum(-1)
        case = ClassCase(teacher, matching, weights, class_targets, truth)
        if self.scope is not None:
            loss = loss * self.scope(case)  # (I, q)
        count = truth.count
        if self.class_count is not None:
            count = to_device_of(torch.as_tensor(self.class_count(case)), loss).clamp(min=1)
        return per_layer(f"{GROUP}/class", loss.sum(-1), output, self.weights.class_weight / count)

    def _box_terms(
        self,
        output: GroupOutput,
        teacher: GroupOutput,
        matching: Matching,
        pair_weights: Float[Tensor, " P"],
        truth: Truth,
    ) -> Terms:
        """L1 and GIoU to the teacher's boxes, each box weighted."""
        view, query, _ = matching
        boxes, teachers = output.views.boxes, teacher.views.boxes  # (I, q, 4)
        if self.unmatched is None:
            # Few queries are matched: gather those rather than weigh all others by 0.
            pairs = (gather_pairs(boxes, view, query), gather_pairs(teachers, view, query))
            distances = box_distances(*pairs, self.weights.eps)
            sums = [sum_by_view(part * pair_weights, view, len(boxes)) for part in distances]
        else:
            weights = self.unmatched(teacher.views.logits.sigmoid().amax(-1))  # (I, q)
            weights = weights.index_put((view, query), pair_weights)
            distances = box_distances(boxes.flatten(0, 1), teachers.flatten(0, 1), self.weights.eps)
            sums = [(part.view_as(weights) * weights).sum(-1) for part in distances]
        scales = (self.weights.l1_weight / truth.count, self.weights.giou_weight / truth.count)
        terms: Terms = {}
        for term, values, scale in zip(("l1", "giou"), sums, scales, strict=True):
            terms |= per_layer(f"{GROUP}/{term}", values, output, scale)
        return terms


@dataclass(frozen=True)
class QueryPriorAssignment:
    """DETRDistill's use of the same group (Table 5, last row): ground truth, assigned as the
    teacher assigned it.

    With `rematch` the student's own matching of the group takes the place of the teacher's.
    """

    weights: LossWeights = field(default_factory=LossWeights)
    class_loss: ClassLoss = field(default_factory=ClassLoss)
    rematch: bool = False

    @property
    def teacher_groups(self) -> tuple[str, ...]:
        """The teacher's main group."""
        return ("main",)

    def query_groups(
        self, queries: QuerySet, taught: Taught | None, targets: Targets
    ) -> list[QueryGroup]:
        """The teacher's initial queries as a group of the student."""
        if taught is None:
            return []
        return [teacher_group(queries, taught, matched=self.rematch)]

    def losses(self, step: Step) -> Terms:
        """Terms of the group under the chosen matching; none as long as nothing is distilled."""
        if step.teacher is None:
            return {}
        source = step.student if self.rematch else step.teacher
        matching = source.matched[GROUP if self.rematch else "main"].matching
        prediction = SetPrediction(GROUP, GROUP, self.weights, self.class_loss)
        return prediction.supervise(step.student.outputs[GROUP], matching, step.truth)


def teacher_group(
    queries: QuerySet,
    taught: Taught,
    start: Callable[[QuerySet, QuerySet], QuerySet] = teacher_queries,
    matched: bool = False,
) -> QueryGroup:
    """The teacher's initial queries as a group of the student, whose own are `queries`."""
    teacher = taught.outputs["main"].queries[0]
    return QueryGroup(GROUP, start(queries.detach(), teacher.detach()), matched=matched)
