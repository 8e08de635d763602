"""What online distillation promises with every architecture, tried on whole detectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from tests.objectives.steps import options
from torch.testing import assert_close

from od_detr.criteria.matching import MatchCost, match
from od_detr.detectors import DetectionTransformer
from od_detr.nn.attention import GroupLayout, SelfAttention
from od_detr.objectives import (
    Answer,
    ClassLoss,
    LossWeights,
    PredictionDistillation,
    SetPrediction,
    Step,
    Truth,
    joined,
    matching_distillation,
    total,
)
from od_detr.objectives.matching_distillation import PairView
from od_detr.options import MatchingSwitches
from od_detr.structures import (
    Batch,
    GroupOutput,
    Matched,
    Matching,
    Outputs,
    Predictions,
    QueryGroup,
    QuerySet,
    Targets,
)
from od_detr.training.recipe import make_recipe
from od_detr.training.teacher import Teacher

ARCHITECTURES = ("deformable-detr-plus", "dab-deformable-detr", "dino-4scale", "dino-5scale")
CLOSE = {"rtol": 1e-4, "atol": 1e-5}
every_model = pytest.mark.parametrize("model", ARCHITECTURES)


def taught_step(
    student: DetectionTransformer,
    batch: Batch,
    model: str,
    recipe: str = "od",
    teacher: DetectionTransformer | None = None,
    **switches,
) -> tuple[dict, Answer, Answer]:
    """Terms, the student's answer and the teacher's.

    The teacher is the student's twin unless another is given.
    """
    torch.manual_seed(0)
    made = make_recipe(options(recipe, model, switches), student, Teacher(teacher or student))
    step = made.step(student, batch)
    assert step.teacher is not None
    return (
        joined(objective.losses(step) for objective in made.objectives),
        step.student,
        step.teacher,
    )


# ---- teacher = student ---------------------------------------------------------------------------


@every_model
def test_a_twin_teacher_changes_nothing(make_detector, make_batch, model) -> None:
    """Equal weights and no dropout: both matchings agree.

    MD is then plain QFL with one-to-one regression, PD repeats the main group, and the strict
    indicator leaves no box to distil.
    """
    student, batch = make_detector(model).eval(), make_batch((3, 0, 5))
    terms, answer, taught = taught_step(student, batch, model, "md+pd")
    (main, (matching, _)), (_, (twin, _)) = answer["main"], taught["main"]
    echo = answer.outputs["prediction"]
    for ours, theirs in zip(matching, twin, strict=True):
        assert torch.equal(ours, theirs)
    assert len(matching.query) == main.num_layers * len(batch.targets)
    settings = options("md", model, {})
    weights = LossWeights(settings.architecture.class_weight, eps=settings.architecture.eps)
    plain = SetPrediction(weights=weights, class_loss=ClassLoss("qfl"))
    wanted = plain.supervise(main, matching, Truth(batch.targets, float(len(batch.targets))))
    for name, value in wanted.items():
        assert torch.equal(terms[name], value), name
    for part in ("logits", "boxes"):
        assert_close(getattr(echo.predictions, part), getattr(main.predictions, part), **CLOSE)
    for name, value in terms.items():
        if name.startswith(("prediction/l1", "prediction/giou")):
            assert abs(value) < 1e-5, name


# ---- isolation -----------------------------------------------------------------------------------


@pytest.mark.slow(shapes=True)
@every_model
def test_extra_groups_never_change_the_main_group(make_detector, make_batch, model) -> None:
    student, batch = make_detector(model).eval(), make_batch((3, 0, 5))
    _, answer, _ = taught_step(student, batch, model, "od", make_detector(model, seed=1))
    outputs = answer.outputs
    names = {"main", "prediction", "auxiliary"} | (
        {"encoder", "denoising"} if model.startswith("dino") else set()
    )
    assert set(outputs.groups) == names
    padding = outputs["auxiliary"].group.padding
    assert padding.any()
    assert not padding.all()
    with torch.no_grad():
        alone = student(batch)["main"]
    for part in ("logits", "boxes"):
        assert_close(
            getattr(outputs["main"].predictions, part).detach(),
            getattr(alone.predictions, part),
            rtol=1e-5,
            atol=1e-6,
        )


@pytest.mark.slow(shapes=True)
@every_model
def test_permuting_auxiliary_groups_permutes_their_outputs(
    make_detector, make_batch, model
) -> None:
    student, batch = make_detector(model).eval(), make_batch((3, 0, 5))
    _, answer, _ = taught_step(student, batch, model, "md+ag", make_detector(model, seed=1))
    outputs = answer.outputs
    group, order = outputs["auxiliary"].group, torch.tensor([2, 0, 1])
    slots = torch.arange(len(group.queries)).view(group.blocks, -1)[order].flatten()
    index = slots.expand(len(batch.targets.counts), -1)
    permuted = replace(group, queries=group.queries.take(index), padding=group.padding[:, slots])
    with torch.no_grad():
        again = student.decode(student.encode(batch), [permuted])["auxiliary"]
    shown = ~permuted.padding
    for part in ("logits", "boxes"):
        before = getattr(outputs["auxiliary"].predictions, part).detach()[:, :, slots]
        assert_close(getattr(again.predictions, part)[:, shown], before[:, shown], **CLOSE)


def dino_rule(
    main: int, denoising: tuple[int, int], others: list[tuple[int, list[bool]]]
) -> torch.Tensor:
    """Who sees whom as DINO masks it: [main | denoising blocks | other groups], True where seen.

    Denoising queries see their own block and the main queries, and no one sees them; every other
    group is blind to the rest, and real queries do not see empty slots, which see at least
    themselves.
    """
    blocks, size = denoising
    total_size = main + blocks * size + sum(len(holes) for _, holes in others)
    sees = torch.zeros(total_size, total_size, dtype=torch.bool)
    sees[:main, :main] = True
    start = main
    for _ in range(blocks):
        sees[start : start + size, start : start + size] = sees[start : start + size, :main] = True
        start += size
    for parts, holes in others:
        shown = ~torch.tensor(holes)
        for span in torch.arange(start, start + len(holes)).chunk(parts):
            sees[span[:, None], span[None]] = shown[span - start][None]
        start += len(holes)
    return sees | torch.eye(total_size, dtype=torch.bool)


@pytest.mark.parametrize("seed", range(12))
def test_groups_see_what_dinos_mask_shows_for_any_sizes(seed) -> None:
    """What a query sees is what its output depends on."""
    generator = torch.Generator().manual_seed(seed)
    main, blocks, size, parts, slots, prediction = (
        torch.randint(1, 5, (6,), generator=generator)
    ).tolist()
    holes = (torch.rand(parts * slots, generator=generator) < 0.4).tolist()

    def empty(count: int) -> QuerySet:
        return QuerySet(torch.zeros(1, count, 4), torch.zeros(1, count, 4))

    groups = [
        QueryGroup("main", empty(main)),
        QueryGroup("denoising", empty(blocks * size), blocks, sees=("main",)),
        QueryGroup("prediction", empty(prediction)),
        QueryGroup("auxiliary", empty(parts * slots), parts, padding=torch.tensor([holes])),
    ]
    wanted = dino_rule(main, (blocks, size), [(1, [False] * prediction), (parts, holes)])
    attention, layout = SelfAttention(4, 1, dropout=0.0).eval(), GroupLayout(groups)
    torch.manual_seed(seed)

    def attended(content: torch.Tensor) -> torch.Tensor:
        return attention(content[None], torch.zeros_like(content)[None], layout)[0].sum(-1)

    reach = torch.autograd.functional.jacobian(attended, torch.randn(len(wanted), 4)).abs().sum(-1)
    assert torch.equal(reach > 0, wanted)


# ---- labels and weights --------------------------------------------------------------------------


@pytest.mark.slow(shapes=True)
@pytest.mark.parametrize("cost", ["student", "teacher", "own", "teacher_pair"])
def test_every_target_has_one_or_two_regression_queries(make_detector, make_batch, cost) -> None:
    """No query has two targets, and of a target's two queries exactly one weighs w_d."""
    doubled = 0
    for seed in range(4):
        student, teacher = (make_detector(ARCHITECTURES[1], seed=seed + k).eval() for k in (0, 1))
        batch = make_batch((3, 0, 5), seed=seed)
        _, answer, taught = taught_step(student, batch, ARCHITECTURES[1], "md", teacher)
        main, own = answer["main"]
        distillation = matching_distillation(MatchingSwitches(cost=cost), SetPrediction())
        twin = distillation.align_layers(taught, main, "main")
        view = PairView.of(main, own.matching, twin, batch.targets)
        weights = distillation.box_weights(main, own, twin, view, batch.targets)
        pairs = [
            list(zip(*(part.tolist() for part in m), strict=True))
            for m in (own.matching, twin.matching)
        ]
        held = [
            (view, query, target, round(weight, 4))
            for rows, values in zip(pairs, weights, strict=True)
            for (view, query, target), weight in zip(rows, values.tolist(), strict=True)
            if weight
        ]
        assert len({row[:2] for row in held}) == len(held)
        for view in range(main.num_layers * len(batch.targets.counts)):
            for target in (
                (batch.targets.image == view % len(batch.targets.counts))
                .nonzero()
                .flatten()
                .tolist()
            ):
                found = sorted(weight for v, _, t, weight in held if (v, t) == (view, target))
                assert found in ([1.0], [0.51, 1.0])
                doubled += len(found) == 2
    assert doubled


