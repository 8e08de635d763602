"""A recipe: a list of objectives and, for those that distil, a teacher. The paper's ablation table is that list."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from od_detr.criteria.matching import MatchCost, begin_matching, match
from od_detr.detectors import DetectionTransformer, Encoded
from od_detr.objectives import (
    AuxiliaryGroups,
    ClassLoss,
    Denoising,
    Labels,
    LossWeights,
    MatchingDistillation,
    Objective,
    PredictionDistillation,
    QueryPriorAssignment,
    SetPrediction,
    Terms,
)
from od_detr.options import TrainOptions
from od_detr.structures import Batch, Outputs, Targets
from od_detr.training.teacher import Teacher
from od_detr.transfers import to_device_of


@dataclass
class Recipe:
    """How a step is supervised; the training loop does not know whether it distils.

    Args:
        objectives: what is added and what is made of it.
        teacher: consulted at each step; None for a plain recipe.
        cost: the matching cost of teacher and student.
        align: whose memory tokens a two-stage architecture's queries come from: the student's for both
            ("student_topk"), the teacher's for both ("teacher_topk"), or each its own ("rank").
        half_teacher: whether the teacher's forward pass computes in bfloat16 whatever the student does.
        detach_memory: whether the queries that distillation adds leave the encoder untouched by their gradient.
        distil: whether the teacher is consulted at all (False before a delayed start).
    """

    objectives: Sequence[Objective]
    teacher: Teacher | None = None
    cost: MatchCost = field(default_factory=MatchCost)
    align: str = "student_topk"
    half_teacher: bool = False
    detach_memory: bool = False
    distil: bool = True

    def losses(self, student: DetectionTransformer, batch: Batch) -> Terms:
        """Weighted loss terms of a batch; their plain sum is what is minimised."""
        scene, taught = self.consult(student, batch)
        groups = [
            group
            for objective in self.objectives
            for group in objective.query_groups(student, scene, taught, batch.targets)
        ]
        outputs = self.decode(student, scene, groups)
        with torch.autocast(
            batch.images.device.type, enabled=False
        ):  # matching and losses are always float32
            match(list(outputs.groups.values()), batch.targets, self.cost)
            labels = Labels(batch.targets, target_count(batch.targets))
            return {
                name: term
                for objective in self.objectives
                for name, term in objective.losses(outputs, taught, labels).items()
            }

    def consult(
        self, student: DetectionTransformer, batch: Batch
    ) -> tuple[Encoded, Outputs | None]:
        """The student's scene and the teacher's view of it; the teacher's matching is solved meanwhile."""
        if self.teacher is None or not self.distil:
            return student.encode(batch), None
        teacher, stem, early, device = (
            self.teacher.detector,
            student.stem(batch),
            None,
            batch.images.device.type,
        )
        if self.align == "teacher_topk":
            with self._teaching(device):
                early = teacher.encode(batch, stem)
        scene = student.encode(batch, stem, early.tokens if early else None)
        with self._teaching(device):
            tokens = scene.tokens if self.align == "student_topk" else None
            taught = teacher.decode(early or teacher.encode(batch, stem, tokens))
        with torch.no_grad(), torch.autocast(device, enabled=False):
            begin_matching([taught[name] for name in self.referred_to], batch.targets, self.cost)
        return scene, taught

    @property
    def referred_to(self) -> list[str]:
        """Groups of the teacher whose matching an objective asks for."""
        distilled = (
            each.prediction.group
            for each in self.objectives
            if isinstance(each, MatchingDistillation)
        )
        return list(dict.fromkeys(["main", *distilled]))

    @contextmanager
    def _teaching(self, device: str) -> Iterator[None]:
        """Without gradients, and in bfloat16 if so chosen; otherwise as the student computes."""
        chosen = torch.autocast(device, torch.bfloat16) if self.half_teacher else nullcontext()
        with torch.no_grad(), chosen:
            yield

    def decode(self, student: DetectionTransformer, scene: Encoded, groups: list) -> Outputs:
        """One pass of the decoder for all groups; a second one only where the memory is to be detached."""
        if not self.detach_memory:
            return student.decode(scene, groups)
        own = [group for group in groups if group.sees]
        outputs = student.decode(scene, own)
        added = [group for group in groups if not group.sees]
        if added:
            memory = replace(scene.memory, tokens=scene.memory.tokens.detach())
            outputs.groups.update(student.decoder(added, memory))
        return outputs


def make_recipe(options: TrainOptions, teacher: Teacher | None = None) -> Recipe:
    """The recipe of that name with the architecture's weights; Table 2's rows are `md`, `md+pd`, `md+ag` and `od`."""
    architecture, distil = options.architecture, options.distils
    plain = options.recipe == "baseline"
    class_weight = (
        architecture.class_weight
        if plain or options.qfl.class_weight is None
        else options.qfl.class_weight
    )
    weights = LossWeights(class_weight=class_weight, eps=architecture.eps)
    quality = ClassLoss(options.qfl.loss, options.qfl.alpha, options.qfl.gamma)

    def supervision(group: str, name: str, loss: str = "qfl") -> SetPrediction:
        return SetPrediction(
            group, name, weights, ClassLoss("focal") if plain or loss == "focal" else quality
        )

    def distilled(prediction: SetPrediction) -> MatchingDistillation:
        return MatchingDistillation(**vars(options.md), prediction=prediction)

    main = supervision("main", "matching")
    objectives: list[Objective] = [distilled(main) if distil else main]
    if architecture.two_stage:
        proposals = supervision("encoder", "encoder", options.encoder.loss)
        objectives.append(distilled(proposals) if distil and options.encoder.md else proposals)
        objectives.append(Denoising(supervision("denoising", "denoising", options.denoising.loss)))
    if options.recipe in ("md+pd", "od"):
        prior = QueryPriorAssignment(
            weights=weights, class_loss=quality, match=options.query_prior.match
        )
        distillation = PredictionDistillation(
            **vars(options.pd), weights=weights, gamma=options.qfl.gamma
        )
        objectives.append(prior if options.query_prior.on else distillation)
    if options.recipe in ("md+ag", "od"):
        objectives.append(AuxiliaryGroups(**vars(options.ag), distillation=distilled(main)))
    cost = MatchCost(cost=options.match.cost, eps=architecture.eps)
    switches = {
        "half_teacher": options.ema.precision == "bf16",
        "detach_memory": options.distill.detach_memory,
    }
    return Recipe(objectives, teacher if distil else None, cost, options.dino.align, **switches)


def target_count(targets: Targets) -> Tensor | float:
    """What losses are divided by: targets in the batch, averaged over all ranks, at least 1."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return float(max(1, len(targets)))
    count = to_device_of(float(len(targets)), targets.boxes)
    torch.distributed.all_reduce(count)
    return (count / torch.distributed.get_world_size()).clamp(min=1.0)
