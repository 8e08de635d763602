"""A step of any recipe without a detector: random predictions, and the same step transcribed.

Targets are crowded, so that queries are matched to two targets of one class and of two, and targets
to two queries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from itertools import count

import torch
from tests.objectives import transcription
from tests.objectives.transcription import LossSettings, Seen
from torch.testing import assert_close

from od_detr.criteria.matching import Matches, match
from od_detr.detectors import DetectionTransformer, Encoded
from od_detr.objectives import Answer, Step, Taught, Truth, joined, total
from od_detr.options import TrainOptions
from od_detr.structures import GroupOutput, Outputs, Predictions, QueryGroup, QuerySet, Targets
from od_detr.training.recipe import make_recipe, target_count

DEFORMABLE, DAB, DINO = "deformable-detr-plus", "dab-deformable-detr", "dino-4scale"
LAYERS, QUERIES, CLASSES, DIM = 2, 6, 2, 32
COUNTS = ((3, 0, 5), (7, 0, 1), (0, 0, 0))  # the second has an image with more targets than queries
SEEDS = 8

Encodeds = Callable[[str], tuple[DetectionTransformer, Encoded]]
MakeTargets = Callable[[tuple[int, ...], int, int], Targets]


def name_of(value: object) -> str | None:
    return (
        " ".join(f"{key}={part}" for key, part in value.items())
        if isinstance(value, dict)
        else None
    )


def options(recipe: str, model: str, setting: dict) -> TrainOptions:
    made = TrainOptions(data="", recipe=recipe, model=model)
    for name, value in setting.items():
        group, switch = name.split(".")
        made = replace(made, **{group: replace(getattr(made, group), **{switch: value})})
    return made


# ---- random predictions of every group -----------------------------------------------------------


@dataclass(frozen=True)
class Taken:
    """The outputs of one step and the loss terms of its objectives.

    `taught` is there even if not distilled.
    """

    options: TrainOptions
    targets: Targets
    taught: Outputs
    outputs: Outputs
    terms: dict[str, torch.Tensor]

    @property
    def leaves(self) -> list[torch.Tensor]:
        return leaves_of(self.outputs.groups.values())


def leaves_of(outputs: Iterable[GroupOutput]) -> list[torch.Tensor]:
    return [part for output in outputs for part in vars(output.predictions).values()]


def predicted(
    targets: Targets, queries: int, layers: int, generator: torch.Generator
) -> Predictions:
    """Boxes near the targets, or anywhere in an image without any."""
    boxes = 0.3 + 0.4 * torch.rand(layers, len(targets.counts), queries, 4, generator=generator)
    for image, (start, size) in enumerate(zip(targets.starts, targets.counts, strict=True)):
        if size:
            near = targets.boxes[
                start + torch.randint(size, (layers, queries), generator=generator)
            ]
            boxes[:, image] = 0.2 * boxes[:, image] + 0.8 * near
    logits = torch.randn(layers, len(targets.counts), queries, CLASSES, generator=generator)
    return Predictions(logits, boxes)


def moved(predictions: Predictions, generator: torch.Generator) -> Predictions:
    """Similar predictions, as of a twin."""
    parts = vars(predictions).values()
    noise = [
        size * torch.randn(p.shape, generator=generator)
        for p, size in zip(parts, (0.7, 0.03), strict=True)
    ]
    return Predictions(
        predictions.logits + noise[0], (predictions.boxes + noise[1]).clamp(min=0.05)
    )


def decoded(group: QueryGroup, predictions: Predictions, generator: torch.Generator) -> GroupOutput:
    stages = [group.queries]
    for boxes in predictions.boxes:
        content = torch.randn(group.queries.content.shape, generator=generator)
        stages.append(QuerySet(content, boxes.detach(), group.queries.position))
    return GroupOutput(group, tuple(stages), predictions)


def take_step(
    encoded_batches: Encodeds, options: TrainOptions, seed: int, make_targets: MakeTargets
) -> Taken:
    """Runs the recipe's objectives on random predictions of its groups.

    The leaves get their gradients.
    """
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    targets = make_targets(COUNTS[seed % len(COUNTS)], CLASSES, seed)
    detector, encoded = encoded_batches(options.model)
    recipe = make_recipe(options, detector)
    twins = {"main": predicted(targets, QUERIES, LAYERS, generator)}
    if options.model == DINO:
        twins["encoder"] = predicted(targets, QUERIES, 1, generator)

    def decode(predictions: dict[str, Predictions]) -> list[GroupOutput]:
        return [
            decoded(QueryGroup(name, encoded.queries, own=True), p, generator)
            for name, p in predictions.items()
        ]

    taught = Outputs.of(decode({name: moved(p, generator) for name, p in twins.items()}))
    matches = Matches(taught.groups.values(), targets, recipe.cost)
    outputs = decode(twins)
    consulted = Taught(taught, matches) if options.distils else None
    groups = detector.own_groups(targets)
    for objective in recipe.objectives:
        groups += objective.query_groups(encoded.queries, consulted, targets)
    for group in groups:
        size = len(group.queries)
        near = moved(taught["main"].predictions, generator) if size == QUERIES else None
        outputs.append(
            decoded(group, near or predicted(targets, size, LAYERS, generator), generator)
        )
    for leaf in leaves_of(outputs):
        leaf.requires_grad_()
    step = Step(
        Answer(Outputs.of(outputs), match(outputs, targets, recipe.cost)),
        Answer(taught, matches.result()) if options.distils else None,
        Truth(targets, target_count(targets)),
    )
    terms = joined(objective.losses(step) for objective in recipe.objectives)
    total(terms).backward()
    return Taken(options, targets, taught, step.student.outputs, terms)


# ---- the same step, transcribed ------------------------------------------------------------------


class Transcribed:
    """The terms of a step by the transcription's rules, on float64 copies of its predictions."""

    def __init__(self, step: Taken) -> None:
        self.step, self.options = step, step.options
        self.plain = self.options.recipe == "baseline"
        self.kind, self.eps = self.options.match.cost, self.options.architecture.eps
        self.nb = max(1, len(step.targets))
        self.leaves = {
            name: tuple(
                part.detach().double().requires_grad_()
                for part in vars(output.predictions).values()
            )
            for name, output in step.outputs.groups.items()
        }
        self.truths = [
            transcription.Truth(
                step.targets.boxes[start : start + size].tolist(),
                step.targets.labels[start : start + size].tolist(),
            )
            for start, size in zip(step.targets.starts, step.targets.counts, strict=True)
        ]

    def settings(self, loss: str = "qfl") -> LossSettings:
        qfl, own = self.options.qfl, self.options.architecture.class_weight
        hard = self.plain or "focal" in (loss, qfl.loss)
        chosen = partial(transcription.qfl, alpha=qfl.alpha, gamma=qfl.gamma)
        if hard:
            usual = self.plain or loss == "focal"  # which no switch of the QFL bends
            shape = (
                {}
                if usual
                else {"alpha": 0.25 if qfl.alpha is None else qfl.alpha, "gamma": qfl.gamma}
            )
            chosen = partial(transcription.focal, **shape)
        weight = own if self.plain or qfl.class_weight is None else qfl.class_weight
        return LossSettings(chosen, hard, weight, 5.0, 2.0, self.eps)

    def seen(self, logits: torch.Tensor, boxes: torch.Tensor, **known) -> list[list[Seen]]:
        """Every layer's images, matched unless they are known to be otherwise."""
        layers = [
            [Seen(z, b, truth, **known) for z, b, truth in zip(*layer, self.truths, strict=True)]
            for layer in zip(logits, boxes, strict=True)
        ]
        return [
            [transcription.solved(seen, self.eps, self.kind) for seen in layer] for layer in layers
        ]

    def student(self, name: str) -> list[list[Seen]]:
        return self.seen(*self.leaves[name])

    def teacher(self, name: str) -> list[list[Seen]]:
        predictions = self.step.taught[name].predictions
        return self.seen(predictions.logits.double(), predictions.boxes.double())

    def terms(self) -> dict[str, torch.Tensor]:
        named: dict[str, list] = {"matching": self.main("main", self.settings())}
        if self.options.model == DINO:
            proposals = self.settings(self.options.encoder.loss)
            distilled = self.options.distils and self.options.encoder.md
            named["encoder"] = (
                self.main("encoder", proposals) if distilled else self.own("encoder", proposals)
            )
            named["denoising"] = self.denoising()
        if "prediction" in self.step.outputs:
            named["prediction"] = self.prediction()
        if "auxiliary" in self.step.outputs:
            named["auxiliary"] = self.auxiliary()
        return {
            f"{name}/{term}/{layer}": value
            for name, layers in named.items()
            for layer, terms in zip(count(1), layers)
            for term, value in terms.items()
        }

    def own(self, name: str, settings: LossSettings) -> list[dict]:
        return transcription.plain_terms(
            [[(s, s.match) for s in layer] for layer in self.student(name)], settings, self.nb
        )

    def main(self, name: str, settings: LossSettings) -> list[dict]:
        if not self.options.distils:
            return self.own(name, settings)
        student, teacher = self.student(name), self.teacher(name)
        layers = []
        for depth, images in enumerate(student):
            last = depth == len(student) - 1
            source = teacher[depth] if self.options.md.layer == "same" else teacher[-1]
            silent = self.options.md.layer == "final_only" and not last
            pairs = zip(images, source, strict=True)
            layers.append(
                [(seen, {} if silent else twin.match, twin.costs) for seen, twin in pairs]
            )
        return transcription.distilled_terms(layers, self.options.md, settings, self.nb)

    def denoising(self) -> list[dict]:
        """Positive slot k of every block answers for target k; averaged over the blocks."""
        blocks = self.step.outputs["denoising"].group.blocks
        size = 2 * max(1, self.step.targets.most)
        assert self.leaves["denoising"][0].shape[2] == blocks * size
        layers = []
        for logits, boxes in zip(*self.leaves["denoising"], strict=True):
            views = []
            for image, truth in enumerate(self.truths):
                for start in range(0, blocks * size, size):
                    own = Seen(
                        logits[image, start : start + size],
                        boxes[image, start : start + size],
                        truth,
                    )
                    views.append((own, {slot: slot for slot in range(len(truth.labels))}))
            layers.append(views if self.step.targets.most else [])
        return transcription.plain_terms(
            layers, self.settings(self.options.denoising.loss), self.nb, 1 / blocks
        )

    def prediction(self) -> list[dict]:
        group, teacher, main = (
            self.student("prediction"),
            self.teacher("main"),
            self.student("main"),
        )
        if self.options.query_prior.on:
            source = teacher if self.options.query_prior.match == "teacher" else group
            layers = [
                [(s, m.match) for s, m in zip(*layer, strict=True)]
                for layer in zip(group, source, strict=True)
            ]
            return transcription.plain_terms(layers, self.settings(), self.nb)
        layers = [
            list(zip(*layer, strict=True)) for layer in zip(group, teacher, main, strict=True)
        ]
        gamma = self.options.qfl.gamma
        return transcription.prediction_terms(
            layers, self.options.pd, self.settings(), self.nb, gamma
        )

    def auxiliary(self) -> list[dict]:
        """Groups as they were taken (what is taken has its own test), each an image of its own."""
        rule, group = self.options.ag, self.step.outputs["auxiliary"].group
        stages = rule.stages or range(1, LAYERS + 1)
        origin, empty = (
            part.unflatten(1, (len(stages), -1)).tolist() for part in (group.origin, group.padding)
        )
        logits, boxes = (part.unflatten(2, (len(stages), -1)) for part in self.leaves["auxiliary"])
        teacher, layers = self.teacher("main"), []
        for layer in range(LAYERS):
            views = []
            for image, truth in enumerate(self.truths):
                for block, stage in enumerate(stages):
                    slots, holes = origin[image][block], empty[image][block]
                    part = (layer, image, block)
                    seen = Seen(logits[part], boxes[part], truth, empty=holes)
                    views.append(self.auxiliary_view(seen, slots, teacher[stage - 1][image]))
            layers.append(views)
        scale = rule.weight / (len(stages) if rule.reduce == "mean" else 1)
        if rule.match == "md":
            return transcription.distilled_terms(
                layers, self.options.md, self.settings(), self.nb, scale, blocks=len(stages)
            )
        kept = [
            [(s, original if rule.match == "original" else s.match) for s, original, _ in v]
            for v in layers
        ]
        return transcription.plain_terms(kept, self.settings(), self.nb, scale)

    def auxiliary_view(
        self, seen: Seen, slots: list[int], teacher: Seen
    ) -> tuple[Seen, dict, list]:
        """The group's own matching, and the teacher's among the queries that were taken."""
        transcription.solved(seen, self.eps, self.kind)
        held = [(query, slot) for slot, query in enumerate(slots) if not seen.empty[slot]]
        place = dict(reversed(held))  # of a query's copies the first
        original = {
            place[query]: target for query, target in teacher.match.items() if query in place
        }
        return seen, original, [[row[query] for query in slots] for row in teacher.costs]


# ---- the comparison ------------------------------------------------------------------------------


def compare(step: Taken) -> None:
    transcribed = Transcribed(step)
    wanted = transcribed.terms()
    assert step.terms.keys() == wanted.keys()
    for name, value in wanted.items():
        assert_close(
            step.terms[name].detach().double(),
            value.detach().double(),
            rtol=2e-4,
            atol=2e-5,
            msg=name,
        )
    sum(wanted.values()).backward()
    twins = [leaf for leaves in transcribed.leaves.values() for leaf in leaves]
    for ours, theirs in zip(step.leaves, twins, strict=True):
        missing = torch.zeros_like(theirs)
        grad = missing if theirs.grad is None else theirs.grad
        ours_grad = missing.float() if ours.grad is None else ours.grad
        assert_close(ours_grad, grad.float(), rtol=2e-3, atol=2e-5)
