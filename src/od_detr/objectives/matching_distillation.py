"""Matching distillation (section 3.2): each query also predicts the target that its teacher twin
matched.

Read top to bottom, this is the paper's method: `losses` joins both matchings, `class_targets` is
Eq. 3 and `box_weights` Eq. 4. The other readings of these sections are small functions in
`od_detr.objectives.readings`; they take the place of a field's default.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from od_detr.objectives.objective import Answer, Step, Taught, Terms, Truth
from od_detr.objectives.set_prediction import ClassLoss, SetPrediction, scatter_class_targets
from od_detr.structures import GroupOutput, Matched, Matching, QueryGroup, QuerySet, Targets
from od_detr.transfers import to_device_of


@dataclass(frozen=True)
class TeacherPairs:
    """The teacher's matching of a group, view by view as the student's, with the teacher's costs.

    `kept` is False for pairs that do not count: the group does not hold their query, or they are
    not admitted.
    """

    matching: Matching
    costs: Float[Tensor, "I G q"]
    kept: Bool[Tensor, " P"]


class PairView(NamedTuple):
    """The teacher's pairs (query, target) as the student's own matching sees them.

    own_target: the target that the student matched to the pair's query, -1 if it has none.
    rival: the query that the student matched to the pair's target, -1 if there is none.
    joins: whether the query becomes the target's second one in box regression.
    """

    own_target: Int[Tensor, " P"]
    rival: Int[Tensor, " P"]
    joins: Bool[Tensor, " P"]

    @staticmethod
    def of(output: GroupOutput, own: Matching, pairs: TeacherPairs, targets: Targets) -> PairView:
        """Looks up every teacher pair in the student's matching."""
        view, query, target = pairs.matching
        views, queries = output.views.boxes.shape[:2]
        own_target = own.targets_of_queries(views, queries)[view, query]
        rival = own.queries_of_targets(views, len(targets))[view, target]
        # A query keeps the target it matched itself, so only free ones can join another.
        return PairView(own_target, rival, joins=pairs.kept & (own_target < 0))


# Indices of a query's cost in a cost tensor: (view, target slot, query), (P,) each.
Places = tuple[Tensor, Tensor, Tensor]


class BoxWeights(NamedTuple):
    """Weights of the box losses of the student's own pairs and of the teacher's."""

    own: Float[Tensor, " M"]
    teacher: Float[Tensor, " P"]


def same_layer(teacher: Answer, student: GroupOutput, group: str) -> TeacherPairs:
    """Layer l of the student follows layer l of the teacher."""
    matching, costs = teacher.matched[group]
    return TeacherPairs(matching, _known(costs), torch.ones_like(matching.view, dtype=torch.bool))


def by_student_cost(student: Tensor, teacher: Tensor, pair: Places, rival: Places) -> Tensor:
    """Whether the student finds the teacher's query the cheaper of the two."""
    return student[pair] < student[rival]


def keep_own(own: Float[Tensor, " P"], offered: Float[Tensor, " P"]) -> Float[Tensor, " P"]:
    """A query matched to two targets of one class keeps the class target of its own."""
    return own