def test_a_tie_of_costs_is_the_students() -> None:
    targets = Targets(torch.tensor([[0.5, 0.5, 0.2, 0.2]]), torch.tensor([0]), (1,))
    queries = QuerySet(torch.zeros(1, 2, 1), torch.zeros(1, 2, 4))
    boxes = torch.tensor([0.5, 0.5, 0.3, 0.2]).expand(1, 1, 2, 4)
    same = Predictions(torch.zeros(1, 1, 2, 2), boxes)
    output = GroupOutput(QueryGroup("main", queries), (queries,), same)
    costs = match([output], targets, MatchCost())["main"].costs
    own, others = (
        Matched(Matching(torch.tensor([0]), torch.tensor([query]), torch.tensor([0])), costs)
        for query in range(2)
    )
    for cost in ("student", "teacher", "own"):
        distillation = matching_distillation(MatchingSwitches(cost=cost), SetPrediction())
        taught = Answer(Outputs.of([output]), {"main": others})
        twin = distillation.align_layers(taught, output, "main")
        view = PairView.of(output, own.matching, twin, targets)
        assert view.own_target.tolist() == [-1]
        assert view.rival.tolist() == [0]
        weights = distillation.box_weights(output, own, twin, view, targets)
        assert weights.own.tolist() == [1.0]
        assert weights.teacher.tolist() == [pytest.approx(0.51)]


