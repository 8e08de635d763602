"""Objectives as the options choose them: each switch of the paper's readings becomes a small
function.

docs/paper.md says which sentence of the paper each switch reads, and what was chosen by default.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from od_detr.boxes import paired_iou
from od_detr.criteria.matching import solve
from od_detr.nn.position import encode_anchors
from od_detr.objectives.auxiliary_groups import (
    AuxiliaryGroups,
    Candidates,
    Stages,
    as_points,
    at_stages,
    box_or_point,
    by_both_matchings,
    two_cheapest,
    without_repeats,
)
from od_detr.objectives.matching_distillation import (
    MatchingDistillation,
    PairView,
    Places,
    TeacherPairs,
    by_student_cost,
    keep_own,
    same_layer,
)
from od_detr.objectives.objective import (
    Answer,
    LossWeights,
    Taught,
    Terms,
    Truth,
    gather_pairs,
    sum_by_view,
)
from od_detr.objectives.prediction_distillation import (
    GROUP,
    ClassCase,
    PairWeights,
    PredictionDistillation,
    tood_weight,
)
from od_detr.objectives.set_prediction import SetPrediction
from od_detr.options import AuxiliarySwitches, MatchingSwitches, PredictionSwitches
from od_detr.structures import GroupOutput, Matched, Matching, QuerySet, Targets
from od_detr.transfers import moved

# ---- matching distillation ---------------------------------------------------------------------


def matching_distillation(
    switches: MatchingSwitches, prediction: SetPrediction
) -> MatchingDistillation:
    """Matching distillation (section 3.2) of the group that `prediction` supervises."""
    threshold = switches.cond_iou
    weigh = {"loss": weigh_loss, "target": weigh_target}[switches.wd_cls_mode]
    return MatchingDistillation(
        prediction,
        align_layers={"same": same_layer, "last": last_layer, "final_only": final_only}[
            switches.layer
        ],
        same_class={"online": keep_own, "max": torch.maximum, "teacher": take_offered}[
            switches.same_class
        ],
        keep_own_targets=partial(overlapping, threshold)
        if switches.cond_own and threshold is not None
        else None,
        admit=partial(admitted, threshold, switches.teacher_only),
        down_weight=switches.wd,
        cheaper={
            "student": by_student_cost,
            "teacher": by_teacher_cost,
            "own": by_own_cost,
            "teacher_pair": never_cheaper,
        }[switches.cost],
        distil_boxes=switches.reg,
        weigh_classes=weigh if switches.wd_cls else None,
        class_count=count_positives if switches.cls_norm == "num_pos" else None,
    )


def final_only(teacher: Answer, student: GroupOutput, group: str) -> TeacherPairs:
    """Only the last layer follows the teacher."""
    pairs = same_layer(teacher, student, group)
    views = len(student.views.boxes)
    return replace(pairs, kept=pairs.matching.view >= views - views // student.num_layers)


def last_layer(teacher: Answer, student: GroupOutput, group: str) -> TeacherPairs:
    """Every layer of the student follows the last layer of the teacher."""
    pairs = final_only(teacher, student, group)
    num_layers, (image, query, target) = student.num_layers, pairs.matching
    per_layer = len(pairs.costs) // num_layers
    first = len(pairs.costs) - per_layer  # the first view of the last layer
    layers = torch.arange(num_layers, device=image.device)[:, None] * per_layer
    # Pairs of earlier layers are repeated as well, to keep their number a fixed one; they are not
    # kept.
    view = (image - first + layers).clamp(min=0).flatten()
    return TeacherPairs(
        Matching(view, query.repeat(num_layers), target.repeat(num_layers)),
        pairs.costs[first:].repeat(num_layers, 1, 1),
        pairs.kept.repeat(num_layers),
    )


def take_offered(own: Tensor, offered: Tensor) -> Tensor:
    """A query matched to two targets of one class takes the teacher's."""
    return offered


def ious_of(
    prediction: SetPrediction, output: GroupOutput, pairs: Matching, targets: Targets
) -> Float[Tensor, " M"]:
    """IoU of the student's box of each pair with its target."""
    boxes = gather_pairs(output.views.boxes.detach(), pairs.view, pairs.query)
    return paired_iou(boxes, targets.boxes[pairs.target], prediction.weights.eps)


def overlapping(
    threshold: float,
    prediction: SetPrediction,
    output: GroupOutput,
    own: Matching,
    targets: Targets,
) -> Bool[Tensor, " M"]:
    """Own pairs whose IoU reaches the threshold (StageInteractor's Conditional MD)."""
    return ious_of(prediction, output, own, targets) >= threshold


