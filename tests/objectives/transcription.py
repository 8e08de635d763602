"""The rules of the method word for word, loop by loop, to hold the implementation against.

Everything is said of one image as one decoder layer sees it (`Seen`), in float64, with a matching
as a plain dictionary from queries to targets. Nothing of the implementation is used, and nothing is
vectorised.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

Match = dict[int, int]  # query -> target, both counted within the image
Costs = list[list[float]]  # [target][query]
Box = Sequence[Any]  # four numbers, plain or with a gradient


@dataclass
class Truth:
    """The targets of one image."""

    boxes: list[list[float]]
    labels: list[int]


@dataclass
class LossSettings:
    """Loss weights and the areas' eps of a settings, and its classification loss."""

    loss: Callable[[Any, float], Any]
    hard: bool  # a positive's label is 1 instead of the IoU
    class_weight: float
    l1_weight: float
    giou_weight: float
    eps: float


@dataclass
class Seen:
    """One image as one decoder layer of one model sees it."""

    logits: Tensor  # (Q, C)
    boxes: Tensor  # (Q, 4)
    truth: Truth
    costs: Costs = field(default_factory=list)
    match: Match = field(default_factory=dict)
    empty: list[bool] = field(default_factory=list)

    def score(self, query: int, label: int) -> float:
        return float(self.logits[query, label].detach().sigmoid())

    def box(self, query: int) -> list[float]:
        """Without gradient."""
        return self.boxes[query].tolist()


# ---- boxes and losses ----------------------------------------------------------------------------


def corners(box: Box) -> tuple[Any, Any, Any, Any]:
    x, y, w, h = box
    return x - w / 2, y - h / 2, x + w / 2, y + h / 2


def overlap(first: Box, second: Box, eps: float) -> tuple[Any, Any]:
    """IoU and GIoU."""
    a, b = corners(first), corners(second)
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inter = width * height if width > 0 and height > 0 else 0.0
    union = first[2] * first[3] + second[2] * second[3] - inter
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    iou = inter / (union + eps)
    return iou, iou - (hull - union) / (hull + eps)


def iou(first: Box, second: Box, eps: float) -> float:
    return float(overlap(first, second, eps)[0])


def cross_entropy(logit: Tensor, label: float) -> Tensor:
    return -(1 - label) * torch.nn.functional.logsigmoid(
        -logit
    ) - label * torch.nn.functional.logsigmoid(logit)


def qfl(logit: Tensor, label: float, alpha: float | None = None, gamma: float = 2.0) -> Tensor:
    loss = abs(label - logit.sigmoid()) ** gamma * cross_entropy(logit, label)
    if alpha is None:
        return loss
    return loss * (alpha if label > 0 else 1 - alpha)


