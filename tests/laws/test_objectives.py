"""Every switch of the method against a loop-by-loop transcription of its rule: losses and gradients.

Predictions are random and targets crowded, so that queries are matched to two targets of one class and of two,
and targets to two queries. What is compared is the recipe that the options make, so that the options' way to the
objectives is checked too.
"""

from __future__ import annotations

import typing
from dataclasses import dataclass, field, fields, replace
from functools import cache, partial
from itertools import count

import pytest
import torch
import transcription
from torch.testing import assert_close
from transcription import Host, Seen, Truth

from od_detr.criteria.matching import match
from od_detr.detectors import Scene
from od_detr.objectives import Labels, total
from od_detr.options import TrainOptions
from od_detr.structures import GroupOutput, Outputs, Predictions, QueryGroup, QuerySet, Targets
from od_detr.training.recipe import make_recipe, target_count

DEFORMABLE, DAB, DINO = "deformable-detr-plus", "dab-deformable-detr", "dino-4scale"
LAYERS, QUERIES, CLASSES, DIM = 2, 6, 2, 32
COUNTS = ((3, 0, 5), (1, 4, 2), (7, 0, 1), (0, 0, 0))  # the third has an image with more targets than queries
SEEDS = 8

MD = [
    *({"md.layer": value} for value in ("last", "final_only")),
    *({"md.same_class": value} for value in ("max", "teacher")),
    {"md.teacher_only": False},
    {"md.cls_norm": "num_pos"},
    {"md.reg": False},
    *({"md.wd": value} for value in (0.0, 1.0)),
    *({"md.cost": value} for value in ("teacher", "own", "teacher_pair")),
    {"md.wd_cls": True},
    {"md.wd_cls": True, "md.wd_cls_mode": "target"},
    {"md.wd_cls": True, "md.teacher_only": False, "md.cost": "teacher_pair"},
    {"md.wd_cls": True, "md.wd": 0.0},
    {"md.cond_iou": 0.5},
    {"md.cond_iou": 0.5, "md.cond_own": True},
    {"md.cond_iou": 0.5, "md.same_class": "teacher"},
    {"md.cond_iou": 0.5, "md.cond_own": True, "md.same_class": "max"},
    {"md.layer": "last", "md.cost": "own", "md.same_class": "max"},
    {"md.layer": "final_only", "md.cost": "teacher", "md.wd_cls": True},
]
PD = [
    {"pd.tood": False},
    {"pd.tood_norm": True},
    {"pd.listen2stu": False},
    {"pd.iou_from": "main"},
    {"pd.cls_scope": "matched"},
    {"pd.other_entries": "zero"},
    *({"pd.norm": value} for value in ("sum_w", "sum_y", "queries")),
    *({"pd.reg_unmatched": value} for value in ("max_score", "one")),
    {"pd.tood": False, "pd.listen2stu": False, "pd.reg_unmatched": "one"},  # naive distillation
    {"pd.tood": False, "pd.listen2stu": False, "pd.reg_unmatched": "one", "pd.norm": "queries"},
    {"pd.tood": False, "pd.other_entries": "zero", "pd.norm": "sum_w"},
    {"qfl.gamma": 1.5},
    {"qpad.on": True},
    {"qpad.on": True, "qpad.match": "rematch"},
]
AG = [
    *({"ag.stages": value} for value in ((1,), (2,))),
    *({"ag.dup": value} for value in ("keep", "disjoint")),
    {"ag.include_matched": True},
    {"ag.include_matched": True, "ag.dup": "keep"},
    {"ag.include_matched": True, "ag.dup": "disjoint"},
    {"ag.max_queries": 3},
    {"ag.max_queries": 2, "ag.dup": "keep"},
    {"ag.max_queries": 3, "ag.dup": "disjoint"},
    *({"ag.match": value} for value in ("original", "rematch")),
    {"ag.reduce": "sum"},
    {"ag.weight": 0.5},
    {"md.cls_norm": "num_pos"},
    {"md.cls_norm": "num_pos", "ag.reduce": "sum"},
    {"md.cond_iou": 0.5, "md.wd_cls": True},
]
HOSTS = [
    {"qfl.lambda_": 3.0},
    {"qfl.alpha": 0.25},
    {"qfl.gamma": 1.5},
    {"enc.loss": "focal"},
    {"enc.md": True},
    {"dn.loss": "focal"},
    {"match.cost": "stable"},
]
SETTINGS = [
    *(("md", DEFORMABLE, setting) for setting in MD),
    *(("md+pd", DEFORMABLE, setting) for setting in PD),
    *(("md+ag", DEFORMABLE, setting) for setting in AG),
    *(("md", DINO, setting) for setting in HOSTS),
]