def admitted(
    threshold: float | None,
    teacher_only: bool,
    prediction: SetPrediction,
    output: GroupOutput,
    pairs: Matching,
    view: PairView,
    targets: Targets,
) -> Bool[Tensor, " P"]:
    """Teacher pairs above the IoU threshold.

    Without `teacher_only` the student must have matched their query too.
    """
    accepted = torch.ones_like(view.joins) if teacher_only else view.own_target >= 0
    if threshold is None:
        return accepted
    return accepted & (ious_of(prediction, output, pairs, targets) > threshold)


def by_teacher_cost(student: Tensor, teacher: Tensor, pair: Places, rival: Places) -> Tensor:
    """Whether the teacher finds its own query the cheaper of the two."""
    return teacher[pair] < teacher[rival]


def by_own_cost(student: Tensor, teacher: Tensor, pair: Places, rival: Places) -> Tensor:
    """Whether the teacher's query costs the teacher less than the student's costs the student."""
    return teacher[pair] < student[rival]


def never_cheaper(student: Tensor, teacher: Tensor, pair: Places, rival: Places) -> Tensor:
    """The teacher's query is always the one that is down-weighted."""
    return torch.zeros_like(pair[0], dtype=torch.bool)


def weigh_loss(class_targets: Tensor, entries: Tensor) -> tuple[Tensor, Tensor | None]:
    """Down-weights the classification loss of the entries."""
    return class_targets, entries


def weigh_target(class_targets: Tensor, entries: Tensor) -> tuple[Tensor, Tensor | None]:
    """Down-weights the class targets of the entries, as Align-DETR does."""
    return class_targets * entries, None


def count_positives(class_targets: Float[Tensor, "I q C"], output: GroupOutput) -> Tensor:
    """Positive class targets of each layer, per block and at least 1."""
    positives = (class_targets > 0).view(output.num_layers, -1).sum(1) / output.group.blocks
    return positives.clamp(min=1)


# ---- prediction distillation -------------------------------------------------------------------


def prediction_distillation(
    switches: PredictionSwitches, weights: LossWeights, gamma: float
) -> PredictionDistillation:
    """Prediction distillation as `switches` read section 3.3."""
    weight = rescaled_tood_weight if switches.tood_norm else tood_weight
    compared = {"pd": GROUP, "main": "main"}[switches.iou_from]
    return PredictionDistillation(
        weights,
        gamma,
        start=partial(mixed_queries, switches.position, switches.anchors),
        pair_weight=weight if switches.tood else plain_score,
        other_entries=torch.zeros_like if switches.other_entries == "zero" else None,
        scope=matched_only if switches.cls_scope == "matched" else None,
        class_count={
            "nb": None,
            "sum_w": sum_of_weights,
            "sum_y": sum_of_class_targets,
            "queries": number_of_queries,
        }[switches.norm],
        compare_with=compared if switches.listen2stu else None,
        unmatched={"off": None, "max_score": best_score, "one": torch.ones_like}[
            switches.reg_unmatched
        ],
    )


def mixed_queries(position: str, anchors: str, student: QuerySet, teacher: QuerySet) -> QuerySet:
    """The teacher's content, with position and anchors of the "teacher" or of the "student"."""
    source = {"student": student, "teacher": teacher}
    return QuerySet(teacher.content, source[anchors].anchors, source[position].position)


def plain_score(scores: Tensor, ious: Tensor) -> PairWeights:
    """No TOOD weight: the teacher's score is the class target, and all boxes count alike."""
    return PairWeights(scores, torch.ones_like(scores))


def rescaled_tood_weight(scores: Tensor, ious: Tensor) -> PairWeights:
    """TOOD's normalisation of the weight: with one positive per target it becomes the IoU."""
    return PairWeights(ious, ious)


def best_score(scores: Float[Tensor, "I q"]) -> Float[Tensor, "I q"]:
    """Queries without a target weigh their best score."""
    return scores


def matched_only(case: ClassCase) -> Float[Tensor, "I q"]:
    """Classifies only the queries that the teacher matched."""
    matched = torch.zeros_like(case.class_targets[..., 0])
    return matched.index_put(case.matching[:2], torch.ones_like(case.weights.classes))


def sum_of_weights(case: ClassCase) -> Float[Tensor, " K"]:
    """Sum of the pair weights of each layer."""
    views = len(case.class_targets)
    sums = sum_by_view(case.weights.classes, case.matching.view, views)
    return sums.view(case.teacher.num_layers, -1).sum(1)


def sum_of_class_targets(case: ClassCase) -> Float[Tensor, " K"]:
    """Sum of the class targets of each layer."""
    return case.class_targets.view(case.teacher.num_layers, -1).sum(1)


def number_of_queries(case: ClassCase) -> int:
    """Queries of the batch."""
    return case.class_targets.shape[1] * len(case.truth.targets.counts)


# ---- auxiliary groups --------------------------------------------------------------------------