@pytest.mark.parametrize("shift", [0.125, 0.0625])
def test_a_box_as_good_as_the_teachers_is_not_distilled(shift) -> None:
    """Listen2stu asks for a strictly larger IoU: mirrored boxes tie, a nearer teacher wins."""
    targets = Targets(torch.tensor([[0.5, 0.5, 0.25, 0.25]]), torch.tensor([0]), (1,))
    queries = QuerySet(torch.zeros(1, 1, 1), torch.zeros(1, 1, 4))

    def predicting(name: str, x: float) -> Answer:
        boxes = torch.tensor([x, 0.5, 0.25, 0.25]).view(1, 1, 1, 4)
        predictions = Predictions(torch.zeros(1, 1, 1, 2), boxes)
        outputs = [GroupOutput(QueryGroup(name, queries), (queries,), predictions)]
        return Answer(Outputs.of(outputs), match(outputs, targets, MatchCost()))

    step = Step(
        predicting("prediction", 0.625), predicting("main", 0.5 - shift), Truth(targets, 1.0)
    )
    terms = PredictionDistillation().losses(step)
    assert (terms["prediction/l1/1"] > 0) == (shift < 0.125)


def test_labels_are_ious_and_at_most_two_a_query(make_detector, make_batch) -> None:
    two = 0
    for seed in range(4):
        student, teacher = (make_detector(ARCHITECTURES[0], seed=seed + k).eval() for k in (0, 1))
        batch = make_batch((3, 0, 5), seed=seed)
        _, answer, taught = taught_step(student, batch, ARCHITECTURES[0], "md", teacher)
        main, own = answer["main"]
        quality = SetPrediction(class_loss=ClassLoss("qfl"))
        distillation = matching_distillation(MatchingSwitches(), quality)
        twin = distillation.align_layers(taught, main, "main")
        view = PairView.of(main, own.matching, twin, batch.targets)
        labels = distillation.class_targets(main, own.matching, twin, view, batch.targets)
        dense = own.matching.targets_of_queries(*main.views.logits.shape[:2])
        assert not labels.requires_grad
        assert labels.min() >= 0
        assert labels.max() <= 1 + 1e-6
        counts = (labels > 0).sum(-1)
        assert counts.max() <= 2
        background = dense < 0
        background[twin.matching.view, twin.matching.query] = False
        assert not labels[background].any()
        two += int((counts == 2).sum())
    assert two


