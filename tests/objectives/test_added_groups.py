"""Which queries the added groups take, and what those start from."""

from __future__ import annotations

import pytest
import torch
from tests.objectives import transcription
from tests.objectives.steps import (
    CLASSES,
    DAB,
    DEFORMABLE,
    DIM,
    DINO,
    LAYERS,
    QUERIES,
    SEEDS,
    Transcribed,
    name_of,
    options,
    take_step,
)
from torch.testing import assert_close

from od_detr.criteria.matching import Matches
from od_detr.objectives import Taught
from od_detr.training.recipe import make_recipe

SELECTIONS = [
    {},
    {"ag.stages": (2,)},
    *({"ag.duplicates": value} for value in ("keep", "disjoint")),
    *(
        {"ag.include_matched": True, "ag.duplicates": value}
        for value in ("unique", "keep", "disjoint")
    ),
    *({"ag.max_queries": 3, "ag.duplicates": value} for value in ("unique", "keep", "disjoint")),
    {"ag.max_queries": 3, "ag.include_matched": True},
]


@pytest.mark.slow(shapes=True)
@pytest.mark.parametrize("setting", SELECTIONS, ids=name_of)
def test_auxiliary_groups_take_the_cheapest_queries_of_every_stage(
    encoded_batches, make_targets, setting
) -> None:
    chosen = options("md+ag", DEFORMABLE, setting)
    for seed in range(SEEDS):
        step = take_step(encoded_batches, chosen, seed, make_targets)
        if step.targets.most == 0:
            assert "auxiliary" not in step.outputs
            continue
        teacher, group = Transcribed(step).teacher("main"), step.outputs["auxiliary"].group
        stages = chosen.ag.stages or range(1, LAYERS + 1)
        origin, empty = (
            part.unflatten(1, (len(stages), -1)).tolist() for part in (group.origin, group.padding)
        )
        for image in range(len(step.targets.counts)):
            for block, stage in enumerate(stages):
                slots = zip(origin[image][block], empty[image][block], strict=True)
                wanted = transcription.selected_queries(teacher[stage - 1][image], chosen.ag)
                assert sorted(query for query, hole in slots if not hole) == wanted


@pytest.mark.parametrize("match", ["md", "original"])
def test_stages_also_count_from_the_end(encoded_batches, make_targets, match) -> None:
    ends, same = (
        take_step(
            encoded_batches,
            options("md+ag", DEFORMABLE, {"ag.stages": stages, "ag.match": match}),
            0,
            make_targets,
        ).terms
        for stages in ((-1, 1), (LAYERS, 1))
    )
    assert ends.keys() == same.keys()
    assert all(torch.equal(ends[name], same[name]) for name in same)


@pytest.mark.parametrize("pe", ["teacher_index", "sine"])
@pytest.mark.parametrize("ref", ["auto", "center", "box"])
@pytest.mark.parametrize("model", [DEFORMABLE, DAB])
def test_auxiliary_queries_start_from_what_left_the_stage(
    encoded_batches, make_targets, model, ref, pe
) -> None:
    step = take_step(
        encoded_batches,
        options("md+ag", model, {"ag.anchors": ref, "ag.position": pe}),
        0,
        make_targets,
    )
    teacher, group = step.taught["main"], step.outputs["auxiliary"].group
    origin = group.origin.unflatten(1, (LAYERS, -1))
    centre = ref == "center" or (ref == "auto" and model == DEFORMABLE)
    for image, block in torch.cartesian_prod(
        torch.arange(len(step.targets.counts)), torch.arange(LAYERS)
    ).tolist():
        for slot, query in enumerate(origin[image, block].tolist()):
            place = (image, block * origin.shape[2] + slot)
            box = teacher.predictions.boxes[block, image, query]
            wanted = torch.cat([box[:2], torch.zeros(2)]) if centre else box
            assert torch.equal(
                group.queries.content[place], teacher.queries[block + 1].content[image, query]
            )
            assert torch.equal(group.queries.anchors[place], wanted)
            if model == DAB:
                assert group.queries.position is None
            elif pe == "teacher_index":
                assert torch.equal(
                    group.queries.position[place], teacher.queries[0].position[image, query]
                )
            else:
                sine = transcription.sine_of_point(*box[:2].tolist(), DIM)
                assert_close(
                    group.queries.position[place], torch.tensor(sine), rtol=1e-4, atol=1e-5
                )


@pytest.mark.parametrize("pe", ["teacher", "student"])
@pytest.mark.parametrize("ref", ["teacher", "student"])
@pytest.mark.parametrize("model", [DEFORMABLE, DAB, DINO])
def test_prediction_queries_are_the_teachers_but_for_what_is_asked_of_the_student(
    encoded_batches, make_detector, make_batch, make_targets, model, ref, pe
) -> None:
    detector, own = encoded_batches(model)
    outputs = make_detector(model, CLASSES, 1, decoder_layers=LAYERS, queries=QUERIES)(
        make_batch((1, 1, 1), CLASSES)
    )
    recipe = make_recipe(options("md+pd", model, {"pd.position": pe, "pd.anchors": ref}), detector)
    targets = make_targets((1, 1, 1), CLASSES)
    taught = Taught(outputs, Matches([outputs["main"]], targets, recipe.cost))
    (group,) = (
        group
        for objective in recipe.objectives
        for group in objective.query_groups(own.queries, taught, targets)
    )
    theirs = outputs["main"].queries[0]
    assert not torch.equal(own.queries.anchors, theirs.anchors)
    assert torch.equal(group.queries.content, theirs.content)
    assert not group.queries.content.requires_grad
    assert torch.equal(group.queries.anchors, (theirs if ref == "teacher" else own.queries).anchors)
    if model == DEFORMABLE:
        assert torch.equal(
            group.queries.position, (theirs if pe == "teacher" else own.queries).position
        )
    else:
        assert group.queries.position is None
    assert group.name == "prediction"
    assert not group.own
    assert group.sees == ()
    assert group.padding is None
    assert not group.matched