def auxiliary_groups(
    switches: AuxiliarySwitches, distillation: MatchingDistillation
) -> AuxiliaryGroups:
    """Auxiliary groups as `switches` read section 3.4."""
    choose = {"unique": two_cheapest, "keep": two_cheapest, "disjoint": two_distinct}[
        switches.duplicates
    ]
    once = () if switches.duplicates == "keep" else (without_repeats,)
    # The cheapest first, so that of a repeated query the cheapest slot stays.
    few = switches.max_queries
    arrange = once if few is None else (cheapest_first, *once, partial(first, few))
    anchors = {"auto": box_or_point, "center": as_points, "box": unchanged}[switches.anchors]
    embed = {"teacher_index": unchanged, "sine": with_sine_position}[switches.position]
    return AuxiliaryGroups(
        distillation,
        switches.stages,
        choose=partial(with_matched, choose) if switches.include_matched else choose,
        arrange=arrange,
        start=partial(started, embed, anchors),
        supervise={
            "md": by_both_matchings,
            "original": by_original_matching,
            "rematch": by_own_matching,
        }[switches.match],
        average=switches.reduce == "mean",
        weight=switches.weight,
    )


def two_distinct(stages: Stages, targets: Targets, taught: Taught) -> Int[Tensor, "B T G 2"]:
    """Two queries for every target such that no query serves twice, at least total cost.

    Solved on the host.
    """
    images, num_stages, most, _ = stages.costs.shape
    doubled = moved(stages.costs.repeat(1, 1, 2, 1).flatten(0, 1), "cpu")  # (B * T, 2 * G, q)
    counts = [count for count in targets.counts for _ in range(num_stages)]
    # The second copy of the targets must follow the first without a gap.
    for view, count in enumerate(counts):
        doubled[view, count : 2 * count] = doubled[view, :count].clone()
    chosen = solve(doubled.numpy(), 2 * torch.tensor(counts).numpy())
    index = torch.full((images * num_stages, most, 2), -1)
    for view, count in enumerate(counts):
        index[view, :count] = torch.as_tensor(chosen[view, : 2 * count]).view(2, count).T
    return index.view(images, num_stages, most, 2).to(stages.costs.device)


def with_matched(
    choose: Callable[[Stages, Targets, Taught], Tensor],
    stages: Stages,
    targets: Targets,
    taught: Taught,
) -> Int[Tensor, "B T G _three"]:
    """Adds the query that the teacher matched, where `choose` has not chosen it already."""
    index, matching = choose(stages, targets, taught), taught.matches.result()["main"].matching
    slot = moved(targets.slot, matching.target.device)[matching.target]
    views = len(stages.output.views.boxes)
    dense = matching.query.new_full((views, targets.most), -1)  # (I, G)
    dense[matching.view, slot] = matching.query
    matched = at_stages(dense, stages.numbers, stages.output.num_layers)[..., None]
    known = (index == matched).any(-1, keepdim=True)
    return torch.cat([index, matched.masked_fill(known, -1)], -1)


def cheapest_first(candidates: Candidates) -> Candidates:
    """Sorts the slots of each block by cost."""
    return candidates.reordered(candidates.cost.argsort(-1))


def first(count: int, candidates: Candidates) -> Candidates:
    """Keeps at most `count` slots of each block, those that are not empty first."""
    order = candidates.empty.int().argsort(dim=-1, stable=True)[..., :count]
    return candidates.reordered(order)


def started(
    embed: Callable[[QuerySet], QuerySet],
    anchors: Callable[[QuerySet], QuerySet],
    queries: QuerySet,
) -> QuerySet:
    """Queries with the chosen position and then the chosen anchors."""
    return anchors(embed(queries))


def unchanged(queries: QuerySet) -> QuerySet:
    """The queries as they are."""
    return queries


def with_sine_position(queries: QuerySet) -> QuerySet:
    """Queries that bring a position get the sine encoding of their box's centre instead."""
    if queries.position is None:
        return queries
    sine = encode_anchors(queries.anchors[..., :2], queries.position.shape[-1] // 2)
    return replace(queries, position=sine.to(queries.position.dtype))


def by_original_matching(
    distillation: MatchingDistillation,
    output: GroupOutput,
    own: Matched,
    original: TeacherPairs,
    truth: Truth,
    scale: float,
) -> Terms:
    """The teacher's matching alone."""
    kept = original.kept.float()
    return distillation.prediction.supervise(output, original.matching, truth, kept, scale)


def by_own_matching(
    distillation: MatchingDistillation,
    output: GroupOutput,
    own: Matched,
    original: TeacherPairs,
    truth: Truth,
    scale: float,
) -> Terms:
    """The student's own matching of the group alone."""
    return distillation.prediction.supervise(output, own.matching, truth, scale=scale)