# ---- what trains ---------------------------------------------------------------------------------

BATCHES = {
    "crowd": (3, 0, 5),
    "no targets in an image": (0, 2, 0),
    "no targets": (0, 0, 0),
}


@pytest.mark.slow(shapes=True)
@pytest.mark.parametrize("counts", BATCHES.values(), ids=BATCHES)
@every_model
def test_every_batch_trains_every_weight_and_none_of_the_teachers(
    make_detector, make_batch, model, counts
) -> None:
    student, teacher = make_detector(model).train(), make_detector(model, seed=1)
    recipe = make_recipe(options("od", model, {}), student, Teacher(teacher))
    step = recipe.step(student, make_batch(counts))
    loss = total(joined(objective.losses(step) for objective in recipe.objectives))
    assert loss.isfinite()
    assert loss > 0
    loss.backward()
    for name, parameter in student.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
    for name, parameter in recipe.teacher.named_parameters():
        assert parameter.grad is None, name
        assert not parameter.requires_grad, name
    for output in step.teacher.outputs.groups.values():
        tensors = [
            *vars(output.predictions).values(),
            *(part for q in output.queries for part in vars(q).values()),
        ]
        assert not any(tensor.requires_grad for tensor in tensors if tensor is not None)


@pytest.mark.slow(shapes=True)
@every_model
def test_a_group_with_fewer_queries_than_targets_trains(make_detector, make_batch, model) -> None:
    """In a crowd the two cheapest queries of all targets can be the same two."""
    batch = make_batch((5, 0))
    same = Targets(
        batch.targets.boxes[:1].expand(5, 4).contiguous(), torch.zeros(5, dtype=torch.long), (5, 0)
    )
    student = make_detector(model).train()
    terms, answer, _ = taught_step(
        student, replace(batch, targets=same), model, "od", make_detector(model, seed=1)
    )
    auxiliary, (matching, _) = answer["auxiliary"]
    assert (~auxiliary.group.padding).sum() == 2 * auxiliary.group.blocks
    assert len(matching.query) == 2 * auxiliary.group.blocks * auxiliary.num_layers
    total(terms).backward()
    assert total(terms).isfinite()


@pytest.mark.slow(shapes=True)
@pytest.mark.parametrize("model", ARCHITECTURES[1:3])
def test_a_detached_memory_is_trained_by_the_detectors_own_groups_alone(
    make_detector, make_batch, model
) -> None:
    batch, teacher = make_batch((3, 0, 5)), make_detector(model, seed=1)
    wanted, _ = encoder_gradient(make_detector(model).eval(), batch, model, "md", teacher)
    detached, queries = encoder_gradient(
        make_detector(model).eval(), batch, model, "od", teacher, **{"distill.detach_memory": True}
    )
    attached, _ = encoder_gradient(make_detector(model).eval(), batch, model, "od", teacher)
    assert_close(detached, wanted, rtol=1e-3, atol=1e-5)
    assert not torch.allclose(attached, wanted, rtol=1e-2)
    assert queries  # the added groups still train the decoder


def encoder_gradient(
    student: DetectionTransformer,
    batch: Batch,
    model: str,
    recipe: str,
    teacher: DetectionTransformer,
    **switches,
) -> tuple[torch.Tensor, bool]:
    """Gradient of the encoder's weights, and whether the added groups reach the decoder."""
    terms, _, _ = taught_step(student, batch, model, recipe, teacher, **switches)
    added = [value for name, value in terms.items() if name.startswith(("prediction", "auxiliary"))]
    weight = student.decoder.layers[0].linear1.weight
    reached = bool(added) and bool(
        torch.autograd.grad(sum(added), weight, retain_graph=True)[0].any()
    )
    total(terms).backward()
    return torch.cat(
        [parameter.grad.flatten() for parameter in student.encoder.parameters()]
    ), reached


