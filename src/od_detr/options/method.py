"""The switches of the method. docs/paper.md gives the reason for each reading of the paper."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from od_detr.options.fields import option


@dataclass(frozen=True)
class QflOptions:
    """The classification loss of every recipe but baseline, Eq. 2."""

    loss: Literal["qfl", "focal"] = option(
        "qfl",
        "Classification loss: quality focal loss, or focal loss with hard labels (Table 3).",
    )
    class_weight: float | None = option(
        None,
        "Weight of the classification losses.",
        at_least=0,
        resolved=True,
        shown="2; DAB and DINO: 1",
        formerly="lambda_",
    )
    alpha: float | None = option(
        None, "Weight of positives against negatives.", at_least=0, at_most=1, shown="no weighting"
    )
    gamma: float = option(2.0, "Exponent of the modulating factor.", at_least=0)


@dataclass(frozen=True)
class MatchingSwitches:
    """Matching distillation, section 3.2."""

    layer: Literal["same", "last", "final_only"] = option(
        "same",
        "Teacher layer that each student layer learns from: the same one or the last one. "
        "final_only distils only the last student layer.",
    )
    same_class: Literal["online", "max", "teacher"] = option(
        "online",
        "Label of a query that student and teacher match to two targets of the same class: the IoU "
        "with the student's target, the larger of the two IoUs, or the IoU with the teacher's.",
    )
    teacher_only: bool = option(True, "Queries that only the teacher matches become positives.")
    cls_norm: Literal["nb", "num_pos"] = option(
        "nb", "Divide the classification loss by the target count or by the number of positives."
    )
    reg: bool = option(True, "Distil the box regression too.")
    wd: float = option(
        0.51,
        "Regression weight of the more costly of a target's two queries (Eq. 4).",
        at_least=0,
    )
    cost: Literal["student", "teacher", "own", "teacher_pair"] = option(
        "student",
        "Costs that decide which query is the more costly one. teacher_pair always reduces the "
        "weight of the teacher's query.",
    )
    wd_cls: bool = option(False, "Reduce the weight of that query's classification too.")
    wd_cls_mode: Literal["loss", "target"] = option(
        "loss", "With --md.wd-cls: reduce the weight of its loss or its target value."
    )
    cond_iou: float | None = option(
        None,
        "Keep only teacher pairs with a larger IoU (Conditional MD, Table 3).",
        at_least=0,
        at_most=1,
        shown="keep all",
    )
    cond_own: bool = option(False, "Apply --md.cond-iou to the student's own pairs too.")


@dataclass(frozen=True)
class PredictionSwitches:
    """Prediction distillation, section 3.3."""

    position: Literal["teacher", "student"] = option(
        "teacher", "Source of the position embeddings of the group's queries.", formerly="pe"
    )
    anchors: Literal["teacher", "student"] = option(
        "teacher", "Source of the anchors of the group's queries.", formerly="ref"
    )
    tood: bool = option(
        True, "Apply the TOOD weight of Eq. 5. Otherwise the labels are the teacher's scores."
    )
    tood_norm: bool = option(False, "Rescale the TOOD weight to the IoU, as TOOD does.")
    listen2stu: bool = option(
        True, "Distil a box only where the teacher's box is better than the student's (Eq. 6)."
    )
    iou_from: Literal["pd", "main"] = option(
        "pd", "Student box in that comparison: of the distillation group or of the main group."
    )
    cls_scope: Literal["all", "matched"] = option(
        "all", "Queries whose classification is distilled: all, or those the teacher matched."
    )
    other_entries: Literal["teacher", "zero"] = option(
        "teacher", "Labels of the classes that Eq. 5 does not change."
    )
    norm: Literal["nb", "sum_w", "sum_y", "queries"] = option(
        "nb",
        "Divisor of the classification loss: target count, sum of weights, sum of labels, or "
        "number of queries.",
    )
    reg_unmatched: Literal["off", "max_score", "one"] = option(
        "off", "Weight of the box loss of queries without a target: none, their best score, or 1."
    )


@dataclass(frozen=True)
class PriorSwitches:
    """Query-prior assignment of DETRDistill instead of prediction distillation (Table 5)."""

    on: bool = option(False, "Use query-prior assignment instead of prediction distillation.")
    match: Literal["teacher", "rematch"] = option(
        "teacher", "Use the teacher's matching of the same layer, or compute a new matching."
    )


@dataclass(frozen=True)
class AuxiliarySwitches:
    """Auxiliary groups, section 3.4."""

    anchors: Literal["auto", "center", "box"] = option(
        "auto",
        "Anchors of the groups' queries: center or box of the teacher's prediction. auto is center "
        "for architectures that start from points, otherwise box.",
        formerly="ref",
    )
    position: Literal["teacher_index", "sine"] = option(
        "teacher_index",
        "Position embeddings where the architecture learns one for each query: those of the same "
        "query of the teacher, or sines of the anchor.",
        formerly="pe",
    )
    stages: tuple[int, ...] | None = option(
        None, "Teacher layers that give a group, from 1, or -1 for the last.", shown="all layers"
    )
    duplicates: Literal["unique", "keep", "disjoint"] = option(
        "unique",
        "A query that is among the cheapest for several targets: keep it once, keep a copy for "
        "each target, or give it to one target only.",
        formerly="dup",
    )
    include_matched: bool = option(
        False, "Also add the query the teacher matched if it is not among the two cheapest."
    )
    max_queries: int | None = option(
        None,
        "Largest number of queries in a group; the cheapest stay.",
        at_least=1,
        shown="no limit",
    )
    match: Literal["md", "original", "rematch"] = option(
        "md",
        "Matching inside the groups: matching distillation, the teacher's original matching, or a "
        "new matching (Table 6).",
    )
    reduce: Literal["mean", "sum"] = option("mean", "Average or sum the losses of the groups.")
    weight: float = option(1.0, "Factor on the losses of all groups.", at_least=0)


@dataclass(frozen=True)
class MatchOptions:
    """The Hungarian matching."""

    cost: Literal["focal", "stable"] = option(
        "focal", "Matching cost: DETR's focal cost, or Stable-DINO's position-modulated cost."
    )


@dataclass(frozen=True)
class EmaOptions:
    """The teacher, an exponential moving average (EMA) of the student."""

    decay: float | None = option(
        None,
        "Decay of the average for each optimizer step.",
        at_least=0,
        at_most=1,
        resolved=True,
        shown="0.9996; less for short schedules",
    )
    warmup: Literal["none", "exp", "mean"] = option(
        "none", "Warm-up of the decay: none, exponential, or the mean of all steps so far."
    )
    warmup_steps: float = option(0.0, "Length of that warm-up in optimizer steps.", at_least=0)
    stop: Literal["auto", "on", "off"] = option(
        "auto",
        "Freeze the teacher when the learning rate drops (Stop Update). auto is on for recipes "
        "with prediction distillation.",
    )
    track: bool = option(
        True,
        "Average the student under recipes that do not distil too, to evaluate the average.",
        known_as=("use_ema",),
    )
    precision: Literal["student", "bf16"] = option(
        "student",
        "Precision of the teacher's forward pass. The average itself is always float32.",
    )
    share: Literal["frozen", "backbone"] = option(
        "frozen",
        "What the teacher takes from the student's backbone instead of computing it: the output of "
        "its frozen stages, or all its feature maps.",
    )


@dataclass(frozen=True)
class DistillOptions:
    """All of online distillation."""

    start: int = option(0, "Optimizer step at which distillation starts.", at_least=0)
    stop: float | None = option(
        None,
        "When distillation ends and the recipe goes on as qfl: a share of the schedule if below 1, "
        "otherwise a number of epochs.",
        at_least=0,
        shown="never",
    )
    every: int = option(1, "Distil in every n-th optimizer step only.", at_least=1)
    detach_memory: bool = option(
        False, "Keep gradients of the added queries out of encoder and backbone."
    )


@dataclass(frozen=True)
class DinoOptions:
    """Two-stage architectures."""

    align: Literal["student_topk", "teacher_topk", "rank"] = option(
        "student_topk",
        "Encoder tokens that become queries: the student's choice for both networks, the teacher's "
        "choice for both, or the own choice of each.",
    )


@dataclass(frozen=True)
class EncoderOptions:
    """The encoder's own predictions in two-stage architectures."""

    loss: Literal["qfl", "focal"] = option(
        "qfl", "Classification loss of the encoder's predictions under every recipe but baseline."
    )
    md: bool = option(False, "Distil the matching of the encoder's predictions too.")


@dataclass(frozen=True)
class DenoisingOptions:
    """The denoising group of DINO."""

    loss: Literal["qfl", "focal"] = option(
        "qfl", "Classification loss of the denoising group under every recipe but baseline."
    )