def options(recipe: str, model: str, setting: dict) -> TrainOptions:
    made = TrainOptions(data="", recipe=recipe, model=model)
    for name, value in setting.items():
        group, switch = name.split(".")
        made = replace(made, **{group: replace(getattr(made, group), **{switch: value})})
    return made


# ---- a step without a detector: random predictions of every group ----------------------------------------------


@dataclass
class Step:
    """What one step's objectives are given, and what they make of it."""

    options: TrainOptions
    targets: Targets
    taught: Outputs
    outputs: Outputs = field(default_factory=Outputs)
    terms: dict = field(default_factory=dict)

    @property
    def leaves(self) -> list[torch.Tensor]:
        return [part for out in self.outputs.groups.values() for part in vars(out.predictions).values()]


@pytest.fixture(scope="module")
def scenes(make_detector, make_batch):
    """A detector and what it sees, once for each host; objectives ask it for queries only."""

    @cache
    def scene(model: str):
        extra = {"denoising": 1} if model == DINO else {}
        detector = make_detector(model, CLASSES, decoder_layers=LAYERS, queries=QUERIES, **extra)
        with torch.no_grad():
            return detector, detector.encode(make_batch((1, 1, 1), CLASSES))

    return scene


def predicted(targets: Targets, queries: int, layers: int, generator: torch.Generator) -> Predictions:
    """Boxes near the targets, or anywhere in an image without any."""
    boxes = 0.3 + 0.4 * torch.rand(layers, len(targets.counts), queries, 4, generator=generator)
    for image, (start, size) in enumerate(zip(targets.starts, targets.counts, strict=True)):
        if size:
            near = targets.boxes[start + torch.randint(size, (layers, queries), generator=generator)]
            boxes[:, image] = 0.2 * boxes[:, image] + 0.8 * near
    logits = torch.randn(layers, len(targets.counts), queries, CLASSES, generator=generator)
    return Predictions(logits, boxes)


def moved(predictions: Predictions, generator: torch.Generator) -> Predictions:
    """What a twin would say: much the same."""
    parts = vars(predictions).values()
    noise = [size * torch.randn(p.shape, generator=generator) for p, size in zip(parts, (0.7, 0.03), strict=True)]
    return Predictions(predictions.logits + noise[0], (predictions.boxes + noise[1]).clamp(min=0.05))


def decoded(group: QueryGroup, predictions: Predictions, generator: torch.Generator) -> GroupOutput:
    stages = [group.queries]
    for boxes in predictions.boxes:
        content = torch.randn(group.queries.content.shape, generator=generator)
        stages.append(QuerySet(content, boxes.detach(), group.queries.position))
    return GroupOutput(group, stages, predictions)