def test_without_the_teacher_every_recipe_is_qfl(make_detector, make_batch) -> None:
    student, batch = make_detector(ARCHITECTURES[0]).eval(), make_batch((3, 0, 5))
    recipe = make_recipe(
        options("od", ARCHITECTURES[0], {}),
        student,
        Teacher(make_detector(ARCHITECTURES[0], seed=1)),
    )
    plain = make_recipe(options("qfl", ARCHITECTURES[0], {}), student)
    ours, wanted = recipe.losses(student, batch, distil=False), plain.losses(student, batch)
    assert ours.keys() == wanted.keys()
    for name, value in wanted.items():
        assert torch.equal(ours[name], value)


# ---- a teacher in bfloat16 -----------------------------------------------------------------------


@pytest.mark.slow(shapes=True)
@pytest.mark.parametrize("align", ["student_topk", "teacher_topk"])
@every_model
def test_a_half_precision_teacher_leaves_the_student_exact(
    make_detector, make_batch, model, align
) -> None:
    """Only what is taught is rounded: the main group predicts exactly as without distillation."""
    student, batch = make_detector(model).eval(), make_batch((3, 0, 5))
    teacher = make_detector(model, seed=1)
    exact, half = (
        taught_step(
            student, batch, model, teacher=teacher, **{"ema.precision": value, "dino.align": align}
        )
        for value in ("student", "bf16")
    )
    ours, theirs = (taught.outputs["main"].predictions for _, _, taught in (half, exact))
    assert ours.boxes.dtype == ours.logits.dtype == torch.float32
    difference = (ours.logits - theirs.logits).abs().max()
    assert difference > 1e-6, "it does not compute in bfloat16"
    if align == "student_topk":  # else a rounded score may choose other tokens for both
        assert difference < 0.1
        main, other = (answer.outputs["main"].predictions for _, answer, _ in (half, exact))
        assert torch.equal(main.boxes, other.boxes)
    total(half[0]).backward()
    assert all(
        weight.grad.isfinite().all() for weight in student.parameters() if weight.grad is not None
    )


# ---- the tokens of two-stage architectures -------------------------------------------------------


@pytest.mark.slow(shapes=True)
@pytest.mark.parametrize("model", ARCHITECTURES[2:])
def test_teacher_and_student_start_from_the_tokens_that_were_agreed_on(
    make_detector, make_batch, model
) -> None:
    student, teacher = make_detector(model).eval(), make_detector(model, seed=1).eval()
    batch = make_batch((3, 0, 5))
    own, others = student.encode(batch), teacher.encode(batch)
    assert not torch.equal(own.tokens, others.tokens)
    for align, ours, theirs in (
        ("student_topk", own.tokens, own.tokens),
        ("teacher_topk", others.tokens, others.tokens),
        ("rank", own.tokens, others.tokens),
    ):
        recipe = make_recipe(options("md", model, {"dino.align": align}), student, Teacher(teacher))
        tokens = spied_tokens(recipe.teacher.detector)
        encoded, taught = recipe.consult(student, batch)
        assert torch.equal(encoded.tokens, ours), align
        assert all(torch.equal(seen, theirs) for seen in tokens), align
        direct = teacher.encode(batch, tokens=theirs)
        assert_close(taught.outputs["main"].queries[0].anchors, direct.queries.anchors, **CLOSE)


@pytest.mark.slow(shapes=True)
@pytest.mark.parametrize("align", ["student_topk", "teacher_topk", "rank"])
def test_images_with_fewer_tokens_than_queries_train(make_detector, make_batch, align) -> None:
    student = make_detector("dino-4scale", queries=200)  # 64 pixels have 85 tokens
    terms, *answers = taught_step(
        student, make_batch((3, 0, 5)), "dino-4scale", **{"dino.align": align}
    )
    assert [answer.outputs["main"].predictions.boxes.shape[2] for answer in answers] == [85, 85]
    assert total(terms).isfinite()


def spied_tokens(detector: DetectionTransformer) -> list[torch.Tensor]:
    """The tokens of everything the detector encodes later."""
    seen: list[torch.Tensor] = []
    encode: Callable = detector.encode

    def encode_and_keep(*arguments, **named):
        encoded = encode(*arguments, **named)
        seen.append(encoded.tokens)
        return encoded

    detector.encode = encode_and_keep  # type: ignore[method-assign]
    return seen
