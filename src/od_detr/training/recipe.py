"""A recipe: a list of objectives and, for those that distil, a teacher.

The rows of the paper's ablation, Table 2, differ in that list.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from od_detr import ranks
from od_detr.criteria.matching import MatchCost, Matches, match
from od_detr.detectors import Encoded, QueryDetector
from od_detr.objectives import (
    Answer,
    ClassLoss,
    LossWeights,
    Objective,
    QueryPriorAssignment,
    SetPrediction,
    Step,
    Taught,
    Terms,
    Truth,
    auxiliary_groups,
    joined,
    matching_distillation,
    prediction_distillation,
)
from od_detr.options import TrainOptions
from od_detr.structures import Batch, Outputs, Share, Targets, check_unique
from od_detr.training.teacher import Teacher
from od_detr.transfers import to_device_of


@dataclass
class Recipe:
    """How a step is supervised; the training loop does not know whether it distils.

    Args:
        objectives: what is added to the detector's queries and how the predictions are supervised.
        teacher: consulted at each step; None for a recipe without distillation.
        cost: the matching cost of teacher and student.
        align: whose memory tokens a two-stage architecture's queries come from: the student's for
            both ("student_topk"), the teacher's for both ("teacher_topk"), or each its own
            ("rank").
        half_teacher: whether the teacher's forward pass computes in bfloat16 whatever the student
            does.
        detach_memory: whether the gradient of the queries that distillation adds stops at the
            memory.
        shares: what of the student's backbone the teacher reads: the output of the "frozen" part,
            which is the same for both, or the feature maps of the whole "backbone".
    """

    objectives: Sequence[Objective]
    teacher: Teacher | None = None
    cost: MatchCost = field(default_factory=MatchCost)
    align: str = "student_topk"
    half_teacher: bool = False
    detach_memory: bool = False
    shares: Literal["frozen", "backbone"] = "frozen"

    def losses(self, student: QueryDetector, batch: Batch, distil: bool = True) -> Terms:
        """Weighted loss terms of a batch; their plain sum is minimised.

        Args:
            student: the detector that is trained.
            batch: images and targets.
            distil: whether the teacher is consulted. Without it the recipe is `qfl`.

        Raises:
            ValueError: two objectives add a group of the same name or give terms of the same name.
        """
        step = self.step(student, batch, distil)
        with full_precision(batch):
            return joined(objective.losses(step) for objective in self.objectives)

    def step(self, student: QueryDetector, batch: Batch, distil: bool = True) -> Step:
        """Everything that the losses of a batch are computed from."""
        encoded, taught = self.consult(student, batch, distil)
        added = [
            group
            for objective in self.objectives
            for group in objective.query_groups(encoded.queries, taught, batch.targets)
        ]
        groups = [*student.own_groups(batch.targets), *added]
        check_unique((group.name for group in groups), "query group")
        outputs = student.decode(encoded, groups, self.detach_memory)
        with full_precision(batch):
            return Step(
                Answer(outputs, match(outputs.groups.values(), batch.targets, self.cost)),
                None if taught is None else Answer(taught.outputs, taught.matches.result()),
                Truth(batch.targets, target_count(batch.targets)),
            )

    def consult(
        self, student: QueryDetector, batch: Batch, distil: bool = True
    ) -> tuple[Encoded, Taught | None]:
        """Encodes the batch and asks the teacher, whose matchings a thread starts to solve."""
        if self.teacher is None or not distil:
            return student.encode(batch), None
        teacher, stem, early = self.teacher.detector, student.stem(batch, self.shares), None
        if self.align == "teacher_topk":
            with self._teaching(batch):
                early = teacher.encode(batch, stem)
        encoded = student.encode(batch, stem, None if early is None else early.tokens)
        with self._teaching(batch):
            tokens = encoded.tokens if self.align == "student_topk" else None
            outputs = teacher.decode(early or teacher.encode(batch, stem, tokens))
        with torch.no_grad(), full_precision(batch):
            return encoded, Taught(outputs, self._matches(outputs, batch.targets))

    def _matches(self, outputs: Outputs, targets: Targets) -> Matches:
        """Starts matching the groups of the teacher that objectives ask for."""
        names = dict.fromkeys(name for each in self.objectives for name in each.teacher_groups)
        return Matches([outputs[name] for name in names], targets, self.cost)

    @contextmanager
    def _teaching(self, batch: Batch) -> Iterator[None]:
        """Without gradients, and in bfloat16 if so chosen; otherwise as the student computes."""
        device = batch.images.device.type
        chosen = torch.autocast(device, torch.bfloat16) if self.half_teacher else nullcontext()
        with torch.no_grad(), chosen:
            yield


def full_precision(batch: Batch) -> torch.autocast:
    """Matching and losses are always computed in float32."""
    return torch.autocast(batch.images.device.type, enabled=False)


def make_recipe(
    options: TrainOptions, student: QueryDetector, teacher: Teacher | None = None
) -> Recipe:
    """The recipe named in the options, for this student (Table 2)."""
    architecture, baseline = options.architecture, options.recipe == "baseline"
    chosen = None if baseline else options.qfl.class_weight
    class_weight = architecture.class_weight if chosen is None else chosen
    weights = LossWeights(class_weight, eps=architecture.eps)
    quality = ClassLoss(options.qfl.loss, options.qfl.alpha, options.qfl.gamma)
    focal = ClassLoss("focal")
    own_losses = {"encoder": options.encoder.loss, "denoising": options.denoising.loss}
    distilled = {"main": options.distils, "encoder": options.distils and options.encoder.md}

    def supervise(group: str, name: str | None = None) -> Objective:
        hard = baseline or own_losses.get(group) == "focal"
        prediction = SetPrediction(group, name or group, weights, focal if hard else quality)
        if not distilled.get(group, False):
            return prediction
        return matching_distillation(options.md, prediction)

    objectives = [supervise("main", "matching"), *student.own_objectives(supervise)]
    if options.recipe in ("md+pd", "od"):
        rematch = options.query_prior.match == "rematch"
        objectives.append(
            QueryPriorAssignment(weights, quality, rematch)
            if options.query_prior.on
            else prediction_distillation(options.pd, weights, options.qfl.gamma)
        )
    if options.recipe in ("md+ag", "od"):
        main = SetPrediction("main", "matching", weights, quality)
        objectives.append(auxiliary_groups(options.ag, matching_distillation(options.md, main)))
    return Recipe(
        objectives,
        teacher if options.distils else None,
        MatchCost(cost=options.match.cost, eps=architecture.eps),
        options.dino.align,
        half_teacher=options.ema.precision == "bf16",
        detach_memory=options.distill.detach_memory,
        shares="backbone" if options.freeze else options.ema.share,  # a frozen one is the same
    )


def target_count(targets: Targets) -> Tensor | float:
    """The normaliser of the losses: targets of a batch, averaged over all batches of the step.

    Those are the batches of all ranks, and of each rank those whose gradients it accumulates. All
    of them together count as at least one target for each rank, as in DETR.
    """
    share = targets.share or Share.of([targets])
    mean, least = share.targets / share.batches, 1 / share.batches
    if not ranks.is_distributed():
        return max(least, mean)
    count = to_device_of(mean, targets.boxes)
    torch.distributed.all_reduce(count)
    return (count / torch.distributed.get_world_size()).clamp(min=least)