def take_step(scenes, options: TrainOptions, seed: int, make_targets) -> Step:
    """Runs the recipe's objectives on random predictions of its groups; the leaves get their gradients."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    targets = make_targets(COUNTS[seed % len(COUNTS)], CLASSES, seed)
    detector, scene = scenes(options.model)
    recipe = make_recipe(options)
    twins = {"main": predicted(targets, QUERIES, LAYERS, generator)}
    if options.model == DINO:
        twins["encoder"] = predicted(targets, QUERIES, 1, generator)

    def groups(predictions: dict[str, Predictions], scene: Scene) -> Outputs:
        return Outputs(
            {name: decoded(QueryGroup(name, scene.queries), p, generator) for name, p in predictions.items()}
        )

    taught = groups({name: moved(p, generator) for name, p in twins.items()}, scene)
    match(list(taught.groups.values()), targets, recipe.cost)
    step = Step(options, targets, taught, groups(twins, scene))
    consulted = taught if options.distils else None
    for objective in recipe.objectives:
        for group in objective.query_groups(detector, scene, consulted, targets):
            size = len(group.queries)
            near = moved(taught["main"].predictions, generator) if size == QUERIES else None
            chosen = near or predicted(targets, size, LAYERS, generator)
            step.outputs.groups[group.name] = decoded(group, chosen, generator)
    for leaf in step.leaves:
        leaf.requires_grad_()
    match(list(step.outputs.groups.values()), targets, recipe.cost)
    labels = Labels(targets, target_count(targets))
    for objective in recipe.objectives:
        step.terms |= objective.losses(step.outputs, consulted, labels)
    total(step.terms).backward()
    return step


# ---- the same step, transcribed --------------------------------------------------------------------------------


class Transcribed:
    """The terms of a step by the transcription's rules, over float64 twins of the step's predictions."""

    def __init__(self, step: Step) -> None:
        self.step, self.options = step, step.options
        self.plain = self.options.recipe == "baseline"
        self.kind, self.eps = self.options.match.cost, self.options.host.eps
        self.nb = max(1, len(step.targets))
        self.leaves = {
            name: tuple(part.detach().double().requires_grad_() for part in vars(output.predictions).values())
            for name, output in step.outputs.groups.items()
        }
        self.truths = [
            Truth(step.targets.boxes[start : start + size].tolist(), step.targets.labels[start : start + size].tolist())
            for start, size in zip(step.targets.starts, step.targets.counts, strict=True)
        ]

    def host(self, loss: str = "qfl") -> Host:
        qfl, own = self.options.qfl, self.options.host.class_weight
        hard = self.plain or loss == "focal"
        chosen = transcription.focal if hard else partial(transcription.qfl, alpha=qfl.alpha, gamma=qfl.gamma)
        weight = own if self.plain or qfl.lambda_ is None else qfl.lambda_
        return Host(chosen, hard, weight, 5.0, 2.0, self.eps)

    def seen(self, logits: torch.Tensor, boxes: torch.Tensor, **known) -> list[list[Seen]]:
        """Every layer's images, matched unless they are known to be otherwise."""
        layers = [
            [Seen(z, b, truth, **known) for z, b, truth in zip(*layer, self.truths, strict=True)]
            for layer in zip(logits, boxes, strict=True)
        ]
        return [[transcription.solved(seen, self.eps, self.kind) for seen in layer] for layer in layers]

    def student(self, name: str) -> list[list[Seen]]:
        return self.seen(*self.leaves[name])

    def teacher(self, name: str) -> list[list[Seen]]:
        predictions = self.step.taught[name].predictions
        return self.seen(predictions.logits.double(), predictions.boxes.double())

    def terms(self) -> dict[str, torch.Tensor]:
        named: dict[str, list] = {"matching": self.main("main", self.host())}
        if self.options.model == DINO:
            proposals = self.host(self.options.enc.loss)
            distilled = self.options.distils and self.options.enc.md
            named["encoder"] = self.main("encoder", proposals) if distilled else self.own("encoder", proposals)
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

    def own(self, name: str, host: Host) -> list[dict]:
        return transcription.plain_terms([[(s, s.match) for s in layer] for layer in self.student(name)], host, self.nb)

    def main(self, name: str, host: Host) -> list[dict]:
        if not self.options.distils:
            return self.own(name, host)
        student, teacher = self.student(name), self.teacher(name)
        layers = []
        for depth, images in enumerate(student):
            last = depth == len(student) - 1
            source = teacher[depth] if self.options.md.layer == "same" else teacher[-1]
            silent = self.options.md.layer == "final_only" and not last
            pairs = zip(images, source, strict=True)
            layers.append([(seen, {} if silent else twin.match, twin.costs) for seen, twin in pairs])
        return transcription.distilled_terms(layers, self.options.md, host, self.nb)

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
                    own = Seen(logits[image, start : start + size], boxes[image, start : start + size], truth)
                    views.append((own, {slot: slot for slot in range(len(truth.labels))}))
            layers.append(views if self.step.targets.most else [])
        return transcription.plain_terms(layers, self.host(self.options.dn.loss), self.nb, 1 / blocks)

    def prediction(self) -> list[dict]:
        group, teacher, main = self.student("prediction"), self.teacher("main"), self.student("main")
        if self.options.qpad.on:
            source = teacher if self.options.qpad.match == "teacher" else group
            layers = [[(s, m.match) for s, m in zip(*layer, strict=True)] for layer in zip(group, source, strict=True)]
            return transcription.plain_terms(layers, self.host(), self.nb)
        layers = [list(zip(*layer, strict=True)) for layer in zip(group, teacher, main, strict=True)]
        gamma = self.options.qfl.gamma
        return transcription.prediction_terms(layers, self.options.pd, self.host(), self.nb, gamma)

    def auxiliary(self) -> list[dict]:
        """Groups as they were taken (what is taken has its own test), each an image of its own."""
        rule, group = self.options.ag, self.step.outputs["auxiliary"].group
        stages = rule.stages or range(1, LAYERS + 1)
        origin, empty = (part.unflatten(1, (len(stages), -1)).tolist() for part in (group.origin, group.padding))
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
                layers, self.options.md, self.host(), self.nb, scale, blocks=len(stages)
            )
        kept = [[(s, original if rule.match == "original" else s.match) for s, original, _ in v] for v in layers]
        return transcription.plain_terms(kept, self.host(), self.nb, scale)

    def auxiliary_view(self, seen: Seen, slots: list[int], teacher: Seen) -> tuple[Seen, dict, list]:
        """The group's own matching, and the teacher's among the queries that were taken."""
        transcription.solved(seen, self.eps, self.kind)
        held = [(query, slot) for slot, query in enumerate(slots) if not seen.empty[slot]]
        place = dict(reversed(held))  # of a query's copies the first
        original = {place[query]: target for query, target in teacher.match.items() if query in place}
        return seen, original, [[row[query] for query in slots] for row in teacher.costs]