def focal(logit: Tensor, label: float, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    score = logit.sigmoid()
    if label == 1:
        return -alpha * (1 - score) ** gamma * torch.nn.functional.logsigmoid(logit)
    return -(1 - alpha) * score**gamma * torch.nn.functional.logsigmoid(-logit)


# ---- matching ------------------------------------------------------------------------------------


def class_cost(score: float) -> float:
    positive = 0.25 * (1 - score) ** 2 * -math.log(score + 1e-8)
    return positive - 0.75 * score**2 * -math.log(1 - score + 1e-8)


def cost_matrix(
    seen: Seen, eps: float, kind: str = "focal", weights: Sequence[float] = (2.0, 5.0, 2.0)
) -> Costs:
    queries = [query for query in range(len(seen.logits)) if not (seen.empty and seen.empty[query])]
    truth, boxes = seen.truth, [seen.box(query) for query in range(len(seen.logits))]
    giou = {
        (j, i): overlap(boxes[i], g, eps)[1] for j, g in enumerate(truth.boxes) for i in queries
    }
    best = max([(value + 1) / 2 for value in giou.values()], default=1.0)
    costs = []
    for j, target in enumerate(truth.boxes):
        row = [math.inf] * len(seen.logits)
        for i in queries:
            score = seen.score(i, truth.labels[j])
            if kind == "stable":
                score *= math.sqrt((giou[j, i] + 1) / 2 / best)
            l1 = sum(abs(a - b) for a, b in zip(boxes[i], target, strict=True))
            row[i] = weights[0] * class_cost(score) + weights[1] * l1 - weights[2] * giou[j, i]
        costs.append(row)
    return costs


def hungarian(costs: Costs) -> Match:
    if not costs:
        return {}
    usable = [query for query, cost in enumerate(costs[0]) if cost < math.inf]
    rows, columns = linear_sum_assignment(np.array(costs)[:, usable])
    return {
        usable[column]: row for row, column in zip(rows.tolist(), columns.tolist(), strict=True)
    }


def solved(seen: Seen, eps: float, kind: str) -> Seen:
    seen.costs = cost_matrix(seen, eps, kind)
    seen.match = hungarian(seen.costs)
    return seen


# ---- matching distillation (section 3.2) ---------------------------------------------------------


def kept_pairs(seen: Seen, taught: Match, rule: Any, eps: float) -> Match:
    """The teacher's pairs that count, for classes and for boxes."""
    boxes, kept = seen.truth.boxes, {}
    for query, target in taught.items():
        if query not in seen.match and not rule.teacher_only:
            continue
        if rule.cond_iou is None or iou(seen.box(query), boxes[target], eps) > rule.cond_iou:
            kept[query] = target
    return kept


def multi_target_labels(
    seen: Seen, taught: Match, rule: Any, settings: LossSettings
) -> list[list[float]]:
    """Eq. 3 and the switches that bend it."""
    truth = seen.truth
    labels = [[0.0] * seen.logits.shape[1] for _ in range(len(seen.logits))]
    for i in range(len(seen.logits)):
        own, other = seen.match.get(i, -1), taught.get(i, -1)
        ious = [iou(seen.box(i), box, settings.eps) for box in truth.boxes]
        quality = [1.0 if settings.hard else value for value in ious]
        if own >= 0 and rule.cond_own and ious[own] < rule.cond_iou:
            own = -1
        if own >= 0:
            labels[i][truth.labels[own]] = quality[own]
        if other < 0:
            continue
        entry = truth.labels[other]
        if own < 0 or truth.labels[own] != entry or rule.same_class == "teacher":
            labels[i][entry] = quality[other]
        elif rule.same_class == "max":
            labels[i][entry] = max(labels[i][entry], quality[other])
    return labels


def box_weights(
    seen: Seen, taught: Match, teacher_costs: Costs, rule: Any
) -> dict[tuple[int, int], float]:
    """Eq. 4: the (query, target) pairs of box regression and what each weighs."""
    weights = {pair: 1.0 for pair in seen.match.items()}
    owner = {target: query for query, target in seen.match.items()}
    for query, target in taught.items():
        if query in seen.match:
            continue
        weights[query, target] = 1.0
        if target not in owner:
            continue
        online = owner[target]
        online_cost = (teacher_costs if rule.cost == "teacher" else seen.costs)[target][online]
        teacher_cost = (seen.costs if rule.cost == "student" else teacher_costs)[target][query]
        teacher_loses = rule.cost == "teacher_pair" or teacher_cost >= online_cost
        weights[(query if teacher_loses else online), target] = rule.wd
    return weights


def distilled_terms(
    layers: list[list[tuple[Seen, Match, Costs]]],
    rule: Any,
    settings: LossSettings,
    nb: float,
    scale: float = 1.0,
    blocks: int = 1,
) -> list[dict[str, Tensor]]:
    """Class, L1 and GIoU loss of every layer.

    Each image comes with the teacher's matching and costs.
    """
    terms = []
    for views in layers:
        sums = {"class": torch.zeros(()), "l1": torch.zeros(()), "giou": torch.zeros(())}
        positives = 0
        for seen, taught, teacher_costs in views:
            taught = kept_pairs(seen, taught, rule, settings.eps)
            labels = multi_target_labels(seen, taught, rule, settings)
            weights = box_weights(seen, taught, teacher_costs, rule)
            entries = {}
            if rule.wd_cls:
                places = {(i, seen.truth.labels[j]): weight for (i, j), weight in weights.items()}
                entries = {(i, c): weight for (i, c), weight in places.items() if labels[i][c] > 0}
            if rule.wd_cls_mode == "target":
                for (i, c), weight in entries.items():
                    labels[i][c] *= weight
                entries = {}
            positives += sum(label > 0 for row in labels for label in row)
            sums["class"] = sums["class"] + class_loss(seen, labels, settings, entries)
            kept = weights if rule.reg else {pair: 1.0 for pair in seen.match.items()}
            for (i, j), weight in kept.items():
                add_box_loss(sums, seen.boxes[i], seen.truth.boxes[j], weight, settings)
        class_norm = max(1, positives / blocks) if rule.cls_norm == "num_pos" else nb
        terms.append(weighted(sums, settings, scale, class_norm, nb))
    return terms


def class_loss(
    seen: Seen,
    labels: list[list[float]],
    settings: LossSettings,
    entries: dict[tuple[int, int], float] | None = None,
) -> Tensor:
    total = torch.zeros(())
    for i in range(len(seen.logits)):
        if seen.empty and seen.empty[i]:
            continue
        for c in range(seen.logits.shape[1]):
            total = total + (entries or {}).get((i, c), 1.0) * settings.loss(
                seen.logits[i, c], labels[i][c]
            )
    return total


def add_box_loss(
    sums: dict[str, Tensor], box: Box, target: Box, weight: float, settings: LossSettings
) -> None:
    sums["l1"] = sums["l1"] + weight * sum(abs(a - b) for a, b in zip(box, target, strict=True))
    sums["giou"] = sums["giou"] + weight * (1 - overlap(box, target, settings.eps)[1])


def weighted(
    sums: dict[str, Tensor], settings: LossSettings, scale: float, class_norm: float, nb: float
) -> dict[str, Tensor]:
    return {
        "class": sums["class"] * settings.class_weight * scale / class_norm,
        "l1": sums["l1"] * settings.l1_weight * scale / nb,
        "giou": sums["giou"] * settings.giou_weight * scale / nb,
    }


def plain_terms(
    layers: list[list[tuple[Seen, Match]]], settings: LossSettings, nb: float, scale: float = 1.0
) -> list[dict[str, Tensor]]:
    """One matching, one target for each query: every DETR's loss."""
    terms = []
    for views in layers:
        sums = {"class": torch.zeros(()), "l1": torch.zeros(()), "giou": torch.zeros(())}
        for seen, match in views:
            labels = [[0.0] * seen.logits.shape[1] for _ in range(len(seen.logits))]
            for i, j in match.items():
                target = seen.truth.boxes[j]
                labels[i][seen.truth.labels[j]] = (
                    1.0 if settings.hard else iou(seen.box(i), target, settings.eps)
                )
                add_box_loss(sums, seen.boxes[i], target, 1.0, settings)
            sums["class"] = sums["class"] + class_loss(seen, labels, settings)
        terms.append(weighted(sums, settings, scale, nb, nb))
    return terms


# ---- prediction distillation (section 3.3) -------------------------------------------------------


def prediction_terms(
    layers: list[list[tuple[Seen, Seen, Seen]]],
    rule: Any,
    settings: LossSettings,
    nb: float,
    gamma: float = 2.0,
) -> list[dict[str, Tensor]]:
    """Eqs. 5 and 6.

    Each image comes as the student's answer to the teacher's queries, the teacher's own, and the
    student's main group.
    """
    terms = []
    for views in layers:
        sums = {"class": torch.zeros(()), "l1": torch.zeros(()), "giou": torch.zeros(())}
        norms = {"nb": nb, "sum_w": 0.0, "sum_y": 0.0, "queries": 0.0}
        for seen, teacher, main in views:
            queries, classes = seen.logits.shape
            weights = {}
            for i, j in teacher.match.items():
                score = teacher.score(i, teacher.truth.labels[j])
                quality = iou(teacher.box(i), teacher.truth.boxes[j], settings.eps)
                weights[i] = (
                    (quality if rule.tood_norm else score**0.25 * quality**0.75)
                    if rule.tood
                    else score
                )
            for i in range(queries):
                labels = [
                    teacher.score(i, c) if rule.other_entries == "teacher" else 0.0
                    for c in range(classes)
                ]
                if i in teacher.match:
                    labels[teacher.truth.labels[teacher.match[i]]] = weights[i]
                norms["sum_y"] += sum(labels)
                if i in teacher.match or rule.cls_scope == "all":
                    sums["class"] = sums["class"] + sum(
                        qfl(seen.logits[i, c], labels[c], gamma=gamma) for c in range(classes)
                    )
                weight = box_weight(
                    i, teacher, seen if rule.iou_from == "pd" else main, weights, rule, settings
                )
                if weight:
                    add_box_loss(sums, seen.boxes[i], teacher.box(i), weight, settings)
            norms["sum_w"] += sum(weights.values())
            norms["queries"] += queries
        terms.append(weighted(sums, settings, 1.0, max(1.0, norms[rule.norm]), nb))
    return terms


def box_weight(
    i: int,
    teacher: Seen,
    student: Seen,
    weights: dict[int, float],
    rule: Any,
    settings: LossSettings,
) -> float:
    """What the box of query i weighs: nothing where the student's is as good (Listen2stu)."""
    if i not in teacher.match:
        best = max(teacher.score(i, c) for c in range(teacher.logits.shape[1]))
        return {"off": 0.0, "max_score": best, "one": 1.0}[rule.reg_unmatched]
    target = teacher.truth.boxes[teacher.match[i]]
    if rule.listen2stu and not iou(teacher.box(i), target, settings.eps) > iou(
        student.box(i), target, settings.eps
    ):
        return 0.0
    return weights[i] if rule.tood else 1.0


# ---- auxiliary groups (section 3.4) --------------------------------------------------------------


def selected_queries(teacher: Seen, rule: Any) -> list[int]:
    """The queries of one image that one teacher stage gives to its group, sorted."""
    costs, queries = teacher.costs, range(len(teacher.logits))
    if rule.duplicates == "disjoint":
        match = hungarian([*costs, *costs])
        pairs = [(query, row % len(costs)) for query, row in match.items()]
    else:
        pairs = [
            (i, j)
            for j in range(len(costs))
            for i in sorted(queries, key=lambda i, j=j: costs[j][i])[:2]
        ]
    if rule.include_matched:
        pairs += [pair for pair in teacher.match.items() if pair not in pairs]
    pairs.sort(key=lambda pair: costs[pair[1]][pair[0]])
    chosen: list[int] = []
    for i, _ in pairs:
        if rule.duplicates == "keep" or i not in chosen:
            chosen.append(i)
    return sorted(chosen[: rule.max_queries])


def sine_of_point(x: float, y: float, size: int) -> list[float]:
    """Sine encoding of a centre in `size` numbers, the y half first."""
    numbers = []
    for coordinate in (y, x):
        for f in range(size // 2):
            angle = coordinate * 2 * math.pi / 10000 ** (2 * (f // 2) / (size // 2))
            numbers.append(math.sin(angle) if f % 2 == 0 else math.cos(angle))
    return numbers