@dataclass(frozen=True)
class MatchingDistillation:
    """Supervises a group by the student's matching and the teacher's together (Eqs. 3 and 4).

    Args:
        prediction: names the group, and brings weights and classification loss (the QFL in the
            paper).
        align_layers: which layer of the teacher a layer of the student follows.
        same_class: the class target of a query with two targets of one class, from both their IoUs.
        keep_own_targets: which of the student's own pairs become class targets; None keeps all.
        admit: which teacher pairs count, for classes and for boxes; None admits all.
        down_weight: w_d of Eq. 4, the weight of the costlier of a target's two queries.
        cheaper: whether the teacher's query is the cheaper of the two.
        distil_boxes: whether the teacher's pairs enter box regression.
        weigh_classes: applies Eq. 4 to classification too: maps (class targets, weights of their
            entries) to the class targets and entry weights to use. None leaves classification
            alone.
        class_count: the normaliser of classification, one per layer; None takes the number of
            targets.
    """

    prediction: SetPrediction = field(
        default_factory=lambda: SetPrediction(class_loss=ClassLoss("qfl"))
    )
    align_layers: Callable[[Answer, GroupOutput, str], TeacherPairs] = same_layer
    same_class: Callable[[Tensor, Tensor], Tensor] = keep_own
    keep_own_targets: Callable[..., Tensor] | None = None
    admit: Callable[..., Tensor] | None = None
    down_weight: float = 0.51
    cheaper: Callable[[Tensor, Tensor, Places, Places], Tensor] = by_student_cost
    distil_boxes: bool = True
    weigh_classes: Callable[[Tensor, Tensor], tuple[Tensor, Tensor | None]] | None = None
    class_count: Callable[[Tensor, GroupOutput], Tensor] | None = None

    @property
    def teacher_groups(self) -> tuple[str, ...]:
        """The teacher's group of the same name."""
        return (self.prediction.group,)

    def query_groups(
        self, queries: QuerySet, taught: Taught | None, targets: Targets
    ) -> list[QueryGroup]:
        """None: the group is the detector's own."""
        return []

    def losses(self, step: Step) -> Terms:
        """Terms of the group under both matchings.

        Under its own alone as long as nothing is distilled.
        """
        if step.teacher is None:
            return self.prediction.losses(step)
        output, own = step.student[self.prediction.group]
        pairs = self.align_layers(step.teacher, output, self.prediction.group)
        return self.supervise(output, own, pairs, step.truth)

    def supervise(
        self,
        output: GroupOutput,
        own: Matched,
        pairs: TeacherPairs,
        truth: Truth,
        scale: float = 1.0,
    ) -> Terms:
        """Terms of a group under its own matching and the teacher's pairs."""
        view = PairView.of(output, own.matching, pairs, truth.targets)
        if self.admit is not None:
            admitted = self.admit(self.prediction, output, pairs.matching, view, truth.targets)
            pairs = replace(pairs, kept=pairs.kept & admitted)
            view = view._replace(joins=view.joins & admitted)
        weights = self.box_weights(output, own, pairs, view, truth.targets)
        class_targets = self.class_targets(output, own.matching, pairs, view, truth.targets)
        entry_weights = None
        if self.weigh_classes is not None:
            entries = _entry_weights(class_targets, own.matching, pairs, view, weights, truth)
            class_targets, entry_weights = self.weigh_classes(class_targets, entries)
        count = truth.count if self.class_count is None else self.class_count(class_targets, output)
        class_terms = self.prediction.class_terms(
            output, class_targets, Truth(truth.targets, count), scale, entry_weights
        )
        if not self.distil_boxes:
            return class_terms | self.prediction.box_terms(output, own.matching, truth, None, scale)
        both = Matching(
            *(torch.cat(part) for part in zip(own.matching, pairs.matching, strict=True))
        )
        return class_terms | self.prediction.box_terms(
            output, both, truth, torch.cat(weights), scale
        )

    def class_targets(
        self,
        output: GroupOutput,
        own: Matching,
        pairs: TeacherPairs,
        view: PairView,
        targets: Targets,
    ) -> Float[Tensor, "I q C"]:
        """Class targets of the multi-target QFL, Eq. 3: the IoU of the student's box with each of
        its targets.

        A query without a target of its own takes the teacher's; one with a target of another class
        has both; one with another target of the same class keeps its own.
        """
        qualities = self.prediction.qualities(output, own, targets)  # (M,)
        own_kept = None
        if self.keep_own_targets is not None:
            own_kept = self.keep_own_targets(self.prediction, output, own, targets).float()
            qualities = qualities * own_kept
        class_targets = scatter_class_targets(output, own, targets, qualities)

        offered = self.prediction.qualities(output, pairs.matching, targets)  # (P,)
        label = targets.labels[pairs.matching.target]  # (P,)
        place = (pairs.matching.view, pairs.matching.query, label)
        current = class_targets[place]  # (P,), 0 unless the student's own target has the same class
        same_class = (view.own_target >= 0) & (
            targets.labels[view.own_target.clamp(min=0)] == label
        )
        if own_kept is not None:  # a target that is left out leaves its class to the teacher's
            held = scatter_class_targets(output, own, targets, own_kept)
            same_class = same_class & (held[place] > 0)
        chosen = torch.where(same_class, self.same_class(current, offered), offered)
        # Changes are added rather than written: pairs that are not kept may share a place with
        # pairs that are.
        change = torch.where(pairs.kept, chosen - current, 0.0)
        return class_targets.index_put(place, change, accumulate=True)

    def box_weights(
        self,
        output: GroupOutput,
        own: Matched,
        pairs: TeacherPairs,
        view: PairView,
        targets: Targets,
    ) -> BoxWeights:
        """Weights of the student's and the teacher's pairs in the box losses, Eq. 4.

        A query that only the teacher matched joins its target as the second one. Of a target's two
        queries the costlier weighs `down_weight`; a tie goes to the student's.
        """
        image, query, target = pairs.matching
        # Costs are stored by target slot, and the slot is what a target's place in its own image is
        # called there.
        slot = to_device_of(targets.slot, target)[target]  # (P,)
        contested = view.joins & (view.rival >= 0)
        cheaper = self.cheaper(
            _known(own.costs),
            pairs.costs,
            (image, slot, query),
            (image, slot, view.rival.clamp(min=0)),
        )
        # Marks the (view, target) places where the student's query is the costlier one.
        beaten = torch.zeros(len(output.views.boxes), len(targets), device=slot.device)  # (I, N)
        beaten.index_put_((image, target), (contested & cheaper).float(), accumulate=True)
        own_beaten = beaten[own.matching.view, own.matching.target] > 0  # (M,)
        return BoxWeights(
            torch.where(own_beaten, self.down_weight, 1.0),
            view.joins * torch.where(contested & ~cheaper, self.down_weight, 1.0),
        )


def _known(costs: Tensor | None) -> Tensor:
    if costs is None:
        raise ValueError(
            "a group whose matching is known by construction has no costs to distil by"
        )
    return costs


def _entry_weights(
    class_targets: Float[Tensor, "I q C"],
    own: Matching,
    pairs: TeacherPairs,
    view: PairView,
    weights: BoxWeights,
    truth: Truth,
) -> Float[Tensor, "I q C"]:
    """1 everywhere but at the positive entries of pairs whose box loss is down-weighted."""
    entries = torch.ones_like(class_targets)
    for matching, change in (
        (own, weights.own - 1),
        (pairs.matching, (weights.teacher - 1) * view.joins),
    ):
        place = (matching.view, matching.query, truth.targets.labels[matching.target])
        entries.index_put_(place, change, accumulate=True)
    return entries.where(class_targets > 0, torch.ones_like(entries))