# ---- laws -----------------------------------------------------------------------------------------------------


def name_of(value: object) -> str | None:
    return " ".join(f"{key}={part}" for key, part in value.items()) if isinstance(value, dict) else None


def compare(step: Step) -> None:
    transcribed = Transcribed(step)
    wanted = transcribed.terms()
    assert step.terms.keys() == wanted.keys()
    for name, value in wanted.items():
        assert_close(step.terms[name].detach().double(), value.detach().double(), rtol=2e-4, atol=2e-5, msg=name)
    sum(wanted.values()).backward()
    twins = [leaf for leaves in transcribed.leaves.values() for leaf in leaves]
    for ours, theirs in zip(step.leaves, twins, strict=True):
        missing = torch.zeros_like(theirs)
        grad = missing if theirs.grad is None else theirs.grad
        ours_grad = missing.float() if ours.grad is None else ours.grad
        assert_close(ours_grad, grad.float(), rtol=2e-3, atol=2e-5)


@pytest.mark.parametrize("model", [DEFORMABLE, DAB, DINO])
@pytest.mark.parametrize("recipe", ["baseline", "qfl", "md", "md+pd", "md+ag", "od"])
def test_every_recipe_is_its_rule(scenes, make_targets, recipe, model) -> None:
    for seed in range(4):
        compare(take_step(scenes, options(recipe, model, {}), seed, make_targets))


@pytest.mark.parametrize(("recipe", "model", "setting"), SETTINGS, ids=name_of)
def test_every_switch_is_its_rule_and_matters(scenes, make_targets, recipe, model, setting) -> None:
    chosen, default, matters = options(recipe, model, setting), options(recipe, model, {}), False
    for seed in range(SEEDS):
        step = take_step(scenes, chosen, seed, make_targets)
        usual = take_step(scenes, default, seed, make_targets)
        matters |= abs(total(step.terms) - total(usual.terms)) > 1e-4
        if seed < 4:
            compare(step)
    assert matters


def test_every_value_of_every_switch_is_tried() -> None:
    tried = {(name, value) for _, _, setting in SETTINGS for name, value in setting.items()}
    elsewhere = {"pd.pe", "pd.ref", "ag.ref", "ag.pe"}  # what groups start from, below
    for group in ("md", "pd", "qpad", "ag", "enc", "dn", "qfl"):
        switches = getattr(options("od", DINO, {}), group)
        hints = typing.get_type_hints(type(switches))
        for switch in fields(switches):
            name, default = f"{group}.{switch.name}", getattr(switches, switch.name)
            values = {v for known, v in tried if known == name}
            if name in elsewhere:
                continue
            assert values - {default}, name
            if typing.get_origin(hints[switch.name]) is typing.Literal:
                assert values | {default} == set(typing.get_args(hints[switch.name])), name


@pytest.mark.parametrize(
    "setting", [{}, *(setting for setting in AG if any(name.startswith("ag.") for name in setting))], ids=name_of
)
def test_auxiliary_groups_take_the_cheapest_queries_of_every_stage(scenes, make_targets, setting) -> None:
    chosen = options("md+ag", DEFORMABLE, setting)
    for seed in range(SEEDS):
        step = take_step(scenes, chosen, seed, make_targets)
        if step.targets.most == 0:
            assert "auxiliary" not in step.outputs
            continue
        teacher, group = Transcribed(step).teacher("main"), step.outputs["auxiliary"].group
        stages = chosen.ag.stages or range(1, LAYERS + 1)
        origin, empty = (part.unflatten(1, (len(stages), -1)).tolist() for part in (group.origin, group.padding))
        for image in range(len(step.targets.counts)):
            for block, stage in enumerate(stages):
                slots = zip(origin[image][block], empty[image][block], strict=True)
                wanted = transcription.selected_queries(teacher[stage - 1][image], chosen.ag)
                assert sorted(query for query, hole in slots if not hole) == wanted


@pytest.mark.parametrize("pe", ["teacher_index", "sine"])
@pytest.mark.parametrize("ref", ["auto", "center", "box"])
@pytest.mark.parametrize("model", [DEFORMABLE, DAB])
def test_auxiliary_queries_start_from_what_left_the_stage(scenes, make_targets, model, ref, pe) -> None:
    step = take_step(scenes, options("md+ag", model, {"ag.ref": ref, "ag.pe": pe}), 0, make_targets)
    teacher, group = step.taught["main"], step.outputs["auxiliary"].group
    origin = group.origin.unflatten(1, (LAYERS, -1))
    centre = ref == "center" or (ref == "auto" and model == DEFORMABLE)
    for image, block in torch.cartesian_prod(torch.arange(len(step.targets.counts)), torch.arange(LAYERS)).tolist():
        for slot, query in enumerate(origin[image, block].tolist()):
            place = (image, block * origin.shape[2] + slot)
            box = teacher.predictions.boxes[block, image, query]
            wanted = torch.cat([box[:2], torch.zeros(2)]) if centre else box
            assert torch.equal(group.queries.content[place], teacher.queries[block + 1].content[image, query])
            assert torch.equal(group.queries.anchors[place], wanted)
            if model == DAB:
                assert group.queries.position is None
            elif pe == "teacher_index":
                assert torch.equal(group.queries.position[place], teacher.queries[0].position[image, query])
            else:
                sine = transcription.sine_of_point(*box[:2].tolist(), DIM)
                assert_close(group.queries.position[place], torch.tensor(sine), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pe", ["teacher", "student"])
@pytest.mark.parametrize("ref", ["teacher", "student"])
@pytest.mark.parametrize("model", [DEFORMABLE, DAB, DINO])
def test_prediction_queries_are_the_teachers_but_for_what_is_asked_of_the_student(
    scenes, make_detector, make_batch, make_targets, model, ref, pe
) -> None:
    detector, own = scenes(model)
    taught = make_detector(model, CLASSES, 1, decoder_layers=LAYERS, queries=QUERIES)(make_batch((1, 1, 1), CLASSES))
    recipe = make_recipe(options("md+pd", model, {"pd.pe": pe, "pd.ref": ref}))
    targets = make_targets((1, 1, 1), CLASSES)
    groups = [group for o in recipe.objectives for group in o.query_groups(detector, own, taught, targets)]
    (group,) = (group for group in groups if group.name == "prediction")
    theirs = taught["main"].queries[0]
    assert not torch.equal(own.queries.anchors, theirs.anchors)
    assert torch.equal(group.queries.content, theirs.content) and not group.queries.content.requires_grad
    assert torch.equal(group.queries.anchors, (theirs if ref == "teacher" else own.queries).anchors)
    if model == DEFORMABLE:
        assert torch.equal(group.queries.position, (theirs if pe == "teacher" else own.queries).position)
    else:
        assert group.queries.position is None
    assert group.sees == () and group.padding is None and not group.matched
